"""Rows and columns of a board by options: models or variants, conditions, formats, names."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from planted_report import model, record
from typer.testing import CliRunner

from perimetry import leaderboard
from perimetry.adapters.errors import IMPORTED, InputError, UnknownNameError
from perimetry.bench.cli.main import app
from perimetry.bench.output.numbers import column_texts, format_number
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.names import short_names
from perimetry.bench.ranking.page.numbers import content
from perimetry.bench.ranking.tables import FORMATS, cut_names, render_board
from perimetry.bench.ranking.view import Condition, View, shown_groups, split_where
from perimetry.bench.records.parts import Failure
from perimetry.bench.records.selection import choose
from perimetry.bench.records.store import Store

WEAKEST = {"a": 0.9, "b": 0.6, "c": 0.3}
IMBALANCE = {"a": 0.05, "b": 0.2, "c": 0.5}
SIZES = {"a": 1_000_000, "b": 20_000_000, "c": 4_000_000}


def planted(name, fill="none", raised=0.0, **changes):
    """A record of the dead pixels of `name`; `raised` is what padding adds to the weakest phase."""
    draws = np.random.default_rng(1).standard_normal(200)
    value = WEAKEST[name] + raised
    made = record(
        "deadpixel",
        {"weakest": (value, 0.02), "imbalance": (IMBALANCE[name] - raised / 10, 0.01)},
        fill=fill,
        count=64,
        model=model(f"timm:{name}", fill=fill).model_copy(
            update={"parameters": SIZES[name], "macs": 10 * SIZES[name], "family": f"fam_{name}"}
        ),
        draws={"weakest": value + 0.01 * draws, "imbalance": IMBALANCE[name] + 0.005 * draws},
        settings={"precision": "float32"},
        **changes,
    )
    return made.model_copy(update={"key": f"{name}{fill}{changes.get('status', '')}"})


RECORDS = [planted(n, f, r) for n in WEAKEST for f, r in (("none", 0.0), ("box", 0.05))]


def table(view=None, form="md", **options):
    """Heads and rows of the Markdown board."""
    text = render_board(Board(RECORDS, **options), form, view=view)
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    heads, _, *rows = [[cell.strip(" `") for cell in line] for line in lines]
    return heads, rows


def test_a_row_is_a_variant_or_a_model():
    """By variants each padding has a line; by models its numbers stand in columns beside."""
    heads, rows = table()
    assert heads == ["model", "padding", "rank", "weakest", "imbalance", "change of weakest"]
    assert [row[:2] for row in rows[:3]] == [["a", "none"], ["a", "box"], ["b", "none"]]
    heads, rows = table(View(rows="models"))
    assert heads == ["model", "rank", "weakest", "with box", "imbalance"]
    assert rows[0] == ["a", "1", "0.900 ±0.020", "0.950 ±0.020", "0.050 ±0.010"]
    assert len(rows) == 3


def test_the_change_belongs_to_the_sorted_column():
    """Sorted by imbalance, the difference is that of imbalance."""
    heads, rows = table(sort="deadpixel.imbalance")
    assert heads[-1] == "change of imbalance"
    assert [row[-1].split(" ")[0] for row in rows if row[1] == "box"] == ["-0.005"] * 3
    heads, _ = table(View(rows="models", columns=("change",)), sort="deadpixel.imbalance")
    assert heads == ["model", "change with box"]


def test_the_columns_asked_for_are_shown_in_their_order():
    """Sizes, facts, ranks and metrics by name; an unknown one is refused with near names."""
    view = View(columns=("model.parameters", "family", "deadpixel.imbalance", "rank"))
    heads, rows = table(view)
    assert heads == ["model", "padding", "parameters", "family", "imbalance", "rank"]
    assert rows[2][2:4] == ["20 M", "fam_b"]
    with pytest.raises(UnknownNameError, match=r"deadpixel\.weakest"):
        table(View(columns=("deadpixel.weekest",)))


def test_the_top_and_the_worst_keep_their_ranks():
    """Rows are cut off after ranking, whole models at a time."""
    _, rows = table(View(top=2))
    assert [(r[0], r[2]) for r in rows] == [("a", "1"), ("a", ""), ("b", "2"), ("b", "")]
    _, rows = table(View(top=1, worst_first=True))
    assert [(r[0], r[2]) for r in rows] == [("c", "3"), ("c", "")]


def test_of_one_rank_names_keep_their_order_from_the_last_rank_on(monkeypatch):
    """The samples do not tell two of three models apart, which share ranks 1 and 2."""
    monkeypatch.setitem(WEAKEST, "a", WEAKEST["b"])
    board = Board([planted(name) for name in WEAKEST])
    for worst_first, names in ((False, "abc"), (True, "cab")):
        groups = shown_groups(board, View(worst_first=worst_first))
        assert "".join(rows[0].model.split(":")[-1] for rows in groups) == names


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ("deadpixel.weakest<0.7", ["b", "c"]),
        ("deadpixel.weakest >= 0.6", ["a", "b"]),
        ("model.parameters<5M", ["a", "c"]),
        ("model.macs>1e8", ["b"]),
        ("family=fam_[ab]", ["a", "b"]),
        ("model=timm:a|timm:c", ["a", "c"]),
        ("precision=float32", ["a", "b", "c"]),
        ("input=64x64", ["a", "b", "c"]),
    ],
)
def test_rows_are_chosen_by_family_values_size_and_precision(where, wanted):
    """Conditions are on the model as it is, which keeps its variants; limits may have units."""
    facts, conditions = split_where([where])
    groups = shown_groups(Board(choose(RECORDS, facts)), View(where=tuple(conditions)))
    assert [rows[0].model.removeprefix("timm:") for rows in groups] == wanted
    assert all(len(rows) == 2 for rows in groups)
    frame = leaderboard(RECORDS, where=[where], rows="models")
    assert [name.removeprefix("timm:") for name in frame.model] == wanted


def test_a_condition_that_is_none_is_refused():
    """A limit that is not a number, or a column that does not exist."""
    with pytest.raises(InputError):
        split_where(["model.parameters<1.2.3"])
    with pytest.raises(UnknownNameError):
        shown_groups(Board(RECORDS), View(where=(Condition("deadpixel.nothing", "<", 1.0),)))


def test_intervals_stand_beside_every_estimate_or_none():
    """All estimates of the table have one, unless they are switched off."""
    _, rows = table(View(rows="models"))
    assert all("±" in cell for row in rows for cell in row[2:])
    _, rows = table(View(rows="models", intervals=False))
    assert rows[0] == ["a", "1", "0.900", "0.950", "0.050"]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([(0.5, 0.4, 0.6), (0.25, 0.2, 0.3)], ["0.500 ±0.100", "0.250 ±0.050"]),
        (
            [(0.5, 0.4, 0.6), (0.9, 0.5, 1.0)],
            ["0.500 (0.400 to 0.600)", "0.900 (0.500 to 1.000)"],
        ),
        ([(0.038, 0.0, 0.079)], ["0.038 (0.000 to 0.079)"]),
        (
            [(0.97, 0.93, 1.0), (0.5, 0.45, 0.55)],
            ["0.970 (0.930 to 1.000)", "0.500 (0.450 to 0.550)"],
        ),
        ([(120.0, 118.0, 122.0), (3.25, None, None)], ["120.0 ±2.0", "3.2"]),
        (
            [(0.0, None, None), (0.0002, None, None), (0.5, None, None)],
            ["0.000", "<0.001", "0.500"],
        ),
        ([(0.00002, None, None), (0.0004, None, None)], ["2.0e-05", "4.0e-04"]),
        ([(0.5, 0.4999, 0.5001), None], ["0.500 ±0.001", ""]),
        ([(-0.0002, None, None), (-0.5, None, None)], [">-0.001", "-0.500"]),
        ([(0.5, 0.5, 0.5)], ["0.500"]),
        ([], []),
    ],
)
def test_a_column_has_one_format(values, texts):
    """Decimals and the kind of interval are the column's; what rounds to 0 does not read as 0."""
    assert column_texts(values) == texts


