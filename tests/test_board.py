"""The leaderboard: ranks, ties, paired differences, what is missing, and hostile names."""

from __future__ import annotations

import csv
import io
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
import toys
from scipy.stats import t as student

from perimetry import audit, leaderboard
from perimetry.adapters.errors import InputError, UnknownNameError
from perimetry.bench.output.text import clean, code, spreadsheet
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.tables import FORMATS, caption, render_board
from perimetry.bench.ranking.view import board_frame
from perimetry.bench.records.parts import Failure, Value
from perimetry.bench.records.selection import MixedRecordsError, choose, newest
from perimetry.bench.statistics.difference import metric_difference
from perimetry.suites.deadpixel.suite import NOT_ALWAYS_BETTER
from perimetry.suites.registry import SUITES

COUNT = 8
TEMPLATE = {
    (r.suite, r.fill): r
    for r in audit(
        "toy:a",
        ("structure", "deadpixel"),
        ("none", "box"),
        toolkit=toys.toolkit(),
        images="noise",
        count=COUNT,
    )
}


def record(name, value, *, half=None, draws=None, fill="none", suite="deadpixel", **changes):
    """A finished record of the toy suites with a planted `weakest`."""
    base = TEMPLATE[suite, fill]
    low, high = (None, None) if half is None else (value - half, value + half)
    model = base.model.model_copy(update={"reference": name})
    metrics = {"weakest": Value(value=value, low=low, high=high)}
    made = base.model_copy(update={"model": model, "metrics": metrics, "key": name, **changes})
    return made.attach(({}, {} if draws is None else {"weakest": draws}))


def board(records, **options):
    return Board(records, suites=toys.SUITES, **options)


def ranks(records, **options):
    """Models in the order of the board, with their ranks as they are shown."""
    rows = board(records, **options).rows
    return [(row.model, None if row.rank is None else str(row.rank)) for row in rows]


def test_a_column_without_a_value_ranks_nothing_where_another_has_one():
    """Models without gradients are ranked by differences; a size is no rank."""
    missing = {"weakest": Value(value=None, reason="no gradients")}
    known = [record(name, 0.5).model_copy(update={"metrics": missing}) for name in "ab"]
    assert Board(known).sort == "deadpixel.weakest"
    sizes = {"luo_size": Value(value=8.0)}
    erf = [
        one.model_copy(update={"suite": "erf", "protocol": "energy", "metrics": sizes})
        for one in known
    ]
    assert Board([*known, *erf]).sort == "deadpixel.weakest"
    combs = [
        one.model_copy(
            update={
                "suite": "perturbation",
                "protocol": "forward",
                "metrics": {"comb_weakest": Value(value=value, low=value - 0.01, high=value)},
            }
        )
        for one, value in zip(known, (0.2, 0.9), strict=True)
    ]
    found = Board([*known, *erf, *combs])
    assert found.sort == "perturbation.comb_weakest"
    assert [(row.model, str(row.rank)) for row in found.rows] == [("b", "1"), ("a", "2")]
    even = [record(name, 0.5, suite="structure") for name in "ab"]
    assert Board([*known, *combs, *even]).sort == "structure.weakest"
    assert Board([record("c", 0.5), *known, *combs]).sort == "deadpixel.weakest"


def test_rows_are_ranked_best_first():
    """With intervals far apart, the higher `weakest` ranks first."""
    rows = [record("low", 0.1, half=0.01), record("high", 0.9, half=0.01)]
    assert ranks(rows) == [("high", "1"), ("low", "2")]


def test_ranks_are_as_wide_as_the_samples_leave_them():
    """Of half widths 0.1, rows 0.15 apart share ranks, and the last row is separate."""
    rows = [
        record("a", 0.90, half=0.1),
        record("b", 0.80, half=0.1),
        record("c", 0.75, half=0.1),
        record("d", 0.10, half=0.1),
    ]
    assert ranks(rows) == [("a", "1 to 3"), ("b", "1 to 3"), ("c", "1 to 3"), ("d", "4")]


def test_one_wide_interval_does_not_join_what_lies_around_it():
    """a and w are not shown to differ; c is shown to be worse than both, not drawn in through w."""
    rows = [record("a", 0.9, half=0.05), record("w", 0.8, half=0.5), record("c", 0.1, half=0.05)]
    assert ranks(rows) == [("a", "1 to 2"), ("w", "1 to 2"), ("c", "3")]


