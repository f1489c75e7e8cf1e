"""The posterior of a phase profile: exact answers, literal projections, planted truths."""

import numpy as np
import pytest
from scipy.stats import f as fisher

from perimetry.suites.measuring.bootstrap import bootstrap
from perimetry.suites.measuring.profile_components import AMPLITUDES, Component, subspaces
from perimetry.suites.measuring.profile_lone import find_lone
from perimetry.suites.measuring.profile_posterior import phase_estimates, profile_posterior

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
    """In 30 repetitions at least 26 intervals hold the truth; they are narrow from 8 samples on."""
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
    assert sum(hits) >= 26
    assert np.median(halves) < (0.06 if samples > 4 else 0.12)
    assert np.mean(values) == pytest.approx(planted.min(), abs=0.015)


def one_weak(size, value=0.4):
    profile = np.ones((size, size))
    profile[1, 1] = value
    return profile / profile.mean()


def graded(size):
    axis = 1 - 0.3 * np.cos(2 * np.pi * np.arange(size) / size)
    return np.outer(axis, axis) / np.outer(axis, axis).mean()


@pytest.mark.parametrize(
    ("truth", "samples", "seeds"),
    [
        (one_weak(4), 8, 60),
        (one_weak(4), 64, 60),
        (one_weak(16, 0.3), 16, 30),
        (graded(4), 8, 60),
        (graded(32), 16, 30),
    ],
)
def test_intervals_cover_lone_weak_phases_and_near_ties(truth, samples, seeds):
    """At least 88 % of the intervals of `weakest`, `ratio` and `imbalance` hold the truth."""
    truths = {
        "weakest": truth.min(),
        "ratio": truth.max() / truth.min(),
        "imbalance": truth.std(),
    }
    hits = dict.fromkeys(truths, 0)
    for seed in range(seeds):
        rng = np.random.default_rng([seed, samples])
        profiles = truth * rng.standard_gamma(13.5, (samples, *truth.shape)) / 13.5
        found, _ = estimate(profiles / profiles.mean((1, 2), keepdims=True), seed=seed)
        for name, value in truths.items():
            hits[name] += found[name].low <= value <= found[name].high
    assert min(hits.values()) >= 0.88 * seeds, hits


def test_a_components_likelihood_is_fishers_law_of_its_length():
    """Up to a constant, the log density of q / v over 1 + t / v, by scipy, at every signal."""
    values = 0.02 + 0.1 * np.random.default_rng(0).standard_normal((12, 5))
    component = Component(values, 5, 5)
    mean = values.mean(0)
    v = sum(((row - mean) ** 2).sum() for row in values) / 11 / 12
    k, m = component.freedom, component.freedom * 11
    signals = [0.0, *(a**2 * 5 for a in AMPLITUDES)]
    literal = [
        fisher.logpdf((mean**2).sum() / v / (1 + t / v), k, m) - np.log(1 + t / v) for t in signals
    ]
    found = component.log_likelihoods()[0]
    np.testing.assert_allclose(found - found[0], np.array(literal) - literal[0], atol=1e-9)


def test_the_draws_of_a_component_have_its_posterior_mean_and_variance():
    """With a signal of known size the draws have mean f times the mean and variance f v / d."""
    rng = np.random.default_rng(0)
    values = 0.3 + 0.5 * rng.standard_normal((40, 6))
    component, count = Component(values, 6, 6), 20_000
    weights = np.zeros((1, len(AMPLITUDES) + 1))
    weights[0, 11] = 1
    component.draw(weights, np.zeros(count, int), rng)
    signal = AMPLITUDES[10] ** 2 * 6
    f = signal / (signal + component.noise)
    assert f < 0.4  # not clear: no draw keeps it whole
    drawn = component.drawn(bootstrap(40, count, 0).deviations, rng.standard_normal((count, 6)))
    np.testing.assert_allclose(drawn.mean(0), f * values.mean(0), atol=0.02)
    assert drawn.var(0).sum() == pytest.approx(f * component.noise, rel=0.1)


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
    lone, _ = find_lone(observe(truth, 16, 0))
    (certain,) = (one for one in lone if one.certain)
    expected = np.zeros((16, 16), bool)
    expected[1::4, 1::4] = True
    np.testing.assert_array_equal(certain.places, expected)


@pytest.mark.parametrize("positive", [False, True])
def test_an_interval_holds_the_quantiles_and_these_mirrored_at_the_value(positive):
    """Draws that lie below the value reach as far above it, in the logarithm if it is positive."""
    draws = np.linspace(1.0, 2.0, 201)
    found = bootstrap(8, 201, 0).from_draws(1.9, draws, positive=positive)
    low, high = np.quantile(draws, [0.025, 0.975])
    mirrored = 1.9 * 1.9 / low if positive else 2 * 1.9 - low
    assert high < mirrored
    assert (found.value, found.low) == (1.9, pytest.approx(low))
    assert found.high == pytest.approx(mirrored)


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
