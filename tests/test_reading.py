"""Commands read what they show: files, tables and arrays are counted, not seconds."""

import gc
import hashlib
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from planted_report import model, record

from perimetry.bench.cli import start
from perimetry.bench.model_report.case import open_case
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.page import page
from perimetry.bench.ranking.page.model_panel import unpacked
from perimetry.bench.ranking.page.numbers import content
from perimetry.bench.ranking.tables import render_board
from perimetry.bench.ranking.view import board_frame
from perimetry.bench.records import arrays, store
from perimetry.bench.records.archive import RecordArchive, pack_records
from perimetry.bench.records.selection import load_records
from perimetry.bench.records.store import Store

MODELS = 6
LAYERS = [{"name": f"layer {n}", "kernel": [3, 3]} for n in range(40)]
REGIONS = [{"channel": "all", "pixels": 4, "rows": 2, "columns": 2, "box": [2, 0, 4, 2]}]


def planted(name, fill, suite, seed):
    """A record with maps, draws, a large table, and the table of dead regions in one suite."""
    rng = np.random.default_rng(seed)
    value = float(rng.uniform(0.2, 0.8))
    tables = {"culprits": LAYERS} | ({"dead_regions": REGIONS} if suite == "deadpixel" else {})
    names = {"deadpixel": ("weakest", "imbalance"), "structure": ("weakest",)}[suite]
    made = record(
        suite,
        dict.fromkeys(names, (value, 0.1)),
        fill=fill,
        model=model(name, fill=fill),
        tables=tables,
        maps={"sensitivity": rng.random((32, 32))},
        draws={metric: value + 0.05 * rng.standard_normal(200) for metric in names},
    )
    key = hashlib.sha256(f"{name}{fill}{suite}".encode()).hexdigest()
    return made.model_copy(update={"key": key, "map_names": ["sensitivity"]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Records of two suites and two variants of each model."""
    place = tmp_path_factory.mktemp("many")
    for seed, name in enumerate(f"toy:model{n}" for n in range(MODELS)):
        for fill in ("none", "box"):
            for suite in ("deadpixel", "structure"):
                Store(place).put(planted(name, fill, suite, seed + 10 * (fill == "box")))
    return place


@pytest.fixture
def reads(monkeypatch):
    """The names of the files and of the members of archives that are read from now on."""
    found = {"records": [], "members": []}
    read_bytes, read_member = store.read_bounded, arrays._read_member

    def reading(path, limit):
        found["records"].append(path.name)
        return read_bytes(path, limit)

    def unpacking(opened, info):
        found["members"].append(info.filename)
        return read_member(opened, info)

    monkeypatch.setattr(store, "read_bounded", reading)
    monkeypatch.setattr(arrays, "_read_member", unpacking)
    return found


def test_a_board_reads_each_record_once_and_only_the_draws_of_its_column(folder, reads):
    """A Markdown board reads no map, no draws of another column, and those of its own once."""
    found, _ = Store(folder).read(tables=False)
    text = render_board(Board(found), "md")
    assert text.count("toy:model") >= 2 * MODELS
    assert len(reads["records"]) == len(set(reads["records"])) == 4 * MODELS
    assert reads["members"] == ["draws.weakest.npy"] * 2 * MODELS


def test_a_csv_board_reads_no_map_and_keeps_no_draws(folder, reads):
    """All columns need all draws of variants that are compared; none stays in memory."""
    found, _ = Store(folder).read(tables=False)
    board = Board(found)
    board_frame(board)
    assert not [name for name in reads["members"] if name.startswith("map")]
    assert all(one._draws is None and one._arrays is None for one in board.records)


@pytest.mark.parametrize("name", ["toy:model3", "model3", "del3"])
def test_show_reads_only_the_files_of_its_model(folder, reads, name):
    """By reference, short name or part of it, the other models' files stay closed."""
    case, problems = open_case(folder, name)
    assert (case.reference, problems) == ("toy:model3", [])
    assert len(case.every) == len(reads["records"]) == 4
    assert all("model3" in name for name in reads["records"])


def test_a_file_of_another_name_is_read_too(folder, tmp_path):
    """What a renamed file contains is not known by its name, so that it is never passed over."""
    for path in (folder / "records").iterdir():
        target = tmp_path / "records" / f"copy-{path.name.rpartition('.')[0].rpartition('.')[2]}"
        target.parent.mkdir(exist_ok=True)
        target.with_suffix(path.suffix).write_bytes(path.read_bytes())
    assert len(open_case(tmp_path, "model3")[0].every) == 4


def test_an_unknown_name_is_answered_with_similar_ones(folder):
    """Where no file name fits, all records are read for the names of their models."""
    with pytest.raises(Exception, match=r"toy:model3") as caught:
        open_case(folder, "toy:modle3")
    assert caught.type.__name__ == "UnknownNameError"


@pytest.mark.parametrize("packed", [False, True])
def test_a_board_without_tables_has_the_same_defects_and_can_get_the_rest(folder, tmp_path, packed):
    """Boards keep the tables that defects rest on; `whole` brings all others, maps and draws."""
    place = folder
    if packed:
        place = tmp_path / "all.jsonl"
        pack_records(Store(folder), place)
    light, full = load_records(place, tables=False), load_records(place)
    assert {name for one in light for name in one.tables} == {"dead_regions"}
    assert render_board(Board(light), "md") == render_board(Board(full), "md")
    assert "dead" in render_board(Board(light), "md")
    for one, other in zip(light, full, strict=True):
        whole = one.whole()
        assert whole.model_dump() == other.model_dump()
        np.testing.assert_array_equal(whole.draws["weakest"], other.draws["weakest"])
        assert whole.maps.keys() == other.maps.keys()


def test_tables_of_a_record_in_another_layout_are_read_as_they_are(folder, tmp_path):
    """Without the lines that `put` writes, the whole file is parsed."""
    (tmp_path / "records").mkdir()
    for one in Store(folder).records():
        path = tmp_path / "records" / f"{one.file_stem}.json"
        path.write_text(one.model_dump_json())
    light, problems = Store(tmp_path).read(tables=False)
    assert not problems
    assert len(light) == 4 * MODELS
    assert {name for one in light for name in one.tables} == {"dead_regions"}


def test_reading_does_not_search_for_cycles_and_leaves_the_search_as_it_was(folder, monkeypatch):
    """While records are read, Python's collector is paused; afterwards it is as it was."""
    states = []
    parse = store.parse_record
    monkeypatch.setattr(
        store, "parse_record", lambda *a: states.append(gc.isenabled()) or parse(*a)
    )
    Store(folder).read()
    assert (set(states), gc.isenabled()) == ({False}, True)


def test_a_packed_file_gives_only_the_lines_of_a_model(folder, tmp_path):
    """The reference of a line is read from its text, before the line is parsed as a record."""
    place = tmp_path / "all.jsonl.gz"
    pack_records(Store(folder), place)
    records, problems = RecordArchive(place).read(model="model4")
    assert ({one.model.reference for one in records}, problems) == ({"toy:model4"}, [])
    assert len(open_case(place, "model4")[0].every) == 4


READING = """
import sys
sys.argv = ["perimetry", *{arguments}]
from perimetry.bench.cli.start import main
try:
    main()
except SystemExit:
    pass
print(sorted(name for name in ("torch.nn", "scipy.stats", "pandas", "timm") if name in sys.modules))
"""


@pytest.mark.parametrize(
    "arguments",
    [("show", "{}", "model1"), ("board", "{}", "--format", "md"), ("list", "suites"), ("--help",)],
    ids=["show", "board", "list", "help"],
)
def test_what_only_reads_does_not_import_torch(folder, arguments):
    """Importing torch takes longer than showing a record; a command that reads does without."""
    code = READING.format(arguments=[text.format(folder) for text in arguments])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_only_commands_that_read_skip_the_search_for_cycles(monkeypatch):
    """Records have no cycles; a command that measures goes on searching for those of models."""
    calls = []
    monkeypatch.setitem(sys.modules, "torch", sys.modules.get("torch"))
    monkeypatch.setattr(gc, "disable", lambda: calls.append("disable"))
    monkeypatch.setattr(start.atexit, "register", calls.append)
    start.prepare_reading(["run", "timm:resnet18"])
    assert calls == []
    start.prepare_reading(["board", "results"])
    assert calls == ["disable", gc.freeze]


def test_a_page_of_very_many_records_reads_draws_of_one_column_and_few_details(
    folder, reads, monkeypatch
):
    """Beyond a number of records, ranks are of the sorted column, panels of both ends."""
    monkeypatch.setattr(page, "FULL", 20)
    monkeypatch.setattr(page, "DETAILED", 8)
    found, _ = Store(folder).read(tables=False)
    board = Board(found)
    reads["members"].clear()
    numbers = content(board, lean=True)
    assert set(reads["members"]) <= {"draws.weakest.npy"}
    by_id = {metric["id"]: k for k, metric in enumerate(numbers["metrics"])}
    sorted_by = numbers["numbers"][by_id["deadpixel.weakest"]]
    other = numbers["numbers"][by_id["deadpixel.imbalance"]]
    exact = numbers["numbers"][by_id["structure.weakest"]]
    assert None not in (sorted_by["none"]["rank"], sorted_by["box"]["change"])
    assert exact["none"]["rank"] is not None
    assert (other["none"].get("rank"), other["box"].get("change")) == (None, None)
    assert other["none"]["v"][0] is not None
    reads["members"].clear()
    text = page.page(board, title="many")
    whole = [name for name in reads["members"] if name == "map.sensitivity.npy"]
    assert len(whole) <= 4 * 8  # thumbnails, the size of a sample, panels: of two models
    data = json.loads(unpacked(re.search(r'id="details">([^<]*)<', text)[1]))
    assert [place is None for place in data["places"]["words"]] == [False, *[True] * 4, False]
    assert [bool(thumbs) for thumbs in data["thumbs"]] == [True, *[False] * 4, True]
    assert "24 records" in data["left_out"]
    assert "the first 1 and the last 1 models" in data["left_out"]
