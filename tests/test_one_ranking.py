"""One ranking in every form: table, Markdown, LaTeX, CSV, JSON, frame, page; folder or pack."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import browser as browsers
import planted_boards as planted
import pytest
from small_nets import baseline
from test_page import page_data
from typer.testing import CliRunner

from perimetry import load_records
from perimetry.adapters.errors import UnknownNameError
from perimetry.bench.cli.main import app
from perimetry.bench.ranking.board import RANKINGS, Board
from perimetry.bench.ranking.page.page import write_page
from perimetry.bench.ranking.tables import FORMATS, render_board
from perimetry.bench.ranking.view import View, board_frame, shown_groups
from perimetry.bench.records.parts import Value
from perimetry.bench.records.store import Store

VALUES = {"a": (0.30, 0.90), "b": (0.50, 0.505), "c": (0.502, None), "d": (None, 0.95)}
RANKS = {
    "models": {("a", "none"): "3", ("b", "none"): "1 to 2", ("c", "none"): "1 to 2"},
    "variants": {
        ("d", "box"): "1",
        ("a", "box"): "2",
        ("b", "none"): "3 to 5",
        ("b", "box"): "3 to 5",
        ("c", "none"): "3 to 5",
        ("a", "none"): "6",
    },
}
"""Half widths are 0.01: values 0.005 apart share a rank, values 0.05 apart do not."""
ORDER = {
    "models": ["b none", "b box", "c none", "a none", "a box", "d none", "d box"],
    "variants": ["d box", "a box", "b none", "b box", "c none", "a none", "d none"],
}


def records():
    """Four models, of which c has no padded variant and d no value as it is."""
    made = []
    for name, values in VALUES.items():
        for fill, value in zip(("none", "box"), values, strict=True):
            lost = {"weakest": Value(value=None, reason="no phases")}
            if value is not None:
                made.append(planted.record(name, value, half=0.01, fill=fill))
            elif name == "d":
                made.append(planted.record(name, 0.5, fill=fill, metrics=lost))
    return made


@pytest.mark.parametrize("worst_first", [False, True])
def test_models_are_in_order_of_the_ranks_that_are_shown(worst_first):
    """Among ranks of variants too, those of models as they are give the order: a comes last."""
    view = View(rows="models", worst_first=worst_first)
    groups = shown_groups(board("variants"), view)
    names = [rows[0].model for rows in groups]
    assert names == (["a", "b", "c", "d"] if worst_first else ["b", "c", "a", "d"])
    best = shown_groups(board("variants"), replace(view, top=2))
    assert [rows[0].model for rows in best] == names[:2]
    frame = board_frame(board("variants"), view)
    assert list(frame["model"]) == names


def test_rows_of_one_rank_are_in_order_of_the_names_that_are_shown():
    """Not of the folders of files, which are not shown."""
    made = [planted.record(name, 0.5) for name in ("/z/a.onnx", "/a/b.onnx", "timm:aa", "toy:c")]
    one = planted.board(made)
    names = [one.names[row.model] for row in one.rows]
    assert names == ["a.onnx", "aa", "b.onnx", "toy:c"]
    assert page_data(one)["models"]["name"] == names


def test_the_caption_is_about_the_rows_that_are_shown():
    """Counts of rows, images and inputs leave out those that are cut off."""
    made = [planted.record("a", 0.9), planted.record("b", 0.5)]
    size = {"height": 48, "width": 48}
    spec = made[1].model.spec | size
    made[1] = made[1].model_copy(update={"model": made[1].model.model_copy(update={"spec": spec})})
    every = render_board(planted.board(made), "table")
    first = render_board(planted.board(made), "table", view=View(top=1))
    assert "Fed differently" in every
    assert "Fed differently" not in first
    assert "of 2 rows" not in first


def board(rank):
    return planted.board(records(), rank=rank)


def in_table(text):
    return {tuple(line.split()[:2]): " ".join(line.split()[2:]) for line in text.splitlines()}


def in_pipes(text, separator):
    """Model, padding and rank of the lines of a table with separators."""
    rows = (line.strip().strip("|").split(separator) for line in text.splitlines())
    rows = ([cell.strip(" `") for cell in row] for row in rows if len(row) > 3)
    return {(row[0], row[1]): row[2] for row in rows}


def in_cells(rows):
    found = {}
    for row in rows:
        low, high = row["rank"], row["rank.high"]
        if low not in (None, ""):
            found[row["model"], row["fill"]] = f"{low}" if low == high else f"{low} to {high}"
    return found


def on_page(one):
    """Ranks by model and padding, as the page's data have them."""
    data = page_data(one)
    numbers = data["numbers"][[m["id"] for m in data["metrics"]].index(one.sort)]
    return {
        (model, fill): f"{low}" if low == high else f"{low} to {high}"
        for fill in data["fills"]
        for model, low, high in zip(
            data["models"]["name"],
            numbers[fill]["rank"] or [None] * len(data["models"]["name"]),
            numbers[fill]["rank_high"] or [None] * len(data["models"]["name"]),
            strict=True,
        )
        if low is not None
    }