class Counted(list):
    """Values that count how often they are gone through."""

    passes = 0

    def __iter__(self):
        self.passes += 1
        return super().__iter__()


def test_a_column_is_gone_through_a_few_times_however_long_it_is():
    """The format of a column is found once, and not for each of its rows."""
    values = Counted([(k / 100, k / 100 - 0.1, k / 100 + 0.1) for k in range(100)])
    assert len(column_texts(values)) == 100
    assert values.passes <= 4


def test_changes_have_signs():
    """A change is written with its sign; none at all is 0."""
    assert column_texts(
        [(0.5, None, None), (-0.1, None, None), (0.0, None, None)], signed=True
    ) == [
        "+0.500",
        "-0.100",
        "0.000",
    ]


@pytest.mark.parametrize(
    ("values", "signed", "texts"),
    [
        ([(25.0, None, None), (3.0, None, None), None], False, ["25", "3", ""]),
        ([(0.0, None, None), (1.0, 1.0, 1.0)], False, ["0", "1"]),
        ([(2.0, None, None), (-3.0, None, None), (0.0, None, None)], True, ["+2", "-3", "0"]),
        ([(25.0, None, None), (3.5, None, None)], False, ["25.0", "3.5"]),
        ([(25.0, 24.0, 26.0), (3.0, 2.0, 4.0)], False, ["25.0 ±1.0", "3.0 ±1.0"]),
    ],
)
def test_counts_have_no_decimals(values, signed, texts):
    """Whole numbers of things are written so; estimates of them have the decimals of numbers."""
    assert column_texts(values, signed=signed, counts=True) == texts