def test_independent_intervals_add_in_quadrature():
    """Half widths 3 and 4 separate values that are more than 5 apart, and none closer."""
    for gap, separated in ((5.01, True), (4.99, False)):
        first, second = record("a", gap, half=3.0), record("b", 0.0, half=4.0)
        found = metric_difference(first, second, "weakest")
        assert found.method == "independent"
        assert found.high - found.value == pytest.approx(5.0)
        assert found.separated is separated


def test_paired_draws_cancel_what_is_shared():
    """Common noise cancels: the interval is that of the draws' differences, by hand."""
    rng = np.random.default_rng(0)
    shared, own = rng.normal(0, 1, 200), rng.normal(0, 0.01, 200)
    first = record("a", 0.6, half=2.0, draws=0.6 + shared + own)
    second = record("b", 0.5, half=2.0, draws=0.5 + shared)
    found = metric_difference(first, second, "weakest")
    error = np.std(0.1 + own, ddof=1) * math.sqrt(COUNT / (COUNT - 1))
    assert found.method == "paired"
    half = error * student.ppf(0.975, COUNT - 1)
    assert found.high - found.value == pytest.approx(half, rel=1e-3)  # draws have 16 bits
    assert found.separated
    assert ranks([first, second]) == [("a", "1"), ("b", "2")]


@pytest.mark.parametrize("change", ["seed", "members", "draws", "images"])
def test_draws_of_unlike_samples_do_not_pair(change):
    """Another seed, number of weight sets, number of draws or image set: independent intervals."""
    draws = np.linspace(0, 1, 200)
    first = record("a", 0.5, half=0.1, draws=draws)
    second = record("b", 0.4, half=0.1, draws=draws[:100] if change == "draws" else draws)
    if change == "seed":
        second.seed = 7
    if change == "members":
        second.model = second.model.model_copy(update={"members": 4})
    if change == "images":
        second.settings = {**second.settings, "images_sha256": "other"}
    assert metric_difference(first, second, "weakest").method == "independent"


def test_exact_metrics_tie_within_their_printed_digits():
    """Without images there is no interval: 0.4999 prints as 0.500 and ties, 0.499 does not."""
    values = (("a", 0.5), ("b", 0.5), ("c", 0.4999), ("d", 0.499))
    rows = [record(n, v, suite="structure") for n, v in values]
    assert ranks(rows) == [("a", "1 to 3"), ("b", "1 to 3"), ("c", "1 to 3"), ("d", "4")]


def test_estimates_without_an_interval_are_never_separated():
    """Too few samples for an interval: no claim that the rows differ."""
    assert ranks([record("a", 0.9), record("b", 0.1)]) == [("a", "1 to 2"), ("b", "1 to 2")]


def test_rows_without_the_sort_metric_come_last_without_a_rank():
    """Unranked rows are ordered by the structure suite's number, then those without any."""
    rows = [
        record("none", 0.0, half=0.1, metrics={"weakest": Value(value=None, reason="no target")}),
        record("ranked", 0.2, half=0.1),
        record("exact low", 0.3, suite="structure"),
        record("exact high", 0.8, suite="structure"),
    ]
    names = [("exact high", None), ("exact low", None), ("none", None)]
    assert ranks(rows) == [("ranked", "1"), *names]


def test_the_treated_row_has_the_paired_change():
    """Treated less untreated, with its interval, in the treated row; the untreated has none."""
    draws = np.random.default_rng(1).normal(0, 1, 200)
    rows = [
        record("m", 0.4, half=1.0, draws=draws + 0.4),
        record("m", 0.9, half=1.0, draws=draws * 1.01 + 0.9, fill="box"),
    ]
    frame = leaderboard(rows, suites=toys.SUITES).set_index("fill")
    assert frame.loc["box", "deadpixel.weakest.change"] == pytest.approx(0.5)
    assert frame.loc["box", "deadpixel.weakest.untreated"] == 0.4
    assert frame.loc["box", "deadpixel.weakest.change.method"] == "paired"
    assert 0.4 < frame.loc["box", "deadpixel.weakest.change.low"] < 0.5
    assert frame.loc["none", "deadpixel.weakest.change"] is pd.NA


def test_a_change_whose_draws_all_agree_has_no_interval():
    """An estimate's difference is not known exactly: its ends are missing, not equal."""
    draws = np.random.default_rng(1).normal(0, 1, 200)
    rows = [
        record("m", 0.4, half=1.0, draws=draws + 0.4),
        record("m", 0.9, half=1.0, draws=draws + 0.9, fill="box"),
    ]
    frame = leaderboard(rows, suites=toys.SUITES).set_index("fill")
    assert frame.loc["box", "deadpixel.weakest.change"] == pytest.approx(0.5)
    assert frame.loc["box", "deadpixel.weakest.change.low"] is pd.NA
    assert frame.loc["box", "deadpixel.weakest.change.high"] is pd.NA


