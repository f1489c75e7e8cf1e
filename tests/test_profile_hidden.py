"""What few samples of a profile cannot show is said, and is what they do not show."""

import re

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student

from perimetry.suites.measuring.profile_lone import (
    FEW_SAMPLES,
    LONE,
    LONE_SIZE,
    PooledNoise,
    find_lone,
    hidden,
    prior_of,
    shallowest_lone,
    smallest_roughness,
)

SHAPE = (16, 16)


def observe(truth, samples, seed):
    """Profiles (samples, rows, columns) of mean 1, with gamma noise of a third of each phase."""
    rng = np.random.default_rng([seed, samples])
    profiles = truth * rng.standard_gamma(10, (samples, *truth.shape)) / 10
    return profiles / profiles.mean((1, 2), keepdims=True)


def one_at(value):
    profile = np.ones(SHAPE)
    profile[5, 9] = value
    return profile


def limit(samples):
    noise = PooledNoise.of(observe(np.ones(SHAPE), samples, 0))
    variance = float(np.median(noise.variance)) / samples
    return shallowest_lone(variance, noise.freedom, samples, 256)


def finds_it(profiles):
    found, _ = find_lone(profiles)
    return any(one.certain and one.places[5, 9] and one.places.sum() == 1 for one in found)


@pytest.mark.parametrize("samples", [8, 16, 64])
def test_a_single_phase_at_the_limit_is_found_and_one_far_above_it_is_not(samples):
    """At the limit in at least 34 of 40 repetitions, halfway to even in at most 20."""
    at = limit(samples)
    hits = [
        sum(finds_it(observe(one_at(value), samples, seed)) for seed in range(40))
        for value in (at, (at + 1) / 2)
    ]
    assert hits[0] >= 34
    assert hits[1] <= 20


def test_the_limit_is_where_the_odds_are_even_and_one_normal_quantile_below():
    """Where Student's t and a normal law have equal odds, literally, and 1.645 errors lower."""
    variance, freedom = 0.01, 40.0
    even = next(
        d
        for d in np.linspace(0, 3, 3001)
        if LONE / 256 * norm.pdf(d, 0, np.hypot(LONE_SIZE, 0.1)) / norm.pdf(0)
        > student.pdf(d / 0.1, freedom) / student.pdf(0, freedom) / 0.1
    )
    found = shallowest_lone(variance, freedom, 8, 256)
    assert prior_of(8) == LONE
    assert found == pytest.approx((1 - (even + 1.645 * 0.1) / 3) ** 3, abs=1e-3)


def test_more_samples_hide_less():
    """Both limits shrink; with very noisy samples only a silent phase is found."""
    assert limit(4) < limit(8) < limit(16) < limit(64) < 1
    assert smallest_roughness(0.01, 256) > smallest_roughness(0.01, 1024)
    assert smallest_roughness(0.01, 256) == pytest.approx(2 * smallest_roughness(0.0025, 256))
    assert shallowest_lone(4.0, 7.0, 8, 256) == 0


def test_the_note_stands_with_few_samples_alone():
    """It names both limits; without noise, and where periods explain every phase, there is none."""
    text = hidden(observe(np.ones(SHAPE), 8, 0))
    lone, rough = (float(number) for number in re.findall(r"(\d+\.\d+|\d+) (?:of what|%)", text))
    assert lone == pytest.approx(limit(8), abs=0.01)
    assert 4 <= rough <= 7
    assert hidden(observe(np.ones(SHAPE), FEW_SAMPLES, 0)) is None
    assert hidden(observe(np.ones((2, 2)), 8, 0)) is None
    assert hidden(np.ones((8, *SHAPE))) is None
