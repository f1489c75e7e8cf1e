"""Verifying a published set; the schema of records; records of every schema version."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from small_nets import NAME, TOOLS, baseline, net, opened, perturbed
from typer.testing import CliRunner

from perimetry.adapters.errors import InputError, UnknownNameError
from perimetry.bench.cli.main import app
from perimetry.bench.execution.rerun import run_spec_of
from perimetry.bench.execution.settings import Toolkit
from perimetry.bench.records.archive import open_records, pack_records
from perimetry.bench.records.environment import environment
from perimetry.bench.records.record import SCHEMA_VERSION, Record, schema_text
from perimetry.bench.records.store import Store, read_record
from perimetry.bench.regression.noise_floor import threads
from perimetry.bench.regression.report import check_to_json, check_to_text, to_junit
from perimetry.bench.regression.reproduce import reproduce
from perimetry.suites.registry import SUITES

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
SCHEMA = ROOT / "docs" / "record.schema.json"


def tools(module=None, **changes):
    """Tools that open the small network, or `module`, under its stored name."""

    def load(reference, **_settings):
        if reference != NAME:
            raise UnknownNameError(f"unknown model {reference!r}")
        return opened(net() if module is None else module)

    return replace(TOOLS, toolkit=lambda: Toolkit(load, SUITES), **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return baseline(tmp_path_factory.mktemp("set"), fills=("none", "box"))


def rewritten(folder, suite, change):
    """Change the JSON of one stored record."""
    store = Store(folder)
    record = next(r for r in store.records() if (r.suite, r.fill) == (suite, "none"))
    content = json.loads(store.path(record).read_text())
    change(content)
    store.path(record).write_text(json.dumps(content))


EXACT, CLOSE = "reproduces bit for bit", "reproduces within tolerance"


def outcomes(found):
    """What is said of each row, by model, kernel padding and protocol."""
    return {
        f"{r.reference} ({r.fill}) {f.where}": f.text for r in found.reports for f in r.findings
    }


def test_a_set_made_here_reproduces_bit_for_bit(folder):
    """Every row of both variants: metrics, intervals, draws and maps are equal."""
    found = reproduce(folder, run=tools())
    assert found.called.more == "2 of 2 model variants measured again"
    assert (len(found.reports), len(outcomes(found))) == (2, 7)
    assert set(outcomes(found).values()) == {EXACT}, check_to_text(found)
    assert found.verdict.value == 0


@pytest.mark.parametrize(("recorded", "used"), [("1", 1), ("64", 2)])
def test_a_set_is_measured_again_on_as_many_threads(folder, tmp_path, monkeypatch, recorded, used):
    """Those of its records, or those of here where there are not as many cores; records say it."""
    packed, seen = tmp_path / "set", []
    shutil.copytree(folder, packed)
    for suite in {record.suite for record in Store(packed).records() if record.fill == "none"}:
        rewritten(packed, suite, lambda c: c["environment"]["threads"].update(torch=recorded))

    def load(reference, **_settings):
        seen.append((torch.get_num_threads(), environment().threads["torch"]))
        return opened(net())

    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    with threads(2):
        run = replace(TOOLS, toolkit=lambda: Toolkit(load, SUITES))
        found = reproduce(packed, where=["fill=none"], run=run)
        assert torch.get_num_threads() == 2
    assert set(seen) == {(used, str(used))}
    assert found.verdict.value == 0


def test_another_batch_size_reproduces_within_tolerance_at_least(folder):
    """Another batch size reproduces every row exactly or within the tolerance."""
    found = reproduce(folder, run=tools(batch=3))
    assert found.verdict.value == 0
    assert all(text.startswith((EXACT, CLOSE)) for text in outcomes(found).values())


def test_a_number_that_was_changed_in_the_set_does_not_reproduce(tmp_path):
    """A published value made better by a tenth is found, and only its row."""
    place = baseline(tmp_path)
    rewritten(place, "structure", _better)
    found = reproduce(place, run=tools())
    assert found.verdict.value == 1
    (wrong,) = [text for text in outcomes(found).items() if "does not reproduce" in text[1]]
    assert wrong[0] == f"{NAME} (none) structure:expected"
    assert "structure:expected.weakest" in wrong[1]


def test_other_weights_do_not_reproduce(folder):
    """A set published for one state of a network is not that of another."""
    found = reproduce(folder, run=tools(perturbed(0, 0.3)))
    assert found.verdict.value == 1
    assert "does not reproduce" in outcomes(found)[f"{NAME} (none) deadpixel:energy"]
    assert outcomes(found)[f"{NAME} (none) structure:expected"] == EXACT


def test_a_record_of_other_libraries_says_which(tmp_path):
    """Where the key comes out otherwise, the row names the versions that differ."""
    place = baseline(tmp_path, suites=("deadpixel",))

    def older(content):
        content["environment"]["libraries"]["torch"] = "1.0"
        content["key"] = "f" * 64
        content["metrics"]["relL1"]["value"] *= 1 + 1e-7

    rewritten(place, "deadpixel", older)
    (text,) = outcomes(reproduce(place, run=tools())).values()
    assert text.startswith(CLOSE)
    assert "torch 1.0" in text
    assert "relL1" in text


def test_a_sample_is_seeded_and_of_variants(folder):
    """A sample of one of two variants depends on its seed alone."""
    taken = [
        reproduce(folder, sample=1, seed=seed, run=tools()).reports[0].fill
        for seed in (0, 0, 1, 2, 3)
    ]
    assert taken[0] == taken[1]
    assert len(set(taken)) == 2


def test_models_are_chosen_by_a_pattern_of_references(tmp_path):
    """Of two models only the one that fits is measured; none that fits is an error, no success."""
    place = baseline(tmp_path, suites=("structure",))
    store = Store(place)
    (own,) = store.records()
    source = own.model.model_copy(update={"reference": "elsewhere.onnx"})
    store.put(own.model_copy(update={"model": source, "key": "e" * 64}))
    found = reproduce(place, where=[f"model={NAME[:2]}*"], run=tools())
    assert (found.called.more[:6], found.verdict.value) == ("1 of 1", 0)
    assert reproduce(place, where=["model=*.onnx"], run=tools()).verdict.value == 2
    with pytest.raises(UnknownNameError, match="matches --where"):
        reproduce(place, where=["model=other"], run=tools())


def test_what_cannot_be_opened_could_not_be_measured(tmp_path):
    """Exit code 2, with the reason of the model's own error."""
    place = baseline(tmp_path, suites=("structure",))

    def renamed(content):
        content["model"]["reference"] = "elsewhere.onnx"

    rewritten(place, "structure", renamed)
    found = reproduce(place, run=tools())
    assert found.verdict.value == 2
    assert "unknown model" in check_to_text(found)


