"""`perimetry board --html`: what it writes, and what it says of folders that are not right."""

from __future__ import annotations

import json

import planted_boards as planted
import pytest
from test_page import RESULTS, blocks, write_csv
from typer.testing import CliRunner

from perimetry.bench.cli.main import app
from perimetry.bench.records.archive import pack_records
from perimetry.bench.records.store import Store


def board(*words):
    """The command's exit code and everything it printed, on one line."""
    result = CliRunner().invoke(app, ["board", *map(str, words)])
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def folder(tmp_path):
    store = Store(tmp_path / "set")
    for one in [*planted.pair("timm:a@init", 0.4, 0.9), *planted.pair("b.onnx", 0.7, 1.0)]:
        store.put(one)
    return store.root


def names(path):
    """The models in a written page."""
    return json.loads(blocks(path.read_text())["data"])["models"]["reference"]


def test_the_command_writes_the_page_and_says_how_large_it_is(folder, tmp_path):
    """The page has the folder's models in rank order; nothing but one line is printed."""
    out = tmp_path / "board.html"
    code, shown = board(folder, "--html", out)
    megabytes = f"{out.stat().st_size / 1e6:.1f}"
    assert (code, shown) == (0, f"Written: {out}, 2 models, {megabytes} MB")
    assert names(out) == ["b.onnx", "timm:a@init"]
    assert "<title>set" in out.read_text()


def test_a_packed_file_makes_a_page_too(folder, tmp_path):
    """A packed file gives a page of its models with the title that was given."""
    pack_records(Store(folder), tmp_path / "set.jsonl.gz")
    out = tmp_path / "board.html"
    assert board(tmp_path / "set.jsonl.gz", "--html", out, "--title", "A < B")[0] == 0
    assert names(out) == ["b.onnx", "timm:a@init"]
    assert "<h1>A &lt; B</h1>" in out.read_text()


def test_accuracy_is_joined_from_a_table(folder, tmp_path):
    """`--join` adds the table's numbers; without a page there is nothing to join to."""
    table = write_csv(tmp_path / "results.csv", RESULTS)
    out = tmp_path / "board.html"
    assert board(folder, "--html", out, "--join", table)[0] == 0
    data = json.loads(blocks(out.read_text())["data"])
    assert data["joined"]["columns"]["top1"] == [60.0, 71.5]
    code, shown = board(folder, "--join", table)
    assert code == 1
    assert "--html" in shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--title", "a"], "--title was given without --html; expected --html OUT too"),
        (["--megabytes", "4"], "--megabytes was given without --html"),
        (["--html", "p.html", "--format", "csv"], "were given; expected one of the two"),
    ],
)
def test_options_of_a_page_and_of_a_table_do_not_mix(folder, options, said):
    """An option that would be ignored is an error that names the one that is missing."""
    code, shown = board(folder, *options)
    assert (code, said in " ".join(shown.split())) == (1, True)


def test_an_empty_folder_says_what_was_expected(tmp_path):
    """A folder without records, and an empty store, are refused with what was expected."""
    code, shown = board(tmp_path, "--html", tmp_path / "x.html")
    assert (code, "contains no records; expected a folder" in shown) == (1, True)
    Store(tmp_path)
    code, shown = board(tmp_path, "--html", tmp_path / "x.html")
    assert (code, "contains no record to show" in shown) == (1, True)
    assert not (tmp_path / "x.html").exists()


def test_a_corrupt_record_is_told_and_the_others_are_shown(folder, tmp_path):
    """The broken file is named; the page has the other models."""
    broken = next((folder / "records").glob("b-onnx.none*.json"))
    broken.write_text("{not json")
    out = tmp_path / "board.html"
    code, shown = board(folder, "--html", out)
    assert code == 0
    assert broken.name in shown
    assert set(names(out)) == {"timm:a@init", "b.onnx"}


def test_mixed_protocol_versions_are_refused(folder, tmp_path):
    """Numbers of unlike versions never meet in one column; the message says how to choose."""
    Store(folder).put(planted.record("old", 0.5, version="0"))
    code, shown = board(folder, "--html", tmp_path / "x.html")
    assert code == 1
    assert "--where" in shown
    assert board(folder, "--html", tmp_path / "x.html", "--where", "version=0")[0] == 0
    assert names(tmp_path / "x.html") == ["old"]


def test_a_page_that_cannot_be_written_is_one_line(folder, tmp_path):
    """A missing folder is an error with its reason, not a traceback."""
    code, shown = board(folder, "--html", tmp_path / "absent" / "x.html")
    assert code == 1
    assert "No such file" in shown
