"""When a change counts for the regression gate: tolerances, intervals and directions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gate_tools import ONLY_METRICS
from small_nets import TOOLS

from perimetry.adapters.errors import InputError, UnknownNameError
from perimetry.bench.records.parts import Value
from perimetry.bench.records.store import Store
from perimetry.bench.regression.detectors import DetectorSet
from perimetry.bench.regression.result import RegressionVerdict
from perimetry.bench.regression.tolerances import OFF, Bounds, read_tolerances


def records_with(folder, **values):
    """The deadpixel record of a baseline with other metrics, and its judge."""
    record = next(r for r in Store(folder).records() if r.suite == "deadpixel")
    metrics = dict(record.metrics)
    for name, value in values.items():
        shift = value - metrics[name].value
        metrics[name] = metrics[name].model_copy(update={"value": value})
        record.draws[name] = record.draws[name] + shift
    return record.model_copy(update={"metrics": metrics}).attach(record.arrays)


def judged(folder, tolerances=ONLY_METRICS, **values):
    """What the judge says of one metric that has moved with all its draws."""
    old = next(r for r in Store(folder).records() if r.suite == "deadpixel")
    judge = DetectorSet(tolerances, None, TOOLS.toolkit().suites)
    findings = judge.record(old, records_with(folder, **values))
    return next(f for f in findings if f.where.endswith(f".{next(iter(values))}"))


def test_a_change_counts_only_beyond_its_tolerance(gate_baseline):
    """A shift that every replicate shares is beyond the interval; the bound alone decides."""
    old = next(r for r in Store(gate_baseline).records() if r.suite == "deadpixel")
    before = old.metrics["relL1"].value
    bound = Bounds().limit(before)
    assert bound == max(0.01, 0.02 * before)
    assert judged(gate_baseline, relL1=before + 0.9 * bound).verdict is RegressionVerdict.same
    assert judged(gate_baseline, relL1=before + 1.1 * bound).verdict is RegressionVerdict.regressed


def test_a_change_counts_only_beyond_its_interval(gate_baseline):
    """The same shift with replicates that scatter about 0 by as much is not shown to differ."""
    old = next(r for r in Store(gate_baseline).records() if r.suite == "deadpixel")
    before = old.metrics["relL1"].value
    shift = 2 * Bounds().limit(before)
    new = records_with(gate_baseline, relL1=before + shift)
    rng = np.random.default_rng(0)
    new.draws["relL1"] = new.draws["relL1"] + rng.normal(0, shift, new.draws["relL1"].shape)
    judge = DetectorSet(ONLY_METRICS, None, TOOLS.toolkit().suites)
    found = next(f for f in judge.record(old, new) if f.where.endswith(".relL1"))
    assert found.verdict is RegressionVerdict.same


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ((12.0, 1.0, None), (14.0, 1.0, None), True),
        ((12.0, 1.0, None), (6000.0, 1.0, None), True),
        ((12.0, 11.0, None), (6000.0, 20.0, None), False),
        ((12.0, 1.0, None), (14.0, 10.0, 18.0), True),
        ((12.0, 1.0, None), (14.0, 13.0, 18.0), False),
        ((12.0, None, None), (14.0, None, None), False),
    ],
)
def test_open_intervals_that_contain_both_values_show_no_change(gate_baseline, before, now, same):
    """Of a ratio of at least 1 nothing more is known; without any interval a change counts."""
    kept = next(r for r in Store(gate_baseline).records() if r.suite == "deadpixel")
    pair = []
    for value, low, high in (before, now):
        metrics = kept.metrics | {"ratio": Value(value=value, low=low, high=high)}
        pair.append(kept.model_copy(update={"metrics": metrics}).attach(({}, {})))
    judge = DetectorSet(ONLY_METRICS, None, TOOLS.toolkit().suites)
    (found,) = (f for f in judge.record(*pair) if f.where.endswith(".ratio"))
    assert (found.verdict is RegressionVerdict.same) is same


def test_direction_worse_lets_changes_towards_even_pass(gate_baseline):
    """With `worse`, less imbalance passes and more does not; by default both count."""
    old = next(r for r in Store(gate_baseline).records() if r.suite == "deadpixel")
    before = old.metrics["relL1"].value
    one_way = replace(ONLY_METRICS, metrics={"deadpixel.*": {"direction": "worse"}})
    for value, verdict in (
        (before / 2, RegressionVerdict.same),
        (before * 2, RegressionVerdict.regressed),
    ):
        assert judged(gate_baseline, one_way, relL1=value).verdict is verdict
        assert judged(gate_baseline, relL1=value).verdict is RegressionVerdict.regressed


def test_tolerances_are_read_field_by_field_over_the_defaults(tmp_path):
    """Later patterns win, fields that are not named keep what an earlier pattern said."""
    path = tmp_path / "t.toml"
    path.write_text(
        'fingerprint = "off"\nmaps = 0.5\n'
        '[metrics."deadpixel.*"]\nabsolute = 0.3\n'
        '[metrics."deadpixel.weakest"]\nrelative = 0.7\ndirection = "worse"\n'
        '[metrics."erf:kim2023.*"]\nignore = true\n'
    )
    found = read_tolerances(path)
    assert (found.fingerprint, found.maps, found.noise_factor) == (OFF, 0.5, 3.0)
    assert found.bounds("deadpixel.weakest") == Bounds(0.3, 0.7, "worse")
    assert found.bounds("deadpixel.imbalance") == Bounds(0.3, 0.02)
    assert found.bounds("erf:kim2023.rawL1").ignore
    assert not found.bounds("erf.rawL1").ignore


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("maps = -1", "maps is -1; expected a number of at least 0"),
        ("mapz = 1", "unknown tolerance 'mapz'; did you mean maps?"),
        ('[metrics."a"]\nabsolut = 1', "unknown field of 'a' 'absolut'; did you mean absolute?"),
        ('[metrics."a"]\ndirection = "up"', "expected any or worse"),
        ('[metrics."a"]\nignore = 1', "expected true or false"),
        ("[metrics]\na = 1", "expected a table with absolute and relative"),
        ("metrics = 1", "metrics must be tables"),
        ("maps = ", "cannot be read as TOML"),
    ],
)
def test_a_wrong_tolerance_says_what_was_expected(tmp_path, text, message):
    """A wrong tolerance is an error that gives the field and the expected kind of value."""
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises((InputError, UnknownNameError), match=message.replace("'", ".")):
        read_tolerances(path)
