"""Ranks of a whole board: literal Holm, family-wise error of equal models, power, exact values."""

import numpy as np
import pytest
from scipy.stats import t as student

from perimetry.bench.statistics import ranks
from perimetry.bench.statistics.ranks import Rank, Ranked, better_pairs, rank_rows
from perimetry.suites.measuring.bootstrap import bootstrap
from perimetry.suites.measuring.profile_posterior import phase_estimates, profile_posterior


def normal(value, error, seed, group=""):
    rng = np.random.default_rng(seed)
    return Ranked(value, value + error * rng.standard_normal(200), group=group)


def test_the_pairs_that_differ_are_those_of_holms_steps():
    """Four rows with known errors: p-values in order against 5 % over what is left, by hand."""
    values, error = [0.9, 0.6, 0.58, 0.3], 0.05
    rows = [Ranked(v, error=error, group=str(k)) for k, v in enumerate(values)]
    found = {
        pair for better, worse in better_pairs(rows) for pair in zip(better, worse, strict=True)
    }
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    p = {}
    draws = [np.random.default_rng([2, k]).standard_normal(200) for k in range(4)]
    draws = [error * (d - d.mean()) / d.std(ddof=1) for d in draws]
    for i, j in pairs:
        p[i, j] = 2 * student.sf(
            abs(values[i] - values[j]) / np.std(draws[i] - draws[j], ddof=1), 999
        )
    left, literal = len(pairs), set()
    for pair in sorted(pairs, key=p.get):
        if p[pair] > 0.05 / left:
            break
        literal.add(pair)
        left -= 1
    assert found == literal
    assert (1, 2) not in literal
    assert [str(r) for r in rank_rows(rows)] == ["1", "2 to 3", "2 to 3", "4"]


def test_equal_models_share_one_rank_on_95_of_100_boards():
    """Twelve equal models of independent noise: at most 5 boards of 100 show two ranks."""
    several = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        rows = []
        for _ in range(12):
            samples = rng.normal(0.55, 0.1, 16)
            weights = bootstrap(16, 200, seed).weights
            rows.append(Ranked(samples.mean(), weights[1:] @ samples, samples=16))
        several += len({str(r) for r in rank_rows(rows)}) > 1
    assert several <= 8  # 5 % is expected at most; 8 of 100 is its 97 % quantile


def planted(weakest, seed, samples=16):
    """The headline number of noisy profiles with a known smallest phase."""
    truth = np.where(np.indices((16, 16)).sum(0) % 2 == 0, weakest, 2 - weakest)
    rng = np.random.default_rng(seed)
    profiles = truth * rng.standard_gamma(8, (samples, 16, 16)) / 8
    profiles /= profiles.mean((1, 2), keepdims=True)
    resamples = bootstrap(samples, 200, 0)
    posterior = profile_posterior(profiles, resamples)
    found = phase_estimates(posterior, resamples)["weakest"]
    return Ranked(found.value, found.draws, samples=samples, group=str(seed))


def test_a_planted_order_is_found_at_the_default_number_of_samples():
    """0.5, 0.6 and 0.7 at 16 samples: ranks 3, 2, 1 on 19 of 20 boards at least."""
    right = 0
    for seed in range(20):
        rows = [planted(w, 100 * seed + k) for k, w in enumerate((0.5, 0.6, 0.7))]
        right += [str(r) for r in rank_rows(rows)] == ["3", "2", "1"]
    assert right >= 19


def test_boards_of_equal_planted_models_show_one_rank():
    """Twelve models of true 0.55 by the headline estimator: at most 2 of 15 boards show two."""
    several = 0
    for seed in range(15):
        rows = [planted(0.55, 1000 * seed + k) for k in range(12)]
        several += len({str(r) for r in rank_rows(rows)}) > 1
    assert several <= 2


def test_exact_values_tie_within_their_printed_digits():
    """The exact values 0.5801 and 0.5804 print alike and tie; 0.579 does not."""
    found = rank_rows([Ranked(0.5801), Ranked(0.5804), Ranked(0.579)])
    assert found == [Rank(1, 2), Rank(1, 2), Rank(3, 3)]


def test_paired_draws_tell_apart_what_independent_ones_do_not():
    """Two rows of one group whose common noise is large and whose difference is not."""
    noise = np.random.default_rng(0).normal(0, 0.1, 200)
    small = np.random.default_rng(1).normal(0, 0.001, 200)
    first = Ranked(0.60, 0.60 + noise, group="same")
    together = rank_rows([first, Ranked(0.55, 0.55 + noise + small, group="same")])
    apart = rank_rows([first, Ranked(0.55, 0.55 + noise + small, group="other")])
    assert [str(r) for r in together] == ["1", "2"]
    assert [str(r) for r in apart] == ["1 to 2", "1 to 2"]


def test_one_function_in_two_runtimes_shares_a_rank():
    """Draws that differ by float noise alone, all in one direction, show no difference."""
    rng = np.random.default_rng(0)
    draws = rng.normal(0.5, 0.05, 200)
    noise = 1e-7 * (1 + 0.1 * rng.normal(size=200))
    one = Ranked(0.5, draws, samples=16, group="same")
    other = Ranked(0.5 + 1e-7, draws + noise, samples=16, group="same")
    assert rank_rows([one, other]) == [Rank(1, 2), Rank(1, 2)]
    apart = Ranked(0.501, draws + 0.001 + 1e4 * (noise - 1e-7), samples=16, group="same")
    assert rank_rows([one, apart]) == [Rank(2, 2), Rank(1, 1)]


def test_an_estimate_without_an_error_is_told_from_nothing():
    """Its rank is the whole board; the others' ranks allow for it."""
    found = rank_rows([normal(0.9, 0.01, 0), Ranked(0.5, error=None), normal(0.1, 0.01, 1)])
    assert [str(r) for r in found] == ["1 to 2", "1 to 3", "2 to 3"]


@pytest.mark.parametrize("count", [0, 1])
def test_small_boards_have_ranks_too(count):
    """A board of no rows has no ranks, and a single row is the first."""
    assert rank_rows([Ranked(0.3)] * count) == [Rank(1, 1)] * count


def test_many_rows_are_compared_in_parts_and_alike(monkeypatch):
    """Pairs that are compared a few rows at a time, and computed again in each step, rank alike."""
    rng = np.random.default_rng(4)
    shared = rng.standard_normal(200)
    rows = [
        Ranked(v, v + rng.choice([0.001, 0.05]) * (shared + rng.standard_normal(200)), samples=n)
        for v, n in zip(rng.random(40), rng.choice([8, 16], 40), strict=True)
    ]
    rows += [Ranked(0.5), Ranked(0.2, error=None), Ranked(0.7, error=0.02, group="own")]
    whole = rank_rows(rows)
    assert len({str(rank) for rank in whole}) > 10
    monkeypatch.setattr(ranks, "AT_ONCE", 100)
    monkeypatch.setattr(ranks, "REMEMBERED", 0)
    assert rank_rows(rows) == whole
