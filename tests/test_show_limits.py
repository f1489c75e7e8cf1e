"""`perimetry show`: what it must not say, whatever a record holds, and its numbers."""

from __future__ import annotations

import re

import pytest
from planted_report import culprit, layer, model, record, report_of

from perimetry.bench.model_report.case import Case
from perimetry.bench.model_report.report import report
from perimetry.bench.output.numbers import format_number, with_interval_text
from perimetry.bench.output.text import clean
from perimetry.bench.records.parts import Failure, Value
from perimetry.suites.registry import SUITES

# What must not be said


def test_a_suite_without_a_record_is_left_out():
    """No heading, no sentence and no apology for what was never measured."""
    text = report_of(record("structure", {"weakest": 0.5}))
    for suite in (
        "erf:",
        "deadpixel:",
        "padding:",
        "perturbation:",
        "Kernel padding",
        "Not measured",
    ):
        assert suite not in text


@pytest.mark.parametrize("suite", SUITES)
def test_no_number_is_made_up_for_what_is_missing(suite):
    """A record of nothing but reasons: no line has a digit, and every reason is given."""
    metrics = {m.name: f"reason of {m.name}" for m in SUITES[suite].metrics}
    fill = "box" if suite == "fidelity" else "none"
    text = report_of(record(suite, metrics, fill=fill), fill=fill)
    for name in metrics:
        assert f"{name}: reason of {name}." in text
    body = text.partition("Not measured")[0].replace("3 -> 4", "")
    assert not re.search(r"\d", body), body


@pytest.mark.parametrize("suite", SUITES)
def test_a_record_without_maps_and_tables_says_less_and_nothing_wrong(suite):
    """Uneven numbers whose tables and maps are lost never turn into a claim of evenness."""
    metrics = {
        m.name: (0.3, 0.01) if m.better == "higher" else (2.0, 0.01) for m in SUITES[suite].metrics
    }
    fill = "box" if suite == "fidelity" else "none"
    text = report_of(record(suite, metrics, fill=fill, model=model(members=4)), fill=fill)
    assert " Even: " not in text
    assert "None" not in text


def test_damaged_tables_cost_their_sentences_and_no_more():
    """Rows of strange shapes are passed over; the other sentences stand."""
    strange = [{"name": 3, "reduction": "x"}, {}, {"coverage": None}]
    names = ("layers", "culprits", "uneven", "even_sizes")
    tables = dict.fromkeys(names, strange)
    found = record("structure", {"weakest": 0.5, "ratio": 2.0, "imbalance": 0.3}, tables=tables)
    found.model = found.model.model_copy(update={"spec": {"height": "x"}, "target": {}})
    assert "least sensitive phase (1 is even) 0.500 in structure" in report_of(found)


HOSTILE = "a\x1b[31m{weakest}\x07\u202eb\nc|\ud800"


def stage(name):
    ends = dict.fromkeys(("constant_border_ratio", "constant_left_right", "constant_top_bottom"))
    return {"name": name, "height": name, "width": 1, **ends}


def hostile_report():
    tables = {
        "culprits": [
            culprit(HOSTILE, imbalance_padded=0, reduction=1),
        ],
        "uneven": [{"name": HOSTILE}],
        "layers": [layer(HOSTILE, 1, ((1, 0), (1, 0)))],
        "stages": [stage(HOSTILE)],
    }  # fmt: skip
    wild = model(HOSTILE, weights=HOSTILE)
    metrics = {
        "weakest": 0.5,
        "imbalance": 1.0,
        "by_period_2": 1.0,
        "uneven_layers": 1,
        HOSTILE: 1.0,
    }
    died = Failure(kind="died", message=HOSTILE)
    records = [
        record("structure", metrics, tables=tables, notes=[HOSTILE], model=wild),
        record("erf", {"erf_trf": HOSTILE}, model=wild, settings={"unit": [HOSTILE, 1]}),
        record("deadpixel", {}, status="skipped", reason=HOSTILE, model=wild),
        record("padding", {}, tables=tables, model=wild),
        record("fidelity", {}, status="failed", error=died, model=wild),
        record("perturbation", {"position_mean": 1.0}, settings={"epsilon": HOSTILE}, model=wild),
    ]  # fmt: skip
    return report(Case(HOSTILE, "none", records, {}, SUITES))


def test_no_control_character_of_a_model_or_record_gets_through():
    """Escapes, bells, direction marks, surrogates and line breaks are visible text everywhere."""
    text = hostile_report()
    for line in text.split("\n"):
        assert clean(line, 10**6) == line
    text.encode()
    assert text.count("\\x1b[31m") > 8


@pytest.mark.parametrize("width", [40, 72, 96])
def test_lines_keep_to_the_width(width):
    """Sentences fold, tables drop columns and say so; only the command stays whole."""
    tables = {"layers": [layer("some.layer.name")] * 3}
    case = Case(
        "toy:model",
        "none",
        [record("structure", {"weakest": 0.5, "ratio": 2.0}, tables=tables)],
        {},
        SUITES,
    )
    lines = report(case, width=width).split("\n")
    long = [line for line in lines if len(line) > width and "perimetry run" not in line]
    assert long == []
    assert width == 96 or any("no room for" in line for line in lines)


# Numbers


@pytest.mark.parametrize("exponent", range(-9, 9))
def test_numbers_keep_three_digits(exponent):
    """What is shown is within half of the third digit of what was stored, at every size."""
    for digit in (1.0, 1.4, 1.797, 2.0, 3.333, 9.996):
        for sign in (1, -1):
            held = sign * digit * 10.0**exponent
            assert float(format_number(held)) == pytest.approx(held, rel=0.005)


@pytest.mark.parametrize(
    ("held", "shown"),
    [
        (Value(value=0.5), "0.500"),
        (Value(value=180.0, low=146.0, high=214.0), "180 ± 34"),
        (Value(value=0.5, low=0.4, high=0.6), "0.50 ± 0.10"),
        (Value(value=0.5, low=0.4, high=0.7), "0.50 (0.40 to 0.70)"),
        (Value(value=0.0, low=0.0, high=0.12), "0.00 (0.00 to 0.12)"),
        (Value(value=0.038, low=0.0, high=0.079), "0.038 (0.000 to 0.079)"),
        (Value(value=0.962, low=0.921, high=1.0), "0.962 (0.921 to 1.000)"),
        (Value(value=16.0, low=16.0, high=16.0), "16"),
        (Value(value=0.5, low=None, high=0.7), "0.500"),
    ],
)
def test_intervals_are_shown_as_they_are(held, shown):
    """Even-sided ones by half their width, lopsided ones by both ends, unbounded ones not."""
    assert with_interval_text(held.value, held.low, held.high).replace("\u00a0", " ") == shown
