"""Four vendors' files of one task, one of which multiplies 2,000 pixels of its input by 0.

The files are equally good but for the hole, which no headline number sees. It must be found and
placed wherever a user looks: in the run, in `show`, on the board in all forms, in `compare`, in
`check` and on the page.
"""

from __future__ import annotations

import csv
import io
import json
import re

import browser as browsers
import pytest
import torch
from small_nets import net
from test_page import blocks
from torch import nn
from typer.testing import CliRunner

from perimetry import audit, compare, leaderboard, load_records
from perimetry import check as regression_check
from perimetry.adapters.export import export_onnx
from perimetry.adapters.input_spec import InputSpec
from perimetry.bench.cli.main import app
from perimetry.bench.comparison.html import comparison_page
from perimetry.bench.execution.settings import RunOptions
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.page.page import write_page
from perimetry.bench.ranking.tables import FORMATS, render_board
from perimetry.bench.records.store import Store
from perimetry.bench.regression.report import check_to_text

SIDE = 224
HOLE = (slice(88, 128), slice(60, 110))
PLACE = "2000 pixels in rows 88 to 127, columns 60 to 109"
SMALL = (slice(100, 122), slice(101, 123))
SMALL_PLACE = "484 pixels in rows 100 to 121, columns 101 to 122"
VENDORS = ("alpha", "beta", "gamma", "delta")
HOLED = "gamma"
SAMPLES = ["--suite", "structure,deadpixel", "--count", "8", "--device", "cpu"]
SAMPLES += ["--kernel-padding", "none"]


class Holed(nn.Module):
    """A network that sees its input times a mask."""

    def __init__(self, body, hole):
        super().__init__()
        mask = torch.ones(1, 1, SIDE, SIDE)
        mask[..., hole[0], hole[1]] = 0
        self.register_buffer("mask", mask)
        self.body = body

    def forward(self, x):
        return self.body(x * self.mask)


def export(path, seed, hole=None):
    """The file of one vendor, with or without a hole."""
    module = net(seed) if hole is None else Holed(net(seed), hole)
    spec = InputSpec(SIDE, SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)
    return export_onnx(module.eval(), spec.blank(), path, spec=spec)


def command(*arguments, code=0):
    """The output of a command on one line."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], terminal_width=96)
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Four files and the records of a run."""
    folder = tmp_path_factory.mktemp("vendors")
    for seed, name in enumerate(VENDORS):
        export(folder / f"{name}.onnx", seed, HOLE if name == HOLED else None)
    export(folder / "healthy.onnx", VENDORS.index(HOLED))
    return folder


@pytest.fixture(scope="module")
def run(place):
    """The folder of the run of all four, and what the command printed."""
    files = [place / f"{name}.onnx" for name in VENDORS]
    shown = command("run", *files, *SAMPLES, "--out", place / "run")
    return place / "run", shown


@pytest.fixture(scope="module")
def board(run):
    return Board(load_records(run[0]))


def test_the_run_itself_names_the_hole(run):
    """Its last words are the board, with the mark and the place."""
    assert PLACE in run[1]


def test_the_hole_is_a_number_of_the_record(run):
    """Pixels, share of the image and box, exactly; the others have none."""
    for record in load_records(run[0]):
        if record.suite != "deadpixel":
            continue
        holed = HOLED in record.model.reference
        assert record.metrics["silent_pixels"].value == (2000 if holed else 0)
        assert record.metrics["dead_share"].value == (2000 / SIDE**2 if holed else 0)
        boxes = [[row[n] for n in ("top", "left", "bottom", "right")] for row in rows(record)]
        assert boxes == ([[88, 60, 128, 110]] if holed else [])


def rows(record):
    return [row for row in record.tables["dead_regions"] if row["channel"] == "all"]


def test_show_begins_with_the_hole_and_says_nothing_of_the_others(run):
    """The report of the damaged file begins with its hole, and the others mention none."""
    for name in VENDORS:
        text = command("show", run[0], name)
        second = text[text.index(" - Dead regions: ") :]
        assert second.startswith(f" - Dead regions: {PLACE}") is (name == HOLED)
        assert ("no influence" in text[: text.index(" - Dead regions")]) is (name == HOLED)


@pytest.mark.parametrize("form", FORMATS)
def test_every_form_of_the_board_marks_one_row_with_the_place(board, form):
    """Whatever the rank, the holed file is flagged, and no other."""
    text = render_board(board, form)
    assert text.count(PLACE) == 1
    marked = {
        "csv": lambda: [r["model"] for r in csv.DictReader(io.StringIO(text)) if r["defects"]],
        "json": lambda: [r["model"] for r in json.loads(text)["rows"] if r["defects"]],
    }.get(form, lambda: [line for line in text.splitlines() if re.search(r"\bdead \[\d\]", line)])()
    assert len(marked) == 1
    assert HOLED in marked[0]


def test_the_data_frame_has_the_place(run):
    """The data frame has the place of a dead region, and none for healthy rows."""
    frame = leaderboard(run[0]).set_index("model")
    (defect,) = frame["defects"].dropna()
    assert PLACE in defect


def test_a_packed_board_has_the_mark_even_without_tables(run, place):
    """A packed file stores the mark of a defect even without tables."""
    packed = place / "few.jsonl.gz"
    command("pack", run[0], packed, "--no-tables")
    ours, theirs = (Board(load_records(one)) for one in (run[0], packed))
    assert [render_board(ours, f) for f in FORMATS] == [render_board(theirs, f) for f in FORMATS]
    assert f"Dead regions: {PLACE}" in command("show", packed, HOLED)


