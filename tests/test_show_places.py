"""`perimetry show`: folders, files and names; what it says of real models."""

from __future__ import annotations

import re
import shlex

import pytest
from planted_report import model, record
from typer.testing import CliRunner

from perimetry.adapters.errors import InputError, UnknownNameError
from perimetry.bench.cli.main import app
from perimetry.bench.model_report.case import open_case
from perimetry.bench.model_report.provenance import intervals_text, repeat
from perimetry.bench.model_report.report import report
from perimetry.bench.model_report.reported import reported
from perimetry.bench.output.files import StoreError
from perimetry.bench.output.text import counted
from perimetry.bench.records.references import find_reference
from perimetry.bench.records.selection import MixedRecordsError
from perimetry.bench.records.store import Store
from perimetry.suites.registry import SUITES

# Folders, files, names


def perimetry(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def folder(tmp_path):
    """A store with two models, one of them treated too."""
    store = Store(tmp_path)
    for key, name in (("a" * 30, "timm:first@init"), ("b" * 30, "/some/where/second.onnx")):
        found = record("structure", {"weakest": 0.5}, model=model(name))
        store.put(found.model_copy(update={"key": key}))
    treated = record(
        "structure", {"weakest": 0.9}, fill="box", model=model("timm:first@init", fill="box")
    )
    store.put(treated)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("timm:first@init", "timm:first@init"),
        ("first@init", "timm:first@init"),
        ("first", "timm:first@init"),
        ("second.onnx", "/some/where/second.onnx"),
        ("second", "/some/where/second.onnx"),
        ("irst", "timm:first@init"),
        ("where/sec", "/some/where/second.onnx"),
    ],
)
def test_a_model_is_found_by_enough_of_its_name(folder, name, reference):
    """A reference, without prefix, without state, a file's name, its stem, or any part of one."""
    assert open_case(folder, name)[0].reference == reference


def test_an_unknown_model_is_answered_with_near_names(folder):
    """A misspelt name, and no name where there are several, give what there is."""
    with pytest.raises(
        UnknownNameError, match="unknown model 'frist@init'; did you mean timm:first@init"
    ):
        open_case(folder, "frist@init")
    with pytest.raises(InputError, match=r"/some/.*timm:first"):
        open_case(folder)


def test_an_unknown_variant_gives_those_there_are(folder):
    """Asking for `zero`, which was not measured, is an error that offers none and box."""
    assert open_case(folder, "first", fill="box")[0].fill == "box"
    with pytest.raises(UnknownNameError, match=r"'zero'.*box, none"):
        open_case(folder, "first", fill="zero")


def test_places_without_records_say_what_was_expected(tmp_path):
    """A folder that is none, an empty store, and a file that is no record, each in one line."""
    with pytest.raises(InputError, match="contains no records"):
        open_case(tmp_path)
    assert not (tmp_path / "records").exists()
    Store(tmp_path)
    with pytest.raises(InputError, match="contains no readable record"):
        open_case(tmp_path)
    wrong = tmp_path / "x.json"
    wrong.write_text("{}")
    with pytest.raises(StoreError, match=r"x\.json"):
        open_case(wrong)
    done = perimetry("show", wrong)
    assert done.exit_code == 1
    assert done.output.startswith("perimetry: ")


def test_a_damaged_record_in_a_folder_is_named_and_left_out(folder):
    """The others are shown; a folder of nothing but damage says what is wrong."""
    (folder / "records" / "broken.json").write_text("{")
    done = perimetry("show", folder, "first")
    assert done.exit_code == 0
    assert "broken.json" in done.output
    for path in (folder / "records").glob("*.json"):
        path.write_text("{")
    done = perimetry("show", folder, "first")
    assert done.exit_code == 1
    assert ".json" in done.output


def test_damaged_arrays_cost_the_maps_alone(folder):
    """A cut-off archive beside a record: its numbers are shown, and a note says what is lost."""
    (path,) = (folder / "records").glob("timm-first-init.none*.json")
    path.with_suffix(".npz").write_bytes(b"PK\x03\x04 cut off")
    text = report(open_case(folder, "first")[0])
    assert path.with_suffix(".npz").name in "".join(text.split())
    assert "structure.weakest" in text


def test_one_record_is_shown_from_its_file(folder):
    """A record's own file needs no name, and the report is of that record alone."""
    (path,) = (folder / "records").glob("*.box.*.json")
    case, _ = open_case(path)
    assert (case.reference, case.fill, len(case.every)) == ("timm:first@init", "box", 1)
    assert "no record of the untreated model" in report(case)


