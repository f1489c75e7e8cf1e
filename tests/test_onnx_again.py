"""What a command stated of a file's input is in the record, and is stated again from there."""

import json
import shlex

import pytest
from onnx_files import convnet, save
from typer.testing import CliRunner

from perimetry.adapters.onnx_statement import parse_pairs
from perimetry.bench import audit
from perimetry.bench.again import Tools
from perimetry.bench.cli import app
from perimetry.bench.comparison import compare
from perimetry.bench.gate import check
from perimetry.bench.gate_judge import Verdict
from perimetry.bench.opaque import stated_inputs
from perimetry.bench.show_provenance import repeat
from perimetry.bench.store import Store
from perimetry.bench.verify import Outcome, verify
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
TOOLS = Tools(device="cpu")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder with the records of one file under `STATED`, the file, and the records."""
    folder = tmp_path_factory.mktemp("stated")
    path = save(convnet(size=None), folder / "vendor.onnx")
    records = audit(path, SUITES_TAKEN, inputs=STATED, count=4, draws=20, device="cpu")
    store = Store(folder / "set")
    for record in records:
        store.put(record)
    return folder / "set", path, store.records()


def test_the_statement_is_in_every_record_and_in_none_of_other_models(stored):
    _, _, records = stored
    assert [record.inputs for record in records] == [STATED] * 2
    assert (records[0].model.spec["height"], records[0].model.spec["value_range"]) == (48, 255.0)
    (other,) = audit("timm:test_resnet@init", ("structure",), inputs=STATED, device="cpu")
    assert other.inputs == {}


def test_the_record_of_a_file_that_could_not_be_opened_keeps_it_too(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no model")
    (record,) = audit(str(tmp_path / "a.onnx"), ("structure",), inputs=STATED, device="cpu")
    assert record.status == "failed"
    assert stated_inputs(record) == STATED


def test_records_of_the_first_schema_give_the_statement_of_their_model(stored):
    """They held it as text among the model's source."""
    record = stored[2][0].model_copy(update={"inputs": {}, "schema_version": 1})
    assert json.loads(record.model.source["inputs"]) == STATED
    assert stated_inputs(record) == STATED


def test_verify_repeats_it_bit_for_bit(stored):
    found = verify(stored[0], tools=TOOLS)
    assert [row.outcome for row in found.rows] == [Outcome.exact] * 2, found.text()


def test_verify_keeps_two_statements_about_one_file_apart(stored, tmp_path):
    store = Store(tmp_path / "both")
    for record in stored[2]:
        store.put(record)
    other = {**STATED, "mean": 0}
    for record in audit(stored[1], SUITES_TAKEN, inputs=other, count=4, draws=20, device="cpu"):
        store.put(record)
    found = verify(tmp_path / "both", tools=TOOLS)
    assert found.variants == 2
    assert [row.outcome for row in found.rows] == [Outcome.exact] * 4, found.text()


def test_check_and_compare_repeat_it(stored):
    folder, path, _ = stored
    assert check(folder, path, tools=TOOLS).verdict is Verdict.same
    (pair,) = compare(f"{folder}:{path}", path, tools=TOOLS).pairs[:1]
    for record in (*pair.first.records.values(), *pair.second.records.values()):
        assert record.inputs == STATED


def test_show_gives_a_command_that_states_the_same(stored):
    words = shlex.split(repeat(stored[2], SUITES))
    texts = [words[i + 1] for i, word in enumerate(words) if word == "--input"]
    assert parse_pairs(texts) == STATED


def test_the_command_line_states_it(stored, tmp_path):
    pairs = ["size=48,40", "range=0..255", "mean=104,117,123", "std=2.5", "channel_order=BGR"]
    words = ["run", stored[1], "--out", str(tmp_path / "out"), "--suite", "structure"]
    words += [word for pair in pairs for word in ("--input", pair)]
    done = CliRunner().invoke(app, [*words, "--output", "logits", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert {tuple(r.inputs) for r in Store(tmp_path / "out").records()} == {tuple(STATED)}