@pytest.mark.parametrize("rank", RANKINGS)
def test_every_form_has_the_same_ranks(rank):
    """The ranks by hand, for models as they are and for every variant, in seven forms."""
    one, expected = board(rank), RANKS[rank]
    texts = {form: render_board(one, form) for form in FORMATS}
    frame = board_frame(one).astype(object)
    found = {
        "csv": in_cells(csv.DictReader(io.StringIO(texts["csv"]))),
        "json": in_cells(json.loads(texts["json"])["rows"]),
        "md": in_pipes(texts["md"], "|"),
        "tex": in_pipes(texts["tex"], "&"),
        "frame": in_cells(frame.where(frame.notna(), None).to_dict("records")),
        "page": on_page(one),
    }
    for form, ranks in found.items():
        assert {k: v for k, v in ranks.items() if v and k in ranks_of_rows()} == expected, form
    table = in_table(texts["table"])
    assert all(table[key].startswith(f"{text} ") for key, text in expected.items())


def ranks_of_rows():
    return {(r.model.reference, r.fill) for r in records()}


@pytest.mark.parametrize("rank", RANKINGS)
def test_rows_of_every_form_are_in_the_order_of_their_ranks(rank):
    """Ties by name; a model's padded row follows it, or has a place of its own."""
    one = board(rank)
    assert [f"{row.model} {row.fill}" for row in one.rows] == ORDER[rank]
    for form in FORMATS:
        text = render_board(one, form)
        cells = re.findall(r'^[ |`]*"?([abcd])"?`?[ |&,]+(none|box)\b', text, re.M)
        if form == "json":
            cells = [(row["model"], row["fill"]) for row in json.loads(text)["rows"]]
        assert [" ".join(pair) for pair in cells] == ORDER[rank], form


def test_models_as_they_are_is_the_default_and_unknown_rankings_are_told():
    """The choice is in JSON and in the page's data."""
    assert planted.board(records()).rank == "models"
    for rank in RANKINGS:
        assert json.loads(render_board(board(rank), "json"))["ranked"] == rank
        assert page_data(board(rank))["ranked"] == rank
    with pytest.raises(UnknownNameError):
        board("model")


def test_models_measured_with_padding_alone_are_ranked_by_it():
    """Without untreated rows the first kernel padding is ranked."""
    made = [planted.record(name, v, fill="box") for name, v in (("a", 0.3), ("b", 0.9))]
    assert [(row.model, str(row.rank)) for row in planted.board(made).rows] == [
        ("b", "1"),
        ("a", "2"),
    ]


