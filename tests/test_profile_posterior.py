"""The posterior of a phase profile: exact answers, literal projections, planted truths."""

import numpy as np
import pytest

from perimetry.suites.measuring.bootstrap import bootstrap
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


@pytest.mark.parametrize("samples", [4, 8])
@pytest.mark.parametrize("truth", ["flat", "3/2", "stem"])
@pytest.mark.parametrize("expected", [None, "right", "wrong"])
def test_intervals_cover_planted_truths_and_are_narrow(truth, samples, expected):
    """In 20 repetitions at least 17 intervals hold the truth; they are narrow from 8 samples on."""
    planted = plant(truth)
    structure = {None: None, "right": planted, "wrong": plant("stem")}[expected]
    if expected == "wrong" and truth == "stem":
        structure = plant("3/2")
    hits, halves, values = [], [], []
    for seed in range(20):
        weakest = estimate(observe(planted, samples, seed), structure, seed)[0]["weakest"]
        hits.append(weakest.low <= planted.min() + 1e-9 and planted.min() - 1e-9 <= weakest.high)
        halves.append((weakest.high - weakest.low) / 2)
        values.append(weakest.value)
    assert sum(hits) >= 17
    assert np.median(halves) < (0.06 if samples > 4 else 0.25)
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
        (one_weak(4), 4, 60),
        (one_weak(4), 8, 60),
        (one_weak(4), 64, 60),
        (one_weak(16, 0.3), 16, 30),
        (graded(4), 8, 60),
        (graded(32), 16, 30),
    ],
)
def test_intervals_cover_lone_weak_phases_and_near_ties(truth, samples, seeds):
    """At least 85 % of the intervals of `weakest`, `ratio` and `imbalance` hold the truth."""
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
    assert min(hits.values()) >= 0.85 * seeds, hits


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


def test_an_interval_whose_draws_are_infinite_at_one_end_is_open_there():
    """A ratio to what may be 0 has no largest value; its lower end is the quantile as ever."""
    draws = np.linspace(1.0, 2.0, 201)
    draws[150:] = np.inf
    found = bootstrap(8, 201, 0).from_draws(1.5, draws, low=1.0, positive=True)
    assert (found.low, found.high) == (1.0, None)


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
