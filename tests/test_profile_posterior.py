"""The posterior of a phase profile: exact answers, literal projections, planted truths."""

import numpy as np
import pytest

from perimetry.suites.measuring.bootstrap import bootstrap
from perimetry.suites.measuring.profile_posterior import (
    phase_estimates,
    profile_posterior,
    subspaces,
)

AXES = {"flat": [1], "3/2": [1, 2], "stem": [5, 6, 4, 6]}


def plant(name, size=32):
    """A profile (size, size) of mean 1 with a known smallest phase."""
    axis = np.tile(np.asarray(AXES[name], float), size // len(AXES[name]))
    profile = np.outer(axis, axis)
    return profile / profile.mean()


def observe(truth, samples, seed):
    """Noisy profiles (samples, rows, columns): chi-square cells, and a spread of each sample."""
    rng = np.random.default_rng([seed, samples])
    cells = rng.standard_gamma(37.5, (samples, *truth.shape)) / 37.5 * truth
    own = cells * rng.standard_gamma(10, cells.shape) / 10
    return own / own.mean((1, 2), keepdims=True)


def estimate(profiles, expected=None, seed=0):
    resamples = bootstrap(len(profiles), 200, seed)
    posterior = profile_posterior(profiles, resamples, expected)
    return phase_estimates(posterior, resamples), posterior


@pytest.mark.parametrize("shape", [(32, 32), (15, 15), (14, 14), (16, 8), (6, 1), (12, 18)])
def test_the_components_are_orthogonal_and_sum_to_the_profile(shape):
    """Rows, columns and interactions of each nested period, and the mean, make up any profile."""
    profile = np.random.default_rng(0).random(shape)
    parts = subspaces(shape)
    found = parts.components(profile)
    np.testing.assert_allclose(profile.mean() + sum(found), profile)
    gram = np.array([[float((a * b).sum()) for a in found] for b in found])
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-12
    assert sum(parts.dimensions()) == profile.size - 1


def test_the_dimensions_are_the_ranks_of_the_projections():
    """Each component of the unit profiles of a 6 x 4 cell spans as many directions as it says."""
    shape = (6, 4)
    units = np.eye(24).reshape(24, *shape)
    parts = subspaces(shape)
    for values, size in zip(parts.components(units), parts.dimensions(), strict=True):
        assert np.linalg.matrix_rank(values.reshape(24, 24)) == size


def test_a_row_component_is_the_literal_difference_of_folded_row_means():
    """Period 4 less period 2 of the row means, by two explicit loops."""
    profile = np.random.default_rng(1).random((8, 8))
    rows = profile.mean(1)

    def folded(period, i):
        return np.mean([rows[k] for k in range(8) if k % period == i % period])

    literal = [folded(4, i) - folded(2, i) for i in range(8)]
    along = subspaces((8, 8)).components(profile)[3]
    np.testing.assert_allclose(along, np.array(literal)[:, None] * np.ones((1, 8)))


def test_samples_that_agree_are_taken_as_they_are():
    """Without noise there is nothing to shrink, and no interval."""
    truth = np.random.default_rng(0).random((8, 8)) + 0.1
    truth /= truth.mean()
    found, posterior = estimate(np.repeat(truth[None], 5, 0))
    assert posterior.exact
    assert found["weakest"].value == pytest.approx(truth.min())
    assert found["weakest"].low is None


def test_almost_exact_samples_give_the_profile_whatever_its_pattern():
    """A profile that no product of rows and columns explains is recovered where noise is small."""
    rng = np.random.default_rng(0)
    truth = rng.random((8, 8)) + 0.2
    truth /= truth.mean()
    profiles = truth * (1 + 1e-4 * rng.standard_normal((8, 8, 8)))
    found, posterior = estimate(profiles)
    np.testing.assert_allclose(posterior.draws.mean(0), truth, rtol=5e-3)
    assert found["weakest"].value == pytest.approx(truth.min(), rel=5e-3)
    assert found["ratio"].value == pytest.approx(truth.max() / truth.min(), rel=1e-2)


def test_the_weakest_phase_is_never_above_the_mean():
    """Pure noise on an even profile: at most 1, at least where its interval ends."""
    for seed in range(20):
        found, _ = estimate(observe(plant("flat"), 8, seed), seed=seed)
        assert found["weakest"].high <= 1
        assert found["weakest"].low < found["weakest"].high


@pytest.mark.parametrize("samples", [4, 8, 16])
@pytest.mark.parametrize("truth", ["flat", "3/2", "stem"])
@pytest.mark.parametrize("expected", [None, "right", "wrong"])
def test_intervals_cover_planted_truths_and_are_narrow(truth, samples, expected):
    """In 30 repetitions, at least 24 intervals hold the truth; their half width is below 0.06."""
    planted = plant(truth)
    structure = {None: None, "right": planted, "wrong": plant("stem")}[expected]
    if expected == "wrong" and truth == "stem":
        structure = plant("3/2")
    hits, halves, values = [], [], []
    for seed in range(30):
        weakest = estimate(observe(planted, samples, seed), structure, seed)[0]["weakest"]
        hits.append(weakest.low <= planted.min() + 1e-9 and planted.min() - 1e-9 <= weakest.high)
        halves.append((weakest.high - weakest.low) / 2)
        values.append(weakest.value)
    assert sum(hits) >= 24
    assert np.median(halves) < 0.06
    assert np.mean(values) == pytest.approx(planted.min(), abs=0.015)


def test_one_phase_that_no_period_explains_is_found():
    """A lone phase at 0.3, and one that gets nothing, among 1,024."""
    lone = np.ones((32, 32))
    lone[5, 9] = 0.3
    found, posterior = estimate(observe(lone / lone.mean(), 16, 0))
    assert found["weakest"].low < 0.3 < found["weakest"].high
    assert np.unravel_index(posterior.draws.mean(0).argmin(), (32, 32)) == (5, 9)
    lone[5, 9] = 0.0
    found, _ = estimate(observe(lone / lone.mean(), 4, 0))
    assert found["weakest"].value == 0
    assert found["ratio"].value is None


def test_a_structure_that_the_samples_contradict_is_said_to_be():
    """Even samples contradict an uneven structure, and samples of that structure do not."""
    assert estimate(observe(plant("flat"), 16, 0), plant("3/2"))[1].contradicted
    assert not estimate(observe(plant("3/2"), 16, 0), plant("3/2"))[1].contradicted


def test_two_models_are_told_apart_at_the_default_number_of_samples():
    """0.5 and 0.6 differ at 16 samples in each of 20 pairs; equal ones in at most one."""

    def profile(weakest):
        return np.where(np.indices((32, 32)).sum(0) % 2 == 0, weakest, 2 - weakest)

    apart = same = 0
    for seed in range(20):
        draws = [
            estimate(observe(profile(value), 16, seed), None, seed + k)[0]["weakest"].draws
            for k, value in ((100, 0.5), (200, 0.6), (300, 0.6))
        ]
        apart += bool(np.quantile(draws[1] - draws[0], 0.025) > 0)
        low, high = np.quantile(draws[2] - draws[1], [0.025, 0.975])
        same += not low <= 0 <= high
    assert apart == 20
    assert same <= 2


def test_the_same_samples_give_the_same_draws_and_another_model_others():
    """Bit for bit; float noise does not change them beyond itself, other samples do."""
    profiles = observe(plant("3/2"), 8, 0)
    one, again = (estimate(profiles, None, 3)[1].draws for _ in range(2))
    np.testing.assert_array_equal(one, again)
    noisy = estimate(profiles * (1 + 1e-9), None, 3)[1].draws
    np.testing.assert_allclose(noisy, one, rtol=1e-6)
    other = estimate(observe(plant("3/2"), 8, 1), None, 3)[1].draws
    assert np.abs(other - one).max() > 0.01