def test_sorting_follows_the_metric_that_was_asked_for():
    """`sort` takes any column, best first by the metric's direction; unknown ones are an error."""
    rows = []
    for name, value in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
        metrics = {"by_period_2": Value(value=value, low=value - 0.1, high=value + 0.1)}
        rows.append(record(name, 0.5, metrics=metrics))
    assert ranks(rows, sort="deadpixel.by_period_2") == [("b", "1"), ("c", "2"), ("a", "3")]
    with pytest.raises(UnknownNameError, match=r"deadpixel\.by_period_2"):
        board(rows, sort="deadpixel.by_period")


def test_suites_named_for_a_run_rank_in_their_order():
    """Without evenness the first suite that was named ranks; of a protocol by its suite's name."""
    rows = [
        record("a", 0.5, metrics={suite.headline: Value(value=0.5)}).model_copy(
            update={"suite": suite.name, "protocol": next(iter(suite.protocols)), "key": suite.name}
        )
        for suite in (SUITES["shift"], SUITES["position"])
    ]
    known = {name: SUITES[name] for name in ("deadpixel", "shift", "position")}
    for first in (("position", "shift"), ("shift:worst", "position"), ("erf", "position")):
        found = Board(rows, suites=known, first=first).sort
        assert found.partition(".")[0] == next(n.partition(":")[0] for n in first if n != "erf")
    rows.append(record("a", 0.5))
    assert Board(rows, suites=known, first=("position",)).sort == "deadpixel.weakest"


@pytest.mark.parametrize(
    "changes",
    [{"version": "2"}, {"seed": 1}, {"settings": {"target": "layer3"}}],
)
def test_unlike_records_never_share_a_column(changes):
    """Another version, seed or target is refused, and the text says what there is and how on."""
    rows = [record("a", 0.5), record("b", 0.5, **changes)]
    with pytest.raises(MixedRecordsError, match=r"deadpixel:energy.*--where"):
        board(rows)


MODELS = {
    "model=a": ["a"],
    "model=*.onnx": ["c[1].onnx", "d.onnx"],
    "model=c[1].onnx": ["c[1].onnx"],
    "model=timm:*": ["timm:b"],
}


def test_records_can_be_chosen_by_what_they_say():
    """`seed=1` keeps that seed, and exact records, which have none; wrong keys are an error."""
    rows = [record("a", 0.5), record("b", 0.5, seed=1), record("c", 1.0, suite="structure")]
    assert [r.key for r in choose(rows, ["seed=1"])] == ["b", "c"]
    with pytest.raises(UnknownNameError, match=r"'sed'.* seed"):
        choose(rows, ["sed=1"])
    with pytest.raises(InputError, match="expected KEY=VALUE"):
        choose(rows, ["seed"])


@pytest.mark.parametrize(
    "where", ["seed=zero", "seed=0.0", "count=many", "model=b", "family=resn*", "input=224"]
)
def test_a_value_that_no_record_has_is_refused(where):
    """Else the suites without this key would be left alone on the board."""
    rows = [record("a", 0.5), record("b|c", 0.5, seed=1), record("c", 1.0, suite="structure")]
    key, _, value = where.partition("=")
    with pytest.raises(UnknownNameError) as caught:
        choose(rows, [where])
    assert f"value of {key} {value!r}" in str(caught.value)
    with pytest.raises(UnknownNameError, match="'1'; known: 0"):
        choose(rows, ["model=a", "seed=1"])


def test_models_can_be_chosen_by_a_shell_pattern_or_by_their_very_name():
    """`model=*.onnx` keeps those files; brackets in a name are no pattern where the name fits."""
    rows = [record(name, 0.5) for name in ("a", "timm:b", "c[1].onnx", "d.onnx")]
    held = {text: [r.model.reference for r in choose(rows, [text])] for text in MODELS}
    assert held == MODELS


def test_the_newest_record_of_a_cell_counts_but_never_a_failure():
    """Measured again elsewhere, the newer number shows; a newer failure does not hide it."""
    failure = {"status": "failed", "error": Failure(kind="died", message="x"), "metrics": {}}
    old = record("a", 0.1, created="2026-01-01")
    new = record("a", 0.2, created="2026-01-02")
    broken = record("a", 0.3, created="2026-01-03", **failure)
    (kept,) = newest([new, broken, old])
    assert kept.metrics["weakest"].value == 0.2


