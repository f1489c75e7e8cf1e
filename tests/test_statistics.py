"""Intervals: resamples, first-order replicates, coverage."""

import numpy as np
import pytest

from perimetry.suites.measuring.bootstrap import MIN_SAMPLES, bootstrap, linear


def test_weights_sum_to_one_and_the_first_row_is_the_sample_itself():
    """Each resample's weights sum to 1, and those of the first row are all 1/n."""
    weights = bootstrap(9, 50, seed=3).weights
    assert weights.shape == (51, 9)
    assert np.allclose(weights.sum(1), 1)
    assert np.allclose(weights[0], 1 / 9)


def test_the_same_seed_gives_the_same_resamples_whatever_is_measured():
    """Resamples depend on the number of samples and the seed alone."""
    one, two, other = bootstrap(8, 20, 1), bootstrap(8, 20, 1), bootstrap(8, 20, 2)
    assert np.array_equal(one.weights, two.weights)
    assert not np.array_equal(one.weights, other.weights)


def test_the_interval_of_a_mean_covers_the_truth_in_93_to_97_percent():
    """Of 1500 intervals of a mean of 12 samples, 93 to 97 % contain the true mean."""
    rng = np.random.default_rng(0)
    hits = []
    for seed in range(1500):
        samples = rng.normal(2.0, 1.0, 12)
        resamples = bootstrap(12, 100, seed)
        estimate = resamples.estimate(resamples.weights @ samples)
        hits.append(estimate.low <= 2.0 <= estimate.high)
    assert 0.93 <= np.mean(hits) <= 0.97


def test_first_order_replicates_are_exact_for_linear_statistics():
    """For a mean the first-order replicates equal those computed from each resample."""
    samples = np.random.default_rng(0).normal(size=(10, 3))
    resamples = bootstrap(10, 40, 0)
    replicates = linear(resamples.weights[0] @ samples, samples, resamples.weights)
    assert np.allclose(replicates, resamples.weights @ samples)


def test_too_few_samples_give_a_value_without_an_interval():
    """Fewer samples than the minimum give a value whose interval is missing."""
    resamples = bootstrap(MIN_SAMPLES - 1, 20, 0)
    estimate = resamples.estimate(resamples.weights @ np.array([1.0, 2.0, 3.0]))
    assert estimate.value == pytest.approx(2.0)
    assert estimate.low is None
    assert estimate.high is None


def test_a_value_that_is_not_finite_is_missing_with_its_reason():
    """An infinite value is stored as missing, with a reason."""
    resamples = bootstrap(8, 20, 0)
    estimate = resamples.estimate(np.full(21, np.inf))
    assert estimate.value is None
    assert "not finite" in estimate.reason


def test_estimates_stay_in_the_range_of_their_metric():
    """Value and interval are clipped to the range of the metric."""
    resamples = bootstrap(8, 50, 0)
    noisy = resamples.weights @ np.random.default_rng(1).normal(0, 1, 8)
    estimate = resamples.estimate(noisy, low=0.0, high=0.1)
    assert 0.0 <= estimate.low <= estimate.value <= estimate.high <= 0.1


def test_the_interval_of_a_positive_quantity_is_symmetric_in_its_logarithm():
    """The interval of a positive quantity is the value times and divided by one factor."""
    resamples = bootstrap(8, 100, 0)
    values = resamples.weights @ np.linspace(0.1, 1.9, 8)
    plain, found = resamples.estimate(values), resamples.estimate(values, positive=True)
    assert found.low * found.high == pytest.approx(found.value**2)
    assert np.log(found.high / found.value) == pytest.approx(plain.high / plain.value - 1)


def test_an_end_beyond_all_numbers_is_left_open():
    """An error of a thousand times a positive value would multiply it by e^1000."""
    resamples = bootstrap(8, 50, 0)
    values = np.array([1e-6, *np.random.default_rng(0).normal(0, 1e-3, 50)])
    found = resamples.estimate(values, low=0.0, positive=True)
    assert (found.low, found.high) == (0, None)
