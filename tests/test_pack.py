"""Packed records: one sorted file, the same bytes from the same records, and the same board."""

import gzip
import json
from itertools import permutations

import pytest
from typer.testing import CliRunner

from perimetry import audit
from perimetry.adapters.errors import InputError
from perimetry.bench.cli.main import app
from perimetry.bench.output.files import StoreError
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.tables import render_board
from perimetry.bench.records.archive import PUBLISHED, RecordArchive, open_records, pack_records
from perimetry.bench.records.parts import Failure
from perimetry.bench.records.store import Store

MODELS = ("timm:test_resnet@init", "timm:test_convnext@init")


@pytest.fixture(scope="module")
def records():
    found = []
    for reference in MODELS:
        settings = {"count": 4, "members": 4, "draws": 20, "device": "cpu", "size": (64, 64)}
        suites = ("structure", "deadpixel")
        found += audit(reference, suites, kernel_padding=("none", "box"), **settings)
    failed = found[0].model_copy(
        update={
            "key": "0" * 64,
            "status": "failed",
            "error": Failure(kind="died", message="line\nbreak\r and \x85 and \u2028 模型"),
            "model": found[0].model.model_copy(update={"reference": "a\nb.onnx"}),
        }
    )
    return [*found, failed]


@pytest.fixture
def store(tmp_path, records):
    made = Store(tmp_path / "set")
    for record in records:
        made.put(record)
    return made


def test_every_record_comes_back_as_it_was(store, records, tmp_path):
    """Packing and reading loses nothing of a record's JSON, control characters included."""
    assert pack_records(store, tmp_path / "a.jsonl") == len(records) == 11
    packed = RecordArchive(tmp_path / "a.jsonl")
    assert packed.read()[1] == []
    found = {record.key: record.model_dump() for record in packed.records()}
    assert found == {record.key: record.model_dump() for record in records}


@pytest.mark.parametrize("form", ["text", "card"])
def test_the_report_of_a_packed_model_is_that_of_its_folder(store, tmp_path, form):
    """To the character, with the place of the least phase, though a pack has no maps."""
    pack_records(store, tmp_path / "a.jsonl.gz")
    shown = [
        CliRunner().invoke(app, ["show", str(place), MODELS[0], "--format", form]).output
        for place in (store.root, tmp_path / "a.jsonl.gz")
    ]
    assert shown[0] == shown[1]
    assert form == "card" or "The least sensitive phase is row" in shown[0]


def test_the_bytes_do_not_depend_on_the_order_of_writing(records, tmp_path):
    """Stores filled in any order, and a packed file's own records, pack to the same bytes."""
    written = set()
    for i, order in enumerate(permutations(records[:4])):
        one = Store(tmp_path / str(i))
        for record in order:
            one.put(record)
        pack_records(one, tmp_path / f"{i}.jsonl")
        written.add((tmp_path / f"{i}.jsonl").read_bytes())
    again = Store(tmp_path / "again")
    for record in RecordArchive(tmp_path / "0.jsonl").records():
        again.put(record)
    pack_records(again, tmp_path / "again.jsonl")
    assert written == {(tmp_path / "again.jsonl").read_bytes()}


def test_a_compressed_file_is_the_same_records_in_fewer_bytes(store, tmp_path):
    """`.jsonl.gz` reads back equal, has the same bytes each time, and says when it is damaged."""
    for name in ("a.jsonl", "a.jsonl.gz", "b.jsonl.gz"):
        pack_records(store, tmp_path / name)
    plain, small, again = (tmp_path / n for n in ("a.jsonl", "a.jsonl.gz", "b.jsonl.gz"))
    assert small.read_bytes() == again.read_bytes()
    assert small.stat().st_size < plain.stat().st_size
    kept = [[r.model_dump() for r in open_records(path).records()] for path in (small, plain)]
    assert kept[0] == kept[1]
    small.write_bytes(small.read_bytes()[:-40])
    with pytest.raises(StoreError, match=r"a\.jsonl\.gz"):
        open_records(small)


