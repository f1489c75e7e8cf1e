"""Components of a profile: literal projections, likelihoods and posterior probabilities."""

import numpy as np
import pytest
from scipy.stats import f as fisher

from perimetry.suites.measuring.bootstrap import bootstrap
from perimetry.suites.measuring.profile_components import (
    AMPLITUDES,
    CERTAINTY,
    ROUGHNESS,
    SMOOTH,
    ZERO,
    Component,
    draw_factors,
    subspaces,
)


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


@pytest.mark.parametrize("signal", [0.0, 0.05, 0.2])
def test_the_base_alone_and_the_roughness_have_their_posterior_probabilities(signal):
    """Bayes' theorem by loops over roughnesses and signals gives the share of draws without any."""
    rng = np.random.default_rng(1)
    values = [signal + 0.2 * rng.standard_normal((12, size)) for size in (3, 8)]
    components = [Component(v, v.shape[1], 0.5 * v.shape[1]) for v in values]
    tables = [np.exp(c.log_likelihoods()) for c in components]
    alone = tables[0][0, 0] * tables[1][0, 0]
    some, zeros = 0.0, 0.0
    for r in range(len(ROUGHNESS)):
        weight = SMOOTH if r == 0 else (1 - SMOOTH) / (len(ROUGHNESS) - 1)
        for table in tables:
            rest = sum(table[r, 1 + k] for k in range(len(AMPLITUDES))) / len(AMPLITUDES)
            weight *= ZERO * table[r, 0] + (1 - ZERO) * rest
        some += weight
        if r == 0:
            zeros = SMOOTH * ZERO**2 * alone
    base = min(alone / (alone + some), CERTAINTY)
    draw_factors(components, 20_000, np.random.default_rng(2))
    nothing = np.all([c.factors == 0 for c in components], axis=0)
    assert nothing.mean() == pytest.approx(base + (1 - base) * zeros / some, abs=0.015)
