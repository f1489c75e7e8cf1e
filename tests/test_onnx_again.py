"""What a command stated of a file's input is in the record, and is stated again from there."""

import json
import shlex
from pathlib import Path

import pytest
from onnx_files import convnet, node, save
from typer.testing import CliRunner

from perimetry import audit
from perimetry.adapters.onnx.inputs.declaration import parse_pairs
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.bench.cli.main import app
from perimetry.bench.comparison.compare import compare
from perimetry.bench.execution.settings import RunOptions
from perimetry.bench.model_report.provenance import repeat
from perimetry.bench.records.manifest import write_manifest
from perimetry.bench.records.references import stated_inputs
from perimetry.bench.records.store import Store
from perimetry.bench.regression.check import check
from perimetry.bench.regression.reproduce import reproduce
from perimetry.bench.regression.result import RegressionVerdict
from perimetry.suites.registry import SUITES

STATED = {
    "size": [48, 40],
    "range": "0..255",
    "mean": [104, 117, 123],
    "std": 2.5,
    "channel_order": "BGR",
    "output": "logits",
}
SUITES_TAKEN = ("structure", "deadpixel")
TOOLS = RunOptions(device="cpu")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder with the records of one file under `STATED`, the file, and the records."""
    folder = tmp_path_factory.mktemp("stated")
    path = save(convnet(size=None), folder / "vendor.onnx")
    records = audit(path, SUITES_TAKEN, inputs=STATED, count=4, draws=20, device="cpu")
    store = Store(folder / "set")
    for record in records:
        store.put(record)
    write_manifest(store)
    return folder / "set", path, store.records()


def texts(found):
    """What a check says of each row."""
    return [finding.text for report in found.reports for finding in report.findings]


def test_the_statement_is_in_every_record_and_in_none_of_other_models(stored):
    """Records of a timm model have no declared inputs."""
    _, _, records = stored
    assert [record.inputs for record in records] == [STATED] * 2
    assert (records[0].model.spec["height"], records[0].model.spec["value_range"]) == (48, 255.0)
    (other,) = audit("timm:test_resnet@init", ("structure",), inputs=STATED, device="cpu")
    assert other.inputs == {}


def test_the_record_of_a_file_that_could_not_be_opened_keeps_it_too(tmp_path):
    """A failed record has the declared inputs."""
    (tmp_path / "a.onnx").write_bytes(b"no model")
    (record,) = audit(str(tmp_path / "a.onnx"), ("structure",), inputs=STATED, device="cpu")
    assert record.status == "failed"
    assert stated_inputs(record) == STATED


def test_records_of_the_first_schema_give_the_statement_of_their_model(stored):
    """Records of schema 1, with the declaration as text, give the same declaration."""
    record = stored[2][0].model_copy(update={"inputs": {}, "schema_version": 1})
    assert json.loads(record.model.source["inputs"]) == STATED
    assert stated_inputs(record) == STATED


def test_verify_repeats_it_bit_for_bit(stored):
    """`verify` measures both rows exactly as recorded."""
    found = reproduce(stored[0], run=TOOLS)
    assert texts(found) == ["reproduces bit for bit"] * 2


def test_verify_keeps_two_statements_about_one_file_apart(stored, tmp_path):
    """Two declarations make two variants, and all four rows are exact."""
    store = Store(tmp_path / "both")
    for record in stored[2]:
        store.put(record)
    other = {**STATED, "mean": 0}
    for record in audit(stored[1], SUITES_TAKEN, inputs=other, count=4, draws=20, device="cpu"):
        store.put(record)
    found = reproduce(tmp_path / "both", run=TOOLS)
    assert len(found.reports) == 2
    assert texts(found) == ["reproduces bit for bit"] * 4


def test_check_and_compare_repeat_it(stored):
    """Both measure the file with the declared inputs of the stored records."""
    folder, path, _ = stored
    assert check(folder, path, run=TOOLS).verdict is RegressionVerdict.same
    (pair,) = compare(f"{folder}:{path}", path, run=TOOLS).pairs[:1]
    for record in (*pair.first.records.values(), *pair.second.records.values()):
        assert record.inputs == STATED


BYTES = {"layout": "NHWC", "size": 32, "range": "0..255", "mean": 127.5, "std": 127.5}
UNIT = {"layout": "NCHW", "size": 32, "range": "0..1", "mean": 0.5, "std": 0.5}


@pytest.fixture(scope="module")
def vendors(tmp_path_factory):
    """One network in two files of unlike layout and range, whose axes are all open."""
    folder = tmp_path_factory.mktemp("vendors")
    first, second = convnet(size=None, channels=3), convnet(size=None, channels=3)
    first.graph.node[0].input[0] = "moved"
    first.graph.node.insert(0, node("Transpose", ["image"], ["moved"], perm=[0, 3, 1, 2]))
    for proto in (first, second):
        for axis in proto.graph.input[0].type.tensor_type.shape.dim:
            axis.Clear()
    return save(first, folder / "bytes.onnx"), save(second, folder / "unit.onnx")


def audited(path, stated, place=None):
    """Records of one file under one statement, stored in `place`."""
    records = audit(path, SUITES_TAKEN, inputs=stated, count=4, draws=20, device="cpu")
    assert [record.status for record in records] == ["ok", "ok"], records[0].error
    for record in records if place else ():
        Store(place).put(record)
    return records


def statements(found):
    """What all records of each side of the only pair state of its input."""
    (pair,) = found.pairs
    sides = [list(side.records.values()) for side in (pair.first, pair.second)]
    assert all(r.inputs == records[0].inputs for records in sides for r in records)
    return [records[0].inputs for records in sides]


def test_a_statement_is_lent_to_no_other_file(vendors, tmp_path):
    """The second file says in its TOML what its input is, and gives the first one's numbers."""
    first, second = vendors
    audited(first, BYTES, tmp_path / "set")
    beside = Path(second).with_suffix(".toml")
    beside.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in UNIT.items()))
    found = compare(f"{tmp_path / 'set'}:{first}", second, run=TOOLS)
    beside.unlink()
    assert statements(found) == [BYTES, {}]
    assert not found.pairs[0].differing, found.text()