HOSTILE = [
    "<script>alert(1)</script>",
    "a|b`c`*d*_e_[x](javascript:1)",
    "\x1b[31mred\x1b[0m\x07",
    "two\nlines\r\n| 1 | 2 |",
    "\u202egnp.exe\u200b",
    '=HYPERLINK("http://x","y")',
    "@SUM(A1)",
    "$x^{2$",
    "x" * 4000,
    "\ud800",
]


def hostile_board():
    rows = [record(name, 0.5, half=0.1, key=str(i)) for i, name in enumerate(HOSTILE)]
    failure = Failure(kind="exception", message="\x1b[2J<b>`|\nboom")
    rows.append(record("f", 0.5, status="failed", error=failure, metrics={}))
    return board(rows)


@pytest.mark.parametrize("form", ["table", "md", "csv"])
def test_no_control_character_survives_in_any_form(form):
    """Escapes, bells, direction marks and surrogates are visible text, and every row one line."""
    text = render_board(hostile_board(), form)
    assert clean(text.replace("\n", " "), 10**6) == text.replace("\n", " ")
    text.encode()


def test_markdown_names_are_inert():
    """Every name is one code span in one cell: a table of one shape, with no live markup."""
    text = render_board(hostile_board(), "md")
    table = [line for line in text.split("\n") if line.startswith("|")]
    assert len(table) == len(HOSTILE) + 1 + 2
    cells = [line.replace("\\|", "").count("|") for line in table]
    assert len(set(cells)) == 1
    for line in text.split("\n"):
        outside = "".join(line.split("`")[::2])
        assert line.count("`") % 2 == 0
        assert not set(outside) & set("<>*")


def test_csv_cells_are_no_formulas():
    """No text cell starts like a spreadsheet formula; numbers are numbers; missing is empty."""
    rows = list(csv.DictReader(io.StringIO(render_board(hostile_board(), "csv"))))
    assert len(rows) == len(HOSTILE) + 1
    assert not any(row["model"].startswith(("=", "@", "+", "-")) for row in rows)
    (failed,) = [row for row in rows if row["model"] == "f"]
    assert failed["deadpixel.weakest"] == ""
    assert failed["deadpixel.status"] == "failed"
    assert failed["deadpixel.weakest.reason"].startswith("failed: \\x1b[2J")


def test_json_is_strict_and_complete():
    """JSON holds every name as it is, null for what is missing, and no NaN."""
    content = json.loads(render_board(hostile_board(), "json"), parse_constant=pytest.fail)
    assert {row["model"] for row in content["rows"]} == {*HOSTILE, "f"}
    failed = next(row for row in content["rows"] if row["model"] == "f")
    assert failed["deadpixel.weakest"] is None
    assert failed["deadpixel.error"].endswith("boom")


def test_cleaning_keeps_ordinary_text():
    """Letters of any script, punctuation and spaces stay; the helpers quote what they must."""
    assert clean("vit_tiny.augreg (224 x 224) ±0.1 模型") == "vit_tiny.augreg (224 x 224) ±0.1 模型"
    assert len(clean("y" * 9999)) == 1000
    assert code("a`b|c") == "`a'b\\|c`"
    assert spreadsheet("-1") == "'-1"
    assert spreadsheet("resnet18") == "resnet18"


def test_missing_cells_say_why_in_footnotes():
    """A table shows n/a or failed with a number, and the reason under it; never 0 or nan."""
    rows = audit("toy:headless", ("structure", "deadpixel"), toolkit=toys.toolkit(), count=4)
    rows += audit("toy:measure-error", ("deadpixel",), toolkit=toys.toolkit(), count=4)
    for form in ("table", "md"):
        text = render_board(board(rows), form)
        assert "n/a [" in text
        assert "failed [" in text
        assert "a toy without logits" in text
        assert "RuntimeError: planted error" in text
        assert "nan" not in text.replace("planted", "")


def test_a_frame_has_no_nan_for_what_is_missing():
    """Missing numbers are pandas.NA and missing texts too; ranks are whole numbers."""
    frame = board_frame(hostile_board())
    for column in frame:
        assert not any(isinstance(v, float) and math.isnan(v) for v in frame[column])
    assert frame["rank"].dtype == "Int64"
    assert frame["deadpixel.weakest"].isna().sum() == 1


def test_the_board_warns_beside_the_deadpixel_columns():
    """Every person's form says that fewer dead pixels are not always better."""
    for form in ("table", "md", "json"):
        assert NOT_ALWAYS_BETTER in render_board(board([record("a", 0.5)]), form)
    assert NOT_ALWAYS_BETTER not in render_board(board([record("a", 0.5, suite="structure")]), "md")