def test_mixed_settings_are_refused_until_one_is_chosen(folder):
    """Two seeds of one suite: refused with `--where`; with it, the report is of that seed."""
    store = Store(folder)
    for seed in (0, 1):
        found = record(
            "deadpixel", {"weakest": (0.5, 0.1 + seed / 10)}, model=model("timm:first@init")
        )
        store.put(found.model_copy(update={"seed": seed, "key": f"{seed}" * 30}))
    with pytest.raises(MixedRecordsError, match="--where"):
        open_case(folder, "first")
    assert "0.50 ± 0.20" in report(open_case(folder, "first", where=["seed=1"])[0])
    with pytest.raises(UnknownNameError, match="--where 'version=7'"):
        open_case(folder, "second", where=["version=7"])


# End to end


RUN = ["--count", "4", "--members", "2", "--device", "cpu", "--seed", "3", "--size", "64"]


@pytest.fixture(scope="module")
def measured_folder(tmp_path_factory):
    """A real run over a tiny network, with settings off their defaults and an odd protocol."""
    out = tmp_path_factory.mktemp("show")
    done = perimetry(
        "run", "timm:test_resnet@init", "--suite", "structure,erf:luo2016,deadpixel",
        "--set", "erf.unit=0,1", "--out", out, *RUN,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return out


def test_the_command_that_is_printed_makes_the_same_records(measured_folder):
    """Given again with the folder, it finds every record made: nothing that counts is left out."""
    case, _ = open_case(measured_folder)
    words = shlex.split(repeat(case.every, SUITES))
    words[words.index("OUT")] = str(measured_folder)
    done = perimetry(*words[1:], "--device", "cpu")
    assert f"records made: none; already present: {len(case.every)}" in done.output
    assert f"    {repeat(case.every, SUITES)}\n" in report(case)


def test_a_real_model_is_shown_with_its_pictures(measured_folder, tmp_path):
    """Every suite has its heading, every map its picture, and no picture is of nothing."""
    done = perimetry("show", measured_folder, "test_resnet", "--maps", tmp_path / "maps")
    assert done.exit_code == 0, done.output
    for heading in ("structure: ", "erf:luo2016: ", "deadpixel: ", "Kernel padding box", "Where"):
        assert f"\n{heading}" in done.output
    assert "Settings: erf.unit=0,1." in done.output
    case, _ = open_case(measured_folder)
    maps = {f"{r.fill}.{r.suite}-{r.protocol}.{name}" for r in case.every for name in r.maps}
    drawn = [
        p.name.partition("init.")[2].removesuffix(".png") for p in (tmp_path / "maps").glob("*")
    ]
    assert maps == {name for name in drawn if not name.endswith(".change")}
    changes = {name.removesuffix(".change") for name in drawn if name.endswith(".change")}
    assert changes == {name for name in maps if name.startswith("box") and "fidelity" not in name}


def test_nothing_said_of_a_real_model_contradicts_its_records(measured_folder):
    """Every figure is the number of the record, to the digits shown."""
    case, _ = open_case(measured_folder)
    sections = report(case).split("\n\n")
    for one in reported(case.records, SUITES):
        (section,) = (s for s in sections if s.startswith(f"{one.column}: "))
        assert len(one.names) > 10
        for name in one.names:
            row = re.search(rf"^ +{re.escape(one.label(name))}  +(\S+)", section, re.MULTILINE)
            held = one.estimate(name).value
            assert float(row[1]) == pytest.approx(held, rel=0.05, abs=0.05)


def test_an_architecture_finds_its_only_tag_and_a_part_of_several_names_finds_none():
    """`resnet50` finds its only tag, and `resnet5`, a part of two names, is an InputError."""
    held = ["timm:resnet50.a1_in1k", "timm:resnet50d.ra2_in1k"]
    assert find_reference("resnet50", held) == held[0]
    with pytest.raises(InputError, match=r"'resnet5' .* timm:resnet50\.a1.* and "):
        find_reference("resnet5", held)


def test_too_few_samples_are_said_to_give_no_intervals():
    """Three images have no interval, so none is promised; one channel is no `channel(s)`."""
    assert intervals_text(3, "images") == "no intervals, which take 4 images or more: here 3"
    assert intervals_text(4, "weight sets").startswith(
        "intervals are 95 %, over 4 weight sets; fewer"
    )
    assert intervals_text(8, "weight sets") == "intervals are 95 %, over 8 weight sets"
    assert (counted(1, "channel"), counted(3, "channel")) == ("1 channel", "3 channels")
