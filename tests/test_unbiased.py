"""Estimators that do not reward noise: each written out literally, no bias, honest intervals."""

import numpy as np
import pytest

from perimetry.suites.measuring.bootstrap import bootstrap
from perimetry.suites.measuring.unbiased import (
    extreme_mean,
    mean_square,
    pair_products,
    pseudo_values,
    read_other_half,
    root_mean_square,
)


def test_pseudo_values_of_a_mean_are_the_samples():
    """The jackknife pseudo-values of a mean are the samples themselves."""
    samples = np.random.default_rng(0).normal(size=(7, 3))
    np.testing.assert_allclose(pseudo_values(samples, lambda means: means), samples)


def test_pseudo_values_equal_the_literal_formula_and_cure_the_bias_of_a_square():
    """Pseudo-values follow the jackknife formula and make a squared mean unbiased."""
    samples = np.random.default_rng(0).normal(2.0, 1.0, size=(6, 1))
    found = pseudo_values(samples, np.square)
    for i in range(6):
        rest = np.delete(samples, i, 0).mean(0) ** 2
        np.testing.assert_allclose(found[i], 6 * samples.mean(0) ** 2 - 5 * rest)
    unbiased = samples.mean() ** 2 - samples.var(ddof=1) / 6
    assert found.mean() == pytest.approx(unbiased)


def test_a_place_is_read_on_the_half_it_was_not_chosen_on():
    """The extreme is chosen on one half of the samples and read on the other, both ways."""
    values = np.random.default_rng(0).normal(size=(5, 4))
    even, odd = [0, 2, 4], [1, 3]
    for choose in (np.argmin, np.argmax):
        a = choose([np.mean([values[i, k] for i in even]) for k in range(4)])
        b = choose([np.mean([values[i, k] for i in odd]) for k in range(4)])
        literal = (sum(values[i, b] for i in even) + sum(values[i, a] for i in odd)) / 5
        read, gap = read_other_half(values, choose)
        assert read.mean() == pytest.approx(literal)
        assert gap == pytest.approx(values[:, a].mean() - values[:, b].mean())
        assert extreme_mean(values, choose, bootstrap(5, 3, 0))[0] == pytest.approx(literal)


PLANTS = {
    "all alike": np.ones(64),
    "several weakest": np.tile([0.444, 0.889, 0.889, 1.778], 16),
    "one weakest": np.where(np.arange(64) == 0, 0.4, 1.0),
}


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("n", [8, 16, 32])
def test_the_interval_of_the_smallest_covers_it(plant, n):
    """The smallest of 64 means is estimated within 0.015, and 91 to 98 % of intervals cover it."""
    rng = np.random.default_rng(n)
    values, hits, halves = [], [], []
    for seed in range(600):
        samples = PLANTS[plant] * rng.gamma(10, 0.1, (n, 64))
        estimate_of = bootstrap(n, 200, seed)
        found = extreme_mean(samples, np.argmin, estimate_of)
        estimate = estimate_of.estimate(found, positive=True)
        values.append(estimate.value)
        hits.append(estimate.low <= PLANTS[plant].min() <= estimate.high)
        halves.append((estimate.high - estimate.low) / 2)
    assert np.mean(values) == pytest.approx(PLANTS[plant].min(), abs=0.015)
    assert 0.91 <= np.mean(hits) <= 0.98
    assert np.median(halves) < 1.6 * 1.96 * np.std(values)


def test_the_mean_square_is_the_mean_product_of_unlike_samples():
    """The mean square equals the mean product over all pairs of different samples."""
    values = np.random.default_rng(0).normal(size=(5, 4))
    pairs = [values[i] @ values[j] / 4 for i in range(5) for j in range(5) if i != j]
    found = mean_square(pair_products(values), bootstrap(5, 10, 0))
    assert found[0] == pytest.approx(np.mean(pairs))


def test_one_sample_is_taken_as_it_is():
    """With a single sample the plain minimum, mean square and root are returned."""
    values = np.array([[3.0, 1.0]])
    one = bootstrap(1, 4, 0)
    assert (extreme_mean(values, np.argmin, one) == 1.0).all()
    assert np.allclose(mean_square(pair_products(values), one), 5.0)
    assert np.allclose(pseudo_values(values, np.sqrt), np.sqrt(values))


@pytest.mark.parametrize("truth", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("n", [8, 24])
def test_the_interval_of_a_mean_square_covers_the_truth_and_is_not_wider_than_it_must(truth, n):
    """The mean square is unbiased, and 91.5 to 98 % of intervals of near-minimal width cover it."""
    rng = np.random.default_rng(1)
    deviation = np.sqrt(truth) * np.where(np.arange(64) % 2, 1, -1)
    values, hits, halves = [], [], []
    for seed in range(600):
        samples = deviation + rng.normal(0, 1, (n, 64))
        estimate_of = bootstrap(n, 200, seed)
        estimate = estimate_of.estimate(mean_square(pair_products(samples), estimate_of))
        values.append(estimate.value)
        hits.append(estimate.low <= truth <= estimate.high)
        halves.append((estimate.high - estimate.low) / 2)
    assert np.mean(values) == pytest.approx(truth, abs=4 * np.std(values) / np.sqrt(600))
    assert 0.915 <= np.mean(hits) <= 0.98
    assert np.mean(halves) < 1.45 * 1.96 * np.std(values)


def test_the_size_of_what_is_only_noise_is_around_zero():
    """The root mean square of noise averages 0 and has both signs."""
    rng = np.random.default_rng(0)
    resamples = bootstrap(10, 10, 0)
    sizes = [root_mean_square(rng.normal(0, 1, (10, 32)), resamples)[0] for _ in range(300)]
    assert abs(np.mean(sizes)) < 4 * np.std(sizes) / np.sqrt(300)
    assert min(sizes) < 0 < max(sizes)