def test_a_board_of_counts_writes_them_as_such():
    """The number of uneven layers in the table, and in the data of the page."""
    board = Board(
        [
            record("structure", {"weakest": 0.5, "uneven_layers": count}, model=model(name))
            for name, count in (("a.onnx", 25.0), ("b.onnx", 3.0))
        ],
        sort="structure.uneven_layers",
    )
    shown = render_board(board, "md")
    assert {"25", "3"} <= {cell.strip() for cell in shown.split("|")}
    flags = {metric["id"]: metric["counts"] for metric in content(board)["metrics"]}
    assert flags["structure.uneven_layers"]
    assert not flags["structure.weakest"]


def test_names_are_never_cut_where_they_differ():
    """Long names lose their middle as far as they stay apart; files of one name keep folders."""
    long = [f"vit_large_patch{k}_reg4_dinov2.{'x' * 30}_in1k" for k in ("14", "16")]
    cut = cut_names([*long, "short"])
    assert len(set(cut)) == 3
    assert cut[2] == "short"
    assert all(len(name) < len(full) for name, full in zip(cut, long, strict=False))
    assert len(cut_names(["y" * 80])[0]) == 32
    assert short_names(["/a/m.onnx", "/b/m.onnx"]) == ["/a/m.onnx", "/b/m.onnx"]


def test_an_unknown_metric_is_met_with_the_nearest_and_where_all_are_listed():
    """Where none is near, the nearest one of the same suite is named."""
    nearest = r"of which deadpixel\.\S+ is nearest; `perimetry list metrics` lists"
    with pytest.raises(UnknownNameError, match=nearest):
        Board(RECORDS, sort="deadpixel.qqqqqqqqqqqqqqqq")
    with pytest.raises(UnknownNameError, match=r"unknown column 'q'.* `perimetry list metrics`"):
        shown_groups(Board(RECORDS), View(columns=("q",)))


