"""Lone phases: literal probabilities, moderated variances, and what is put in their place."""

import math

import numpy as np
import pytest
from scipy.special import digamma, polygamma
from scipy.stats import norm
from scipy.stats import t as student

from perimetry.suites.measuring import profile_lone
from perimetry.suites.measuring.bootstrap import bootstrap
from perimetry.suites.measuring.profile_lone import Lone, PooledNoise, find_lone, put_lone


def observe(truth, samples, seed=0, shape=20):
    """Samples (samples, rows, columns) of gamma noise about `truth`."""
    rng = np.random.default_rng(seed)
    return truth * rng.standard_gamma(shape, (samples, *truth.shape)) / shape


def one_weak(size, value=0.4):
    profile = np.ones((size, size))
    profile[1, 1] = value
    return profile / profile.mean()


def test_the_probability_of_a_lone_phase_is_bayes_theorem_for_students_t_and_a_normal_law():
    """Phase by phase, with the densities of scipy, for departures in units of a known spread."""
    departures, spread, freedom = np.array([[0.05, -0.2], [-0.5, 1.0]]), 0.01, 12.0
    found = profile_lone.is_lone(departures, np.full((2, 2), spread), freedom, 0.2, 4)
    at_zero = student.pdf(0, freedom)
    for place in np.ndindex(2, 2):
        departure = departures[place]
        # both densities relative to their height at 0 but for the widths, as in the module
        ordinary = student.pdf(departure / math.sqrt(spread), freedom) / at_zero / math.sqrt(spread)
        wide = math.sqrt(profile_lone.LONE_SIZE**2 + spread)
        lone = norm.pdf(departure / wide) / norm.pdf(0) / wide
        odds = 0.2 / 4 * lone / ordinary
        assert found[place] == pytest.approx(odds / (1 + odds))


def test_variances_are_moderated_as_smyth_does():
    """The prior's degrees of freedom and variance from the moments of the log variances."""
    values = observe(np.full((6, 6), 2.0), 5, seed=3, shape=4) * np.linspace(0.5, 3, 36).reshape(
        6, 6
    )
    own = [
        [np.var(values[:, i, j], ddof=1) / values[:, i, j].mean() ** 2 for j in range(6)]
        for i in range(6)
    ]
    logs = np.log(own).ravel() - digamma(2) + math.log(2)
    beyond = max(float(np.mean((logs - logs.mean()) ** 2)) - float(polygamma(1, 2)), 1e-3)
    # trigamma(d / 2) is 1 / x + 1 / (2 x x) at x = d / 2, up to higher orders
    prior = min(max((1 + math.sqrt(1 + 2 * beyond)) / beyond, 4.0), 200.0)
    common = math.exp(logs.mean() + digamma(prior / 2) - math.log(prior / 2))
    found = PooledNoise.of(values)
    assert found.freedom == pytest.approx(4 + prior)
    literal = (4 * np.array(own) + prior * common) / (4 + prior)
    np.testing.assert_allclose(found.variance, literal)


def test_equal_relative_variances_are_pooled_and_unlike_ones_are_not():
    """Noise of one relative size gives many degrees of freedom, of sizes 1 to 30 few."""
    equal = PooledNoise.of(observe(one_weak(8), 8))
    assert equal.freedom > 50
    np.testing.assert_allclose(equal.variance, 1 / 20, rtol=0.3)
    sizes = np.geomspace(1, 900, 64).reshape(8, 8)
    unlike = np.random.default_rng(0).standard_gamma(1000 / sizes, (8, 8, 8)) * sizes / 1000
    assert PooledNoise.of(unlike).freedom < 12


def test_the_mean_of_a_lone_phase_is_drawn_on_the_scale_of_cube_roots():
    """Its draws' quantiles are the sample mean over (1 -+ t s / 3)^3, s its relative error."""
    truth = one_weak(8)
    profiles, count = observe(truth, 16), 20_000
    drawn = np.ones((count, 8, 8))
    lone = [Lone(truth < 1, 1.0, certain=True)]
    put_lone(drawn, profiles, lone, bootstrap(16, count, 0).deviations, np.random.default_rng(0))
    noise = PooledNoise.of(profiles)
    error = math.sqrt(noise.variance[1, 1] / 16)
    mean = profiles[:, 1, 1].mean()
    for share in (0.025, 0.5, 0.975):
        literal = mean / (1 - student.ppf(share, noise.freedom) * error / 3) ** 3
        assert np.quantile(drawn[:, 1, 1], share) == pytest.approx(literal, rel=0.02)
    assert (drawn[:, truth > 1] == 1).all()


def test_a_silent_phase_is_drawn_as_nothing():
    """A phase that is 0 in every sample is certain, and 0 in every draw."""
    profiles = observe(one_weak(8, 0.0), 8)
    lone, _ = find_lone(profiles)
    (silent,) = (one for one in lone if one.certain)
    drawn = np.ones((50, 8, 8))
    put_lone(drawn, profiles, [silent], bootstrap(8, 50, 0).deviations, np.random.default_rng(0))
    assert (drawn[:, 1, 1] == 0).all()


def test_white_noise_has_no_lone_phase():
    """Of 30 even profiles of 16 x 16 phases at most two have a certain lone phase."""
    found = [find_lone(observe(np.ones((16, 16)), 8, seed))[0] for seed in range(30)]
    assert sum(any(one.certain for one in lone) for lone in found) <= 2


def test_lone_phases_are_found_and_scaled_to_their_row_and_column():
    """A phase at 0.3 of what its row and column imply is certain, and alone; scaled, it is 1."""
    axis = np.array([1.0, 2.0, 1.5, 0.5] * 2)
    truth = np.outer(axis, axis)
    truth[2, 5] *= 0.3
    profiles = truth * np.random.default_rng(0).standard_gamma(20, (8, 8, 8)) / 20
    lone, without = find_lone(profiles)
    certain = [one for one in lone if one.certain]
    assert [np.argwhere(one.places).tolist() for one in certain] == [[[2, 5]]]
    assert certain[0].probability > 0.99
    mean = without.mean(0)
    row, column = mean[2].sum() / mean.sum(), mean[:, 5].sum()
    assert mean[2, 5] == pytest.approx(row * column, rel=0.1)
    others = np.ones((8, 8), bool)
    others[2, 5] = False
    np.testing.assert_array_equal(without[:, others], profiles[:, others])


def test_a_class_of_phases_of_a_shorter_period_is_lone_as_a_whole():
    """A weak phase of period 4 in a profile of 16 x 16 is one class of sixteen phases."""
    truth = np.tile(one_weak(4), (4, 4))
    lone, _ = find_lone(observe(truth, 16))
    (certain,) = (one for one in lone if one.certain)
    expected = np.zeros((16, 16), bool)
    expected[1::4, 1::4] = True
    np.testing.assert_array_equal(certain.places, expected)