def test_lines_are_sorted_and_their_keys_are_in_the_order_of_the_record(store, tmp_path):
    """A line a record, in order of reference, fill, suite, protocol; tables keep their columns."""
    pack_records(store, tmp_path / "a.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().split("\n")[:-1]]
    assert list(lines.pop(0)) == ["perimetry_pack", "records", "sha256"]
    places = [(c["model"]["reference"], c["fill"], c["suite"], c["protocol"]) for c in lines]
    assert places == sorted(places)
    assert len(set(places)) == 11
    stored = {record.key: json.loads(record.model_dump_json()) for record in store.records()}
    for content in lines:
        content.pop("draws", None)
        assert json.dumps(content) == json.dumps(stored[content["key"]])


def test_a_board_of_packed_records_has_the_rows_and_values_of_the_folder(store, tmp_path):
    """Values, intervals, paired changes, reasons, ranks and order agree."""
    pack_records(store, tmp_path / "a.jsonl", tables=False)
    boards = [Board(open_records(place).records()) for place in (store.root, tmp_path / "a.jsonl")]
    assert [(r.model, r.fill) for r in boards[0].rows] == [
        (r.model, r.fill) for r in boards[1].rows
    ]
    for a, b in zip(boards[0].rows, boards[1].rows, strict=True):
        ours, theirs = (board.cells(row) for board, row in zip(boards, (a, b), strict=True))
        assert ours == theirs
    column = "deadpixel.imbalance"
    methods = [
        {board.cells_of(row, column).get(f"{column}.change.method") for row in board.rows}
        for board in boards
    ]
    assert methods == [{None, "paired"}] * 2
    assert "test_resnet@init" in render_board(boards[1], "md")


def test_without_tables_a_record_is_the_same_but_for_them(store, records, tmp_path):
    """Leaving out the tables but that of dead regions changes nothing else, and saves room."""
    pack_records(store, tmp_path / "all.jsonl")
    pack_records(store, tmp_path / "few.jsonl", tables=False)
    assert any(record.tables for record in records)
    whole = {
        r.key: r.model_dump(exclude={"tables"})
        for r in RecordArchive(tmp_path / "all.jsonl").records()
    }
    few = RecordArchive(tmp_path / "few.jsonl").records()
    assert {r.key: r.model_dump(exclude={"tables"}) for r in few} == whole
    assert {name for record in few for name in record.tables} == {"dead_regions"}
    assert (tmp_path / "few.jsonl").stat().st_size < (tmp_path / "all.jsonl").stat().st_size


def test_a_damaged_line_is_named_and_hides_no_other(store, tmp_path):
    """Line 3 cut short is one problem, by number; the ten others are there."""
    path = tmp_path / "a.jsonl"
    pack_records(store, path)
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2][: len(lines[2]) // 2]
    path.write_bytes(b"\n".join(lines))
    packed = RecordArchive(path)
    assert len(packed.records()) == 10
    (problem,) = packed.read()[1]
    assert f"line 3 of {path}" in problem


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("change", ["first record", "last record", "two", "repeated", "value"])
def test_a_pack_that_lost_or_changed_a_line_says_so(store, tmp_path, name, change):
    """The first line says how many records follow and what their hash is."""
    path = tmp_path / name
    pack_records(store, path)
    opener = gzip.open if name.endswith(".gz") else open
    with opener(path, "rb") as stream:
        lines = stream.read().split(b"\n")
    changed = {
        "first record": [lines[0], *lines[2:]],
        "last record": [*lines[:-2], b""],
        "two": [*lines[:3], *lines[5:]],
        "repeated": [*lines[:3], lines[2], *lines[3:]],
        "value": [lines[0], lines[1].replace(b'"seed":0', b'"seed":1', 1), *lines[2:]],
    }[change]
    assert changed != lines
    with opener(path, "wb") as stream:
        stream.write(b"\n".join(changed))
    (problem,) = open_records(path).read()[1]
    assert str(path) in problem


def test_a_pack_of_an_older_version_has_no_first_line_to_check(store, tmp_path):
    """A pack without a header line is read whole and without a problem."""
    path = tmp_path / "a.jsonl"
    pack_records(store, path)
    path.write_bytes(path.read_bytes().split(b"\n", 1)[1])
    records, problems = open_records(path).read()
    assert len(records) == 11
    assert problems == []


def test_a_store_with_a_damaged_record_is_not_packed(store, records, tmp_path):
    """A store with a damaged record is not packed, and the error names the file."""
    store.path(records[0]).write_text("{")
    with pytest.raises(StoreError, match=store.path(records[0]).name):
        pack_records(store, tmp_path / "a.jsonl")
    assert not (tmp_path / "a.jsonl").exists()


def test_wrong_names_are_refused_with_what_is_expected(store, tmp_path):
    """Another suffix, a missing file and an empty folder each say what was expected."""
    with pytest.raises(InputError, match=r"'.*a\.json'; expected NAME\.jsonl"):
        pack_records(store, tmp_path / "a.json")
    with pytest.raises(StoreError, match=r"cannot use .*missing"):
        pack_records(store, tmp_path / "missing" / "a.jsonl")
    with pytest.raises(StoreError, match=r"cannot use .*none\.jsonl"):
        RecordArchive(tmp_path / "none.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"contains no records; expected a folder .* or a file"):
        open_records(tmp_path / "empty")
    with pytest.raises(InputError, match=r"does not exist; expected a folder .* or a file"):
        open_records(tmp_path / "typing eror")


def test_a_folder_of_sets_names_the_sets(store, tmp_path):
    """`perimetry board results` says which of its folders can be shown; a pack is no run."""
    tmp_path = tmp_path / "results"
    (tmp_path / "notes").mkdir(parents=True)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        pack_records(store, tmp_path / name / PUBLISHED)
    with pytest.raises(InputError, match=r"no records itself; .* do: one and two$"):
        open_records(tmp_path)
    found = CliRunner().invoke(app, ["pack", str(tmp_path / "one"), str(tmp_path / "a.jsonl")])
    assert (found.exit_code, "is packed already" in found.output) == (1, True)


def test_a_file_that_is_no_packed_set_is_refused_in_one_sentence(tmp_path):
    """A README given by mistake is not forty damaged records."""
    place = tmp_path / "README.md"
    place.write_text("# Models\n\nNone yet.\n" * 20)
    with pytest.raises(StoreError, match=r"README\.md.*40 lines"):
        open_records(place).read()


def test_a_folder_of_several_packs_names_them(store, tmp_path):
    """One of them has to be chosen; a folder without any still contains no records."""
    folder = tmp_path / "packs"
    folder.mkdir()
    with pytest.raises(InputError, match="contains no records"):
        open_records(folder)
    for name in ("one", "two"):
        pack_records(store, folder / f"{name}.jsonl.gz")
    with pytest.raises(InputError) as caught:
        open_records(folder)
    assert "one.jsonl.gz, two.jsonl.gz" in str(caught.value)
