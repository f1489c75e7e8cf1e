"""Phase profiles against their literal formula and planted patterns."""

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from validation.nets import linear_resnet50

from perimetry.adapters.errors import InputError, NotApplicableError
from perimetry.suites.measuring import phases

RNG = np.random.default_rng


def tiled(profile, size):
    """A map of `size` that repeats `profile`."""
    return np.tile(profile, (-(-size[0] // len(profile)), -(-size[1] // profile.shape[1])))[
        : size[0], : size[1]
    ]


@pytest.mark.parametrize("period", [(2, 2), (4, 4), (3, 3), (4, 6), (1, 5)])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_profile_is_the_literal_formula(period, seed):
    """The phase profile equals the formula computed pixel by pixel."""
    maps = RNG(seed).random((2, 41, 48)) + 0.1
    fast = phases.phase_profile(maps, period)
    slow = np.stack([reference.phase_profile(m, period) for m in maps])
    np.testing.assert_allclose(fast, slow, rtol=1e-12)


@pytest.mark.parametrize("period", [2, 3, 4, 8, 32])
def test_a_pattern_whose_period_divides_p_is_untouched(period):
    """A periodic map has its own tile, over its mean, as profile."""
    planted = RNG(0).random((period, period)) + 0.1
    measured = phases.phase_profile(tiled(planted, (224, 224))[None], (period, period))[0]
    np.testing.assert_allclose(measured, planted / planted.mean(), rtol=1e-10)


def test_a_linear_slope_leaves_no_imbalance():
    """A linear slope over the image has an imbalance of 0."""
    slope = np.add.outer(np.linspace(1, 3, 96), np.linspace(2, 9, 96))
    assert phases.imbalance(phases.phase_profile(slope[None], (8, 8)))[0] < 1e-12


def test_a_planted_dead_phase_is_reported_as_zero():
    """A phase of zeros gives a least sensitivity of 0 and an infinite ratio."""
    planted = np.ones((4, 4))
    planted[1, 2] = 0
    profile = phases.phase_profile(tiled(planted, (64, 64))[None], (4, 4))
    assert phases.least_sensitive(profile)[0] == 0
    assert np.isinf(phases.ratio(profile)[0])


def test_single_precision_maps_are_summed_in_double():
    """A float32 map has bit by bit the profile of its float64 copy."""
    maps = RNG(0).random((1, 64, 64)).astype(np.float32)
    exact = phases.phase_profile(maps.astype(np.float64), (8, 8))
    np.testing.assert_array_equal(phases.phase_profile(maps, (8, 8)), exact)


def test_a_blind_region_is_left_out_and_does_not_even_out_the_rest():
    """A region of zeros changes the imbalance of the rest by less than 5 %."""
    planted = tiled(np.array([[1.0, 3.0], [1.0, 3.0]]), (64, 64))
    blind = planted.copy()
    blind[20:30, 20:30] = 0
    whole, holed = (
        phases.imbalance(phases.phase_profile(m[None], (2, 2)))[0] for m in (planted, blind)
    )
    assert holed == pytest.approx(whole, rel=0.05)


def test_a_zero_map_has_no_profile():
    """A map of zeros raises NotApplicableError."""
    with pytest.raises(NotApplicableError, match="zero throughout"):
        phases.phase_profile(np.zeros((1, 64, 64)), (4, 4))


def test_a_map_without_interior_cells_is_refused():
    """A period as large as the image is an InputError."""
    with pytest.raises(InputError, match="fit_period"):
        phases.phase_profile(np.ones((1, 32, 32)), (32, 32))


@pytest.mark.parametrize(
    ("size", "period", "expected"),
    [
        (224, 32, 32),
        (160, 32, 32),
        (128, 32, 16),
        (64, 32, 8),
        (112, 14, 14),
        (60, 14, 7),
        (4, 4, 1),
    ],
)
def test_the_period_is_lowered_to_its_largest_divisor_with_three_cells(size, period, expected):
    """The fitted period is the largest divisor for which three interior cells fit."""
    assert phases.fit_period((size, size), (period, period)) == (expected, expected)


@given(st.integers(1, 400), st.sampled_from([1, 2, 3, 7, 8, 14, 16, 30, 32]))
def test_interior_cells_are_whole_and_keep_their_distance(size, period):
    """The interior's rows are those of the whole cells by the literal rule."""
    rows, _ = phases.interior((size, size), (period, period))
    inside = set(range(rows.start, rows.stop))
    literal = {i for i in range(size // period * period) if reference.whole_cell(i, size, period)}
    assert inside == literal


@pytest.mark.parametrize("period", [2, 4, 8, 12, 14, 32])
def test_shares_of_the_periods_sum_to_the_variance_and_match_the_literal_formula(period):
    """The shares by period equal the literal formula and sum to the variance."""
    profile = RNG(period).random((period, period))
    shares = phases.by_period(profile)
    assert sum(shares.values()) == pytest.approx(profile.var(), rel=1e-12)
    before = 1
    for p, share in shares.items():
        assert share == pytest.approx(reference.share_of_period(profile, p, before), abs=1e-14)
        before = p


def test_the_chain_of_periods_adds_one_prime_factor_at_a_time():
    """Each period of the chain has one more prime factor than the one before, smallest first."""
    assert phases.nested_periods((32, 32)) == [(2, 2), (4, 4), (8, 8), (16, 16), (32, 32)]
    assert phases.nested_periods((14, 14)) == [(2, 2), (14, 14)]
    assert phases.nested_periods((12, 2)) == [(2, 2), (4, 2), (12, 2)]
    assert phases.nested_periods((1, 1)) == []


def test_a_pattern_of_period_two_has_all_its_variance_there():
    """A pattern of period 2 has its whole variance at period 2 and none at larger ones."""
    profile = tiled(RNG(0).random((2, 2)), (32, 32))
    shares = phases.by_period(profile)
    assert shares[2] == pytest.approx(profile.var(), rel=1e-12)
    assert max(abs(shares[p]) for p in (4, 8, 16, 32)) < 1e-15


def test_profiles_are_invariant_to_scale_and_to_a_shift_by_one_period():
    """A factor or a shift by one period leaves the profile as it is."""
    maps = RNG(0).random((1, 120, 120)) + 0.1
    base = phases.phase_profile(maps, (6, 6))
    np.testing.assert_allclose(phases.phase_profile(7 * maps, (6, 6)), base, rtol=1e-12)
    cyclic = tiled(RNG(1).random((6, 6)), (120, 120))[None]
    shifted = np.roll(cyclic, 6, 2)
    np.testing.assert_allclose(
        phases.phase_profile(shifted, (6, 6)), phases.phase_profile(cyclic, (6, 6)), rtol=1e-12
    )


@pytest.mark.parametrize("order", [1, 2])
def test_the_relative_difference_is_the_literal_formula(order):
    """The relative difference of each order equals the literal formula."""
    sensitivity = RNG(order).random((9, 13))
    expected = reference.relative_difference(sensitivity, order)
    assert phases.relative_difference(sensitivity, order) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("treated", "first", "second"), [(False, 0.2863, 0.5746), (True, 0.0102, 0.0199)]
)
def test_the_linear_resnet50_has_the_known_relative_differences(treated, first, second):
    """The linear ResNet-50 has its known differences, and is symmetric only when padded."""
    x = torch.ones(1, 1, 224, 224, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(linear_resnet50(treated=treated).double()(x).sum(), x)
    sensitivity = gradient[0, 0].numpy()
    assert round(float(phases.relative_difference(sensitivity, 1)), 4) == first
    assert round(float(phases.relative_difference(sensitivity, 2)), 4) == second
    symmetric = np.allclose(sensitivity, sensitivity[:, ::-1], rtol=1e-9)
    assert symmetric == treated


def test_a_map_departs_from_a_period_that_it_has_not():
    """A tiled map repeats with its own period, up to rounding, and with no other."""
    cell = np.random.default_rng(0).uniform(0.5, 1.5, (4, 4))
    tiled = np.tile(cell, (12, 12))
    assert phases.departure(tiled, (4, 4)) < 1e-12
    assert phases.departure(tiled, (3, 3)) > 0.2
    assert phases.departure(tiled, (4, 3)) > 0.1


def test_a_map_repeats_with_the_smallest_doubling_of_the_stride_that_adds_nothing():
    """A tile of 8 rows by 8 columns: strides 2 and 4 are doubled to 8, 8 stays, and so does 16."""
    rng = np.random.default_rng(0)
    tiled = np.tile(rng.uniform(0.5, 1.5, (8, 8)), (16, 16))
    for stride, repeats in ((2, 8), (4, 8), (8, 8), (16, 16)):
        notes = []
        assert phases.repeating_stride(tiled, (stride, stride), notes) == (repeats, repeats)
        assert bool(notes) is (repeats != stride)
    assert phases.repeating_stride(np.ones((64, 64)), (1, 1), []) == (1, 1)
    assert phases.repeating_stride(tiled, (2.5, 2.5), []) == (2.5, 2.5)


@pytest.mark.parametrize("hole", [np.s_[40:62, 30:52], np.s_[33, :], np.s_[:, 77], np.s_[:9, :9]])
def test_a_hole_does_not_change_the_period(hole):
    """Cells in which pixels are masked are those of their neighbours; a tile comes back exactly."""
    tiled = np.tile(np.random.default_rng(0).uniform(0.2, 1.8, (8, 8)), (14, 14))
    holed = tiled.copy()
    holed[hole] = 0
    assert np.array_equal(phases.without_holes(holed, (8, 8)), tiled)
    for stride in (4, 8):
        assert phases.repeating_stride(holed, (stride, stride), []) == (8, 8)


@pytest.mark.parametrize("hole", [np.s_[5:15, 5:15], np.s_[30:34, 20:40], np.s_[34:48, :30]])
def test_cells_of_a_hole_are_those_of_the_interior(hole):
    """A border that is read half as often is nearer to some of them, and not repeated inside."""
    tiled = np.tile(np.random.default_rng(0).uniform(0.5, 1.5, (4, 4)), (12, 12))
    tiled[-1], tiled[:, -1] = tiled[-1] / 2, tiled[:, -1] / 2
    holed = tiled.copy()
    holed[hole] = 0
    for period in ((4, 4), (8, 8)):
        inner = np.s_[period[0] : -period[0], period[1] : -period[1]]
        found = phases.without_holes(holed, period)
        np.testing.assert_array_equal(found[inner], tiled[inner])
    notes = []
    assert phases.repeating_stride(holed, (4, 4), notes) == (4, 4)
    assert not notes


def test_rows_that_are_dropped_everywhere_are_no_hole():
    """Every fifth row is unread, at a stride of 4, or half of the image: no phases, as before."""
    tiled = np.tile(np.random.default_rng(0).uniform(0.2, 1.8, (4, 4)), (30, 30))
    for dropped in (np.s_[::5], np.s_[:60]):
        holed = tiled.copy()
        holed[dropped] = 0
        assert np.array_equal(phases.without_holes(holed, (4, 4)), holed)
    holed = tiled.copy()
    holed[::5] = 0
    assert "does not repeat every" in phases.repeating_stride(holed, (4, 4), [])
    dead = tiled.copy()
    dead[::2, ::2] = 0  # phases that are dead throughout
    assert np.array_equal(phases.without_holes(dead, (4, 4)), dead)


def test_a_map_that_repeats_with_no_doubling_has_no_phases():
    """A tile of 6 is no doubling of 4: the reason names the period that was tried."""
    tiled = np.tile(np.random.default_rng(0).uniform(0.2, 1.8, (6, 6)), (20, 20))
    assert "does not repeat every" in phases.repeating_stride(tiled, (4, 4), [])