@pytest.mark.parametrize("value", [4.9e-32, -1.2e-32, 0.0])
def test_rounding_of_zero_is_printed_as_zero(value):
    """The variance of equal numbers is about 1e-32."""
    assert format_number(value) == "0"
    assert column_texts([(value, None, None)]) == ["0.000"]
    assert format_number(1e-20) == "1.00e-20"


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "csv"])
def test_a_failed_or_skipped_row_says_why_in_every_form(form):
    """The reason is printed, in LaTeX as text and not as a comment."""
    failure = Failure(kind="exception", message="boom_1")
    failed = planted("b", status="failed", error=failure).model_copy(update={"metrics": {}})
    skipped = planted("c", status="skipped", reason="no 100 % map")
    skipped = skipped.model_copy(update={"metrics": {}})
    text = render_board(Board([RECORDS[0], failed, skipped]), form)
    if form == "tex":
        text = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
        text = text.replace("\\_", "_").replace("\\%", "%")
    assert "boom_1" in text
    assert "no 100 % map" in text
    marks = re.findall(r"(?:failed|n/a) (\[\d\])", text)
    assert form == "json" or (all(text.count(mark) >= 2 for mark in marks) and len(marks) == 4)


def test_the_command_and_python_show_the_same(tmp_path):
    """The options of `perimetry board` and the arguments of `leaderboard` choose alike."""
    for one in RECORDS:
        Store(tmp_path).put(one)
    words = ["board", str(tmp_path), "--rows", "models", "--top", "2", "--format", "json"]
    words += ["--columns", "deadpixel.weakest,model.macs", "--where", "model.parameters<10M"]
    done = CliRunner().invoke(app, [*words, "--worst-first"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    frame = leaderboard(
        tmp_path,
        rows="models",
        top=2,
        worst_first=True,
        columns=("deadpixel.weakest", "model.macs"),
        where=["model.parameters<10M"],
    )
    assert [row["model"] for row in rows] == list(frame.model) == ["timm:c", "timm:a"]
    assert [row["deadpixel.weakest[box]"] for row in rows] == list(frame["deadpixel.weakest[box]"])
    assert set(frame.columns) == set(rows[0])
    assert "deadpixel.imbalance" not in frame


def test_numbers_stand_alone_where_no_intervals_are_asked_for():
    """Neither frames nor captions have ends of intervals then; the ends of a rank stay."""
    ends = [name for name in leaderboard(RECORDS).columns if name.endswith((".low", ".high"))]
    assert len(ends) > 4
    kept = list(leaderboard(RECORDS, intervals=False).columns)
    assert [name for name in kept if name.endswith((".low", ".high"))] == ["rank.high"]
    board = Board(RECORDS)
    for form in FORMATS:
        assert "±" not in render_board(board, form, view=View(intervals=False))
    assert "±" in render_board(board, "md")


@pytest.mark.parametrize("page", [False, True])
def test_a_board_without_a_model_is_refused_with_the_limits(tmp_path, page):
    """An empty table, or a page without rows, would pass for a result."""
    for one in RECORDS:
        Store(tmp_path / "run").put(one)
    words = ["board", str(tmp_path / "run"), "--where", "deadpixel.weakest<0"]
    words += ["--html", str(tmp_path / "page.html")] if page else []
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 1
    assert "no model of" in found.output
    assert "meets --where 'deadpixel.weakest<0'" in found.output
    assert not (tmp_path / "page.html").exists()


def test_a_note_that_models_share_is_told_once():
    """Nineteen imported models are one line, not nineteen; up to three are named."""
    models = [
        record(
            "erf",
            {"luo_size": 9.0},
            model=model(name),
            notes=[f"{IMPORTED}paper {1 + (name > 'd')}"],
        ).model_copy(update={"key": name})
        for name in "abcdef"
    ]
    for form in ("md", "table", "tex"):
        text = render_board(Board(models), form)
        assert text.count("imported: paper") == 2
        assert "4 models (a and others): imported: paper 1." in text
        assert "e and f: imported: paper 2." in text