def test_a_statement_is_found_by_the_file_beside_stored_records_of_another(vendors, tmp_path):
    """Both are stored, the second is audited with padding: each under its own statement."""
    for path, stated in zip(vendors, (BYTES, UNIT), strict=True):
        audited(path, stated, tmp_path / "set")
    found = compare(f"{tmp_path / 'set'}:{vendors[0]}", f"{vendors[1]}+box", run=TOOLS)
    assert statements(found) == [BYTES, UNIT]


def test_a_statement_is_found_under_another_path_to_the_file(vendors, tmp_path, monkeypatch):
    """Stored by its whole path, named by its bare name."""
    audited(vendors[0], BYTES, tmp_path / "set")
    monkeypatch.chdir(Path(vendors[0]).parent)
    found = compare(f"{tmp_path / 'set'}:{vendors[0]}", "bytes.onnx", run=TOOLS)
    assert statements(found) == [BYTES] * 2


def test_an_opened_model_is_lent_nothing(vendors, tmp_path):
    """It says itself what was stated when it was opened."""
    audited(vendors[0], BYTES, tmp_path / "set")
    beside = open_onnx(vendors[1], inputs=UNIT, device="cpu")
    found = compare(f"{tmp_path / 'set'}:{vendors[0]}", beside, run=TOOLS)
    assert statements(found) == [BYTES, {}]
    records = found.pairs[0].second.records.values()
    assert all(stated_inputs(record) == UNIT for record in records)


def test_show_gives_a_command_that_states_the_same(stored):
    """The printed command parses to the same declaration."""
    words = shlex.split(repeat(stored[2], SUITES))
    texts = [words[i + 1] for i, word in enumerate(words) if word == "--input"]
    assert parse_pairs(texts) == STATED


def test_the_command_line_states_it(stored, tmp_path):
    """`--input` and `--output` store the same names as the declaration in Python."""
    pairs = ["size=48,40", "range=0..255", "mean=104,117,123", "std=2.5", "channel_order=BGR"]
    words = ["run", stored[1], "--out", str(tmp_path / "out"), "--suite", "structure"]
    words += [word for pair in pairs for word in ("--input", pair)]
    done = CliRunner().invoke(app, [*words, "--output", "logits", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert {tuple(r.inputs) for r in Store(tmp_path / "out").records()} == {tuple(STATED)}
