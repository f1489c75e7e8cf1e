"""Shares have exact intervals, no estimate has ±0, and exact metrics are compared as exact."""

import numpy as np
import pytest
from planted_boards import board, record
from scipy.stats import binomtest
from scipy.stats import t as t_distribution

from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.caption import caption, few_samples
from perimetry.bench.records.parts import ImagesInfo, Value
from perimetry.bench.statistics.difference import metric_difference
from perimetry.bench.statistics.significance import evidence
from perimetry.suites.measuring.bootstrap import bootstrap, share_interval


@pytest.mark.parametrize(("hits", "count"), [(4, 4), (0, 4), (1, 2), (15, 16), (200, 300)])
def test_a_share_has_the_interval_of_clopper_and_pearson(hits, count):
    """The same as scipy's exact binomial interval, from the counts; 4 of 4 begins at 0.40."""
    samples = np.arange(count) < hits
    found = bootstrap(count, 50, 0).share(samples)
    expected = binomtest(hits, count).proportion_ci(0.95, "exact")
    assert found.value == hits / count
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert share_interval(4, 4)[0] == pytest.approx(0.025**0.25)


def test_equal_samples_have_no_interval():
    """That all samples agree does not show that they never differ: no ±0."""
    resamples = bootstrap(8, 50, 0)
    for level in (0.0, 0.3, 1.0):
        found = resamples.estimate(resamples.weights @ np.full(8, level))
        assert found.value == pytest.approx(level)
        assert found.low is None
        assert found.high is None


def exact(name, value, metric="blind_weakest"):
    """A record of `padding` with one exact value of one weight set."""
    made = record(name, 0.5)
    return made.model_copy(
        update={"metrics": {metric: Value(value=value)}, "suite": "padding", "protocol": "forward"}
    ).attach(({}, {}))


def test_what_is_exact_for_its_stimulus_differs_where_its_digits_do():
    """0.308 and 0.000 have ranks 1 and 2, and a change to 0 is a difference."""
    one, other, same = exact("a", 0.308), exact("b", 0.0), exact("c", 0.30801)
    assert metric_difference(one, other, "blind_weakest").method == "exact"
    assert evidence(one, other, "blind_weakest").shown
    found = Board([one, other, same], sort="padding.blind_weakest")
    assert {row.model: str(row.rank) for row in found.rows} == {
        "a": "1 to 2",
        "b": "3",
        "c": "1 to 2",
    }


def test_several_weight_sets_are_samples():
    """The same metric over several weight sets is an estimate."""
    one, other = (
        r.model_copy(update={"model": r.model.model_copy(update={"members": 4})}).attach(({}, {}))
        for r in (exact("a", 0.3), exact("b", 0.0))
    )
    assert metric_difference(one, other, "blind_weakest").method == "none"


def test_few_samples_are_warned_of_once():
    """Below eight samples a board says that its ranks mean little."""
    few, many = record("a", 0.5), record("b", 0.6)
    few = few.model_copy(update={"images": ImagesInfo(name="noise", count=4)}).attach(({}, {}))
    assert sum("Fewer than 8 samples (4)" in line for line in caption(board([few]))) == 1
    assert not any("Fewer than" in line for line in caption(board([many])))


@pytest.mark.parametrize(
    ("suite", "members", "images", "advice"),
    [
        ("deadpixel", 1, 4, "measure with more images."),
        ("deadpixel", 4, 8, "measure with more weight sets."),
        ("deadpixel", 8, 4, "measure with more images."),
        ("deadpixel", 4, 4, "measure with more weight sets and images."),
        ("training", 3, 512, "train with more seeds."),
    ],
)
def test_the_advice_is_to_take_more_of_what_was_counted(suite, members, images, advice):
    """More test images give a training of three seeds no narrower interval."""
    few = record(
        "a", 0.5, images=ImagesInfo(name="noise", count=images), model={"members": members}
    )
    (line,) = few_samples([(few.model_copy(update={"suite": suite}), "weakest")])
    assert line.endswith(f"ranks mean little; {advice}")


def test_an_estimate_has_no_interval_of_zero_width():
    """Rare other draws give their range; beyond the range, as wide as the half; rounding, none."""
    resampling = bootstrap(8, 200, 0)
    rare = np.zeros(200)
    rare[3] = 0.002
    found = resampling.from_draws(0.0, rare, low=0.0, high=1.0)
    assert (found.low, found.high) == (0.0, 0.002)
    below = np.concatenate([[-0.01], -0.01 + 0.001 * resampling.normal[1:]])
    found = resampling.estimate(below, low=0.0)
    error = np.std(below[1:], ddof=1) * np.sqrt(8 / 7)
    assert found.value == found.low == 0.0
    assert found.high == pytest.approx(error * t_distribution.ppf(0.975, 7))
    outside = resampling.from_draws(1.0, 1.0 + 200 * rare, low=0.0, high=1.0)
    assert (outside.value, outside.low, outside.high) == (1.0, None, None)