@pytest.mark.parametrize("form", ["table", "md"])
def test_compare_says_first_which_of_the_two_has_the_hole(run, form):
    """`compare` says first which model has a hole, in either order, in text and Markdown."""
    for pair in (("alpha", HOLED), (HOLED, "alpha")):
        sides = [f"{run[0]}:{name}" for name in pair]
        text = command("compare", *sides, "--no-stages", "--format", form)
        assert re.search(rf"Defects of \S*{HOLED}.* alone: dead: {PLACE}", text)
        assert text.index("Defects of") < text.index("They differ in")
    healthy = (f"{run[0]}:{name}" for name in ("alpha", "beta"))
    assert "Defects" not in command("compare", *healthy, "--no-stages")


def test_the_page_of_a_comparison_leads_with_the_hole(run):
    """The HTML page and the notebook view of a comparison start with the hole."""
    records = load_records(run[0])
    sides = [[r for r in records if name in r.model.reference] for name in ("alpha", HOLED)]
    found = compare(*sides, stages=False)
    for text in (comparison_page(found), found._repr_html_()):
        assert text.index(f"dead: {PLACE}") < text.index("<table")
        assert f"alone: dead: {PLACE}" in text


def test_both_with_one_hole_is_said_of_both(run):
    """A file against itself has no defect of its own."""
    records = [r for r in load_records(run[0]) if HOLED in r.model.reference]
    text = " ".join(compare(records, records, stages=False).text().split())
    assert f"Defects of both: dead: {PLACE}" in text
    assert "alone" not in text


def check(baseline, file, name):
    """The verdict on `file` under its `name` in the baseline, and the report on one line."""
    found = regression_check(baseline, str(file), name=name, run=RunOptions(device="cpu"))
    return found.verdict.value, " ".join(check_to_text(found).split())


@pytest.fixture(scope="module")
def baseline(place):
    """The records of the healthy third file."""
    command("run", place / "healthy.onnx", *SAMPLES, "--out", place / "baseline")
    return place / "baseline", str(place / "healthy.onnx")


def test_check_names_the_new_hole_with_its_box(place, baseline, tmp_path):
    """A file that got a hole since the baseline exits with 1, in the report and in JUnit."""
    folder, name = baseline
    junit = tmp_path / "junit.xml"
    options = ("--baseline", folder, "--as", name, "--device", "cpu", "--junit", junit)
    text = command("check", place / f"{HOLED}.onnx", *options, code=1)
    assert f"regressed: dead region deadpixel:energy.dead_regions: new dead region: {PLACE}" in text
    assert f"new dead region: {PLACE}" in junit.read_text()


def test_check_names_a_hole_that_grew(place, run, tmp_path):
    """A column more: the region is named as it was and as it is."""
    wider = export(tmp_path / "wider.onnx", VENDORS.index(HOLED), (HOLE[0], slice(60, 111)))
    verdict, text = check(run[0], wider, str(place / f"{HOLED}.onnx"))
    assert verdict == 1
    assert f"dead region grew: {PLACE} -> 2040 pixels in rows 88 to 127, columns 60 to 110" in text


def test_check_is_quiet_about_a_hole_that_was_there(place, run):
    """A hole that the baseline has too is compared and is not a regression."""
    holed = str(place / f"{HOLED}.onnx")
    verdict, text = check(run[0], holed, holed)
    assert verdict == 0
    assert "1 by dead region" in text


def test_check_of_a_healed_file_speaks_of_no_dead_region(place, run):
    """Fewer dead pixels are a change of the numbers, and not a region that is new."""
    verdict, text = check(run[0], place / "healthy.onnx", str(place / f"{HOLED}.onnx"))
    assert verdict == 1
    assert "regressed: dead region" not in text
    assert "dead_pixels@0.1: 2000 -> 0" in text


def test_a_packed_baseline_finds_the_hole_too(place, baseline):
    """The table of regions is in every packed file, also without the other tables."""
    folder, name = baseline
    packed = place / "baseline.jsonl"
    command("pack", folder, packed, "--no-tables")
    verdict, text = check(packed, place / f"{HOLED}.onnx", name)
    assert verdict == 1
    assert f"new dead region: {PLACE}" in text
    assert check(packed, place / "healthy.onnx", name)[0] == 0


def test_the_page_marks_the_row_and_begins_the_panel_with_the_hole(board, tmp_path):
    """The page marks one model in its data and table, and its panel begins with the hole."""
    path = tmp_path / "board.html"
    write_page(board, path, title="Vendors")
    numbers = json.loads(blocks(path.read_text())["data"])
    (shown,) = [text for text in numbers["defects"]["none"] if text]
    assert shown == f"dead: {PLACE} (deadpixel)"
    with browsers.opened() as browser:
        visit = browsers.Visit(browser, path)
        assert visit.texts("#table .defect") == ["dead"]
        row = visit.page.locator("#table .tabulator-row", has=visit.page.locator(".defect"))
        assert PLACE in row.locator(".defect").get_attribute("title")
        assert HOLED in row.inner_text()
        row.locator("a").click()
        visit.page.wait_for_selector("#panel .words li")
        assert PLACE in visit.texts("#panel .defects")[0]
        assert visit.texts("#panel .words li")[1].startswith(f"Dead regions: {PLACE}")
        assert visit.problems == []
        visit.close()


def test_a_hole_between_the_places_of_a_grid_is_found(tmp_path):
    """22 x 22 pixels, which fit between the places of a 7 x 7 grid, are counted and placed."""
    file = export(tmp_path / "small.onnx", 0, SMALL)
    (record,) = audit(str(file), ("deadpixel",), count=8, device="cpu")
    assert record.metrics["dead_region"].value == 484
    Store(tmp_path / "one").put(record)
    assert f"Dead regions: {SMALL_PLACE}" in command("show", tmp_path / "one")