def test_an_unreadable_record_is_told_and_is_no_success(tmp_path):
    """A corrupt file counts against the set; an empty folder is an error."""
    place = baseline(tmp_path / "set", suites=("structure", "deadpixel"))
    store = Store(place)
    store.path(store.records()[0]).write_text("{")
    found = reproduce(place, run=tools())
    assert (len(found.reports), len(found.problems), found.verdict.value) == (2, 1, 1)
    with pytest.raises(InputError, match="does not exist"):
        reproduce(tmp_path / "none")


def test_a_packed_set_is_verified_by_its_metrics(folder, tmp_path):
    """A `.jsonl` in git has no arrays; its metrics and intervals must still come out."""
    path = tmp_path / "set.jsonl"
    pack_records(Store(folder), path)
    assert set(outcomes(reproduce(path, run=tools())).values()) == {EXACT}


def test_the_command_verifies_a_run(tmp_path):
    """`perimetry verify` on what `perimetry run` wrote: exit code 0."""

    def perimetry(*arguments):
        return CliRunner().invoke(app, [str(a) for a in arguments])

    run = ["run", "timm:test_resnet@init", "--suite", "structure", "--kernel-padding", "none"]
    assert perimetry(*run, "--out", tmp_path, "--device", "cpu").exit_code == 0
    done = perimetry("verify", tmp_path, "--sample", "1", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "\nPASS timm:test_resnet@init\n" in f"\n{done.output}"
    assert f"PASS: 1 passed; set {tmp_path}; 1 of 1 model variants measured again" in done.output
    assert "1 bit for bit" in done.output


def test_verify_speaks_the_words_of_check(tmp_path):
    """PASS, FAIL or ERROR first, counts, JSON and JUnit."""
    place = baseline(tmp_path / "set", fills=("none", "box"))
    rewritten(place, "structure", _better)
    found = reproduce(place, run=tools())
    text = check_to_text(found)
    assert text.splitlines()[:2] == [f"PASS {NAME} (kernel padding box)", f"FAIL {NAME}"]
    assert "FAIL: 1 passed, 1 failed; set " in text
    data = json.loads(check_to_json(found))
    assert (data["verdict"], data["exit_code"], data["counts"]["failed"]) == ("FAIL", 1, 1)
    assert data["set"] == str(place)
    root = ElementTree.fromstring(to_junit(found))  # noqa: S314 - our own text
    assert (root.get("name"), root.get("failures")) == ("perimetry verify", "1")
    assert all(float(suite.get("time")) > 0 for suite in root)


def test_what_cannot_be_verified_is_an_error_in_every_report(tmp_path):
    """An empty folder exits with 2, and JSON and JUnit have the reason."""
    junit = tmp_path / "junit.xml"
    words = ["verify", str(tmp_path / "none"), "--format", "json", "--junit", str(junit)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert json.loads(done.stdout)["verdict"] == "ERROR"
    assert "does not exist" in junit.read_text()


def _better(content):
    held = content["metrics"]["weakest"]
    content["metrics"]["weakest"] = {**held, "value": held["value"] + 0.1}


# ------------------------------------------------------------------ schema


def complaints(value, schema, root, place="record"):
    """What in `value` the JSON schema forbids: the part of the standard that ours uses."""
    if "$ref" in schema:
        return complaints(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, place)
    if "anyOf" in schema:
        found = [complaints(value, one, root, place) for one in schema["anyOf"]]
        return [] if [] in found else [f"{place}: none of {len(found)} forms"]
    if "const" in schema and value != schema["const"]:
        return [f"{place}: not {schema['const']}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{place}: not one of {schema['enum']}"]
    return [*_of_type(value, schema, place), *_inside(value, schema, root, place)]


KINDS = {
    "object": dict, "array": list, "string": str, "boolean": bool,
    "integer": int, "number": (int, float), "null": type(None),
}  # fmt: skip


def _of_type(value, schema, place):
    kind = KINDS.get(schema.get("type"), object)
    truth = isinstance(value, bool) and schema.get("type") in ("integer", "number")
    return [] if isinstance(value, kind) and not truth else [f"{place}: no {schema['type']}"]


def _inside(value, schema, root, place):
    found = []
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        found += [f"{place}.{n}: missing" for n in schema.get("required", ()) if n not in value]
        for name, inner in value.items():
            if name not in known and others is False:
                found.append(f"{place}.{name}: unknown")
                continue
            rule = known.get(name, others if isinstance(others, dict) else {})
            found += complaints(inner, rule, root, f"{place}.{name}")
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for i, inner in enumerate(value):
            found += complaints(inner, schema["items"], root, f"{place}[{i}]")
    return found


def test_the_records_of_a_training_are_not_measured_again():
    """They are errors that name the command which trains them, not faults of their images."""
    records = open_records(Path(__file__).parents[1] / "results" / "training").records()
    with pytest.raises(InputError, match="perimetry train"):
        run_spec_of(records)


def test_the_published_schema_is_current():
    """`perimetry schema --out docs/record.schema.json` would change nothing."""
    assert SCHEMA.read_text(encoding="utf-8") == schema_text()
    assert CliRunner().invoke(app, ["schema"]).output == schema_text()


def test_stored_records_validate_against_the_published_schema(folder):
    """Every record of a real set; and the checker finds what is planted."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    paths = sorted((folder / "records").glob("*.json"))
    assert len(paths) == 7
    for path in paths:
        assert complaints(json.loads(path.read_text()), schema, schema) == []
    content = json.loads(paths[0].read_text())
    content["status"], content["surprise"], content["seed"] = "fine", 1, True
    del content["suite"]
    found = " ".join(complaints(content, schema, schema))
    for text in ("record.suite: missing", "surprise: unknown", "status: not one of", "seed: no"):
        assert text in found


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_a_record_of_every_schema_version_loads(version):
    """A file that this project wrote under each version reads as a record of today."""
    record = read_record(DATA / f"record-{version}.json")
    assert isinstance(record, Record)
    assert json.loads((DATA / f"record-{version}.json").read_text())["schema_version"] == version
    assert record.metrics["weakest"].value == pytest.approx(4 / 9)
    assert record.model.reference
    assert np.isfinite(record.timing.measure_s)


def test_a_record_of_an_unknown_version_is_refused():
    """A record of a later schema version is a ValidationError of that field."""
    content = json.loads((DATA / "record-1.json").read_text())
    with pytest.raises(ValidationError, match="schema_version"):
        Record.model_validate(content | {"schema_version": SCHEMA_VERSION + 1})