@pytest.mark.parametrize("rank", RANKINGS)
def test_a_reader_of_the_page_sees_these_ranks(rank, tmp_path):
    """The column of ranks, and the rank beside a padded value where variants are ranked."""
    path = tmp_path / "board.html"
    write_page(board(rank), path, title="Ranks")
    with browsers.opened() as browser:
        visit = browsers.Visit(browser, path)
        shown = dict(zip(visit.texts("#table .model a"), visit.texts(".rank"), strict=True))
        expected = {m: text for (m, fill), text in RANKS[rank].items() if fill == "none"}
        expected["d"] = "\N{EN DASH}"
        assert shown == {m: text.replace(" to ", "\N{EN DASH}") for m, text in expected.items()}
        beside = [text for text in visit.texts("#table .value small") if "rank" in text]
        boxes = [text for (_, fill), text in RANKS[rank].items() if fill == "box"]
        assert sorted(text.strip() for text in beside) == sorted(
            f"rank {text.replace(' to ', chr(0x2013))}" for text in boxes
        )
        visit.close()


# ------------------------------------------------------------------ folders and packs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two networks in two variants, measured on images, and their packed file."""
    place = baseline(tmp_path_factory.mktemp("set"), fills=("none", "box"))
    store = Store(place)
    for record in store.records():
        model = record.model.model_copy(update={"reference": "second"})
        draws = {name: draws * 1.01 for name, draws in record.draws.items()}
        variant = record.model_copy(update={"model": model, "key": record.key[::-1]})
        store.put(variant.attach((dict(record.maps), draws)))
    command("pack", place, place / "set.jsonl.gz")
    command("pack", place, place / "few.jsonl", "--no-tables")
    return place


def command(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments], terminal_width=96)
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.parametrize("packed", ["set.jsonl.gz", "few.jsonl"])
@pytest.mark.parametrize("rank", RANKINGS)
def test_a_packed_board_is_the_folders_to_the_digit(folder, packed, rank):
    """All five forms and the page's numbers are the same from the packed file."""
    ours, theirs = (Board(load_records(p), rank=rank) for p in (folder, folder / packed))
    for form in FORMATS:
        assert render_board(ours, form) == render_board(theirs, form), form
    for name in ("numbers", "models", "fills", "reasons", "defects", "caption"):
        assert page_data(ours)[name] == page_data(theirs)[name], name


@pytest.mark.parametrize("form", FORMATS)
def test_the_command_prints_the_same_of_both(folder, form):
    """`perimetry board` prints the same of a folder and its packed file, by either ranking."""
    for rank in RANKINGS:
        options = ("--format", form, "--rank", rank)
        ours = command("board", folder, *options)
        assert ours == command("board", folder / "set.jsonl.gz", *options)
    assert command("board", folder, "--format", form) == command(
        "board", folder, "--format", form, "--rank", "models"
    )


def test_show_says_of_a_pack_what_it_says_of_the_folder(folder):
    """Line by line, the place of the least sensitive phase included; causes from maps are not."""
    ours, theirs = (
        [line for line in sentences(command("show", p, "net")) if "Cause:" not in line]
        for p in (folder, folder / "set.jsonl.gz")
    )
    assert "The least sensitive phase is row 0, column 0 of every 8 x 8 pixels." in theirs
    assert ours == theirs
    assert len(theirs) > 100


def sentences(text):
    """Lines of a report, folded ones joined."""
    return re.sub(r"\n    (?=\S)(?!.*  )", " ", text).replace("  - ", "").splitlines()


def test_compare_finds_the_same_differences_in_a_pack(folder):
    """Paired by the draws in the packed file: equal numbers to the last digit."""
    options = ("--format", "json", "--no-stages", "--force")
    pairs = [(f"{p}:net", f"{p}:second") for p in (folder, folder / "set.jsonl.gz")]
    ours, theirs = (json.loads(command("compare", *pair, *options)) for pair in pairs)
    assert ours == theirs
    assert {row["method"] for row in ours["metrics"]} >= {"paired", "exact"}