def test_a_narrow_terminal_hides_columns_and_says_which():
    """A table never exceeds the width it was given while a column can be dropped."""
    one = board([record("m" * 40, 0.5, half=0.1), record("m" * 40, 0.5, suite="structure")])
    wide, narrow = render_board(one, "table", width=200), render_board(one, "table", width=70)
    assert "expected" in wide.split("\n")[0]
    assert len(narrow.split("\n")[0]) <= 70
    assert "Hidden to fit the terminal: expected" in narrow


DIVISIBLE = "every strided kernel is divisible by its stride"


@pytest.mark.parametrize(
    ("left", "coverage", "why"),
    [
        ({}, 1.0, DIVISIBLE),
        ({}, 0.444, "no strided kernel that it could grow"),
        ({}, None, "no strided kernel that it could grow"),
        ({"a": "whole numbers", "b": "whole numbers"}, 1.0, "whole numbers"),
        ({"a": "whole numbers", "b": "a slice"}, 0.3, "whole numbers; a slice"),
    ],
)
def test_untouched_models_say_why(left, coverage, why):
    """What padding had to leave, else what the coverage of the layers says, not what is measured.

    The expectation of 0.4 may be that of a hole.
    """
    records = []
    for suite in ("deadpixel", "structure"):
        if suite == "structure" and coverage is None:
            continue
        one = record("a", 0.4, suite=suite, metrics={"coverage": Value(value=coverage)})
        treatment = {"fill": "box", "layers": [], "left": left}
        model = one.model.model_copy(update={"treatment": treatment})
        records.append(one.model_copy(update={"model": model, "fill": "box"}))
    text = render_board(board(records), "table")
    assert "box [1]" in text
    assert f"[1] untouched: {why}\n" in text


def test_an_empty_board_has_its_head_and_no_row():
    """A board without records has in every form its head and no row."""
    texts = {form: render_board(board([]), form) for form in FORMATS}
    assert texts["table"].splitlines()[0].split() == ["model", "padding", "rank"]
    assert texts["md"].splitlines()[2:] == []
    assert texts["csv"].strip() == ""
    assert json.loads(texts["json"])["rows"] == []
    assert texts["tex"].count("\\\\") == 1


def test_a_lopsided_interval_is_shown_whole_and_so_are_all_of_its_column():
    """0.91 within [0.39, 2.14] must not read as 0.91 ± 1.23; a column has one format."""
    even, lopsided = record("even", 0.5, half=0.1), record("lopsided", 0.908)
    lopsided.metrics["weakest"] = Value(value=0.908, low=0.385, high=2.14)
    text = render_board(board([even, lopsided]), "table")
    assert re.search(r"even +none +1 to 2 +0\.500 \(0\.400 to 0\.600\)", text)
    assert re.search(r"lopsided +none +1 to 2 +0\.908 \(0\.385 to 2\.140\)", text)
    alone = render_board(board([even]), "table")
    assert re.search(r"even +none +1 +0\.500 ±0\.100\b", alone)
    assert "brackets give both ends" in text


def test_a_board_of_exact_values_speaks_of_no_interval():
    """Exact values tie within their printed digits; the caption says that and nothing of ±."""
    (line,) = caption(board([record("a", 0.5), record("b", 0.4)]))[:1]
    assert "printed digits" in line
    assert "±" not in line


def test_unlike_records_are_told_by_what_differs_alone_and_how_to_choose():
    """Of ten settings the two that differ are named, each kind with the words that choose it."""
    rows = [record("a", 0.5), record("b", 0.5), record("c", 0.5, version="2", seed=1)]
    with pytest.raises(MixedRecordsError) as error:
        board(rows)
    shown = str(error.value)
    assert (
        "2 with --where seed=0 --where version=1; 1 with --where seed=1 --where version=2" in shown
    )
    assert "draws" not in shown
    assert [r.key for r in choose(rows, ["seed=1", "version=2"])] == ["c"]


def test_the_caption_says_which_suites_measured_the_output():
    """Suites that note it are named; the target of the others is not theirs."""
    noted = record("a", 0.5, notes=["measured at 'y', 64 x 64 units"])
    found = caption(board([noted, record("b", 0.4)]))
    assert "At the output, not there: deadpixel." in found
    assert not any("At the output" in line for line in caption(board([record("b", 0.4)])))
    name = (noted.model.target or {})["name"]
    there = record("a", 0.5, notes=[f"measured at {name!a}, 8 channels of 6 x 6 units"])
    assert not any("At the output" in line for line in caption(board([there])))
