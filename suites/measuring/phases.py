"""Phase profiles: the sensitivity at the P x P positions that a pixel can have in a stride cell.

A pixel's *phase* is (row mod P, column mod P), P the total stride from input to target, per axis.
The *profile* of a map S is S divided by its moving mean over a centred P x P box,
averaged over the interior pixels of each phase, divided by the overall mean. For even P the box is
the mean of the two boxes half a pixel off centre: taps 1/2, 1, ..., 1, 1/2 over P. This removes
slow trends and leaves patterns whose period divides P unchanged.

Pairs are (rows, columns). Profiles have axes (..., phase row, phase column) and mean 1; statistics
of profiles keep the leading axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...adapters.errors import InputError, NotApplicableError

if TYPE_CHECKING:
    from ..base import Array

Pair = tuple[int, int]

MIN_CELLS = 3

WEAKEST_IS_ZERO = "the weakest phase has no sensitivity"

NO_PERIOD_FITS = "no period fits three interior cells"

LARGEST_DEPARTURE = 0.15
"""Largest departure of a map from its period. Slow trends of timm's architectures reach 0.09."""
ADDED = 0.03
"""What twice the period of a map may add. Slow trends of timm's architectures add 0.003."""

MOST_HOLED = 0.5
"""Share of the cells in which pixels are missing; with more it is the network, not a hole."""

REPORTED_PERIODS = (2, 4, 8, 16, 32, 64)
"""The periods p that have a metric `by_period_p`."""


def interior(size: Pair, period: Pair) -> tuple[slice, slice]:
    """The whole P x P cells at least one cell and an eighth of `size` away from each border.

    The slices are empty if `size` is too small.
    """
    rows, columns = (_axis_interior(s, p) for s, p in zip(size, period, strict=True))
    return rows, columns


def interior_cells(size: Pair, period: Pair) -> int:
    """The number of cells of `interior`: a map of `size` shows every phase in as many places."""
    rows, columns = interior(size, period)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    return int(height * width // (period[0] * period[1]))


def _axis_interior(size: int, period: int) -> slice:
    margin = max(period, -(-size // 8))
    start = -(-margin // period) * period
    return slice(start, max(start, (size - margin) // period * period))


def fit_period(size: Pair, period: Pair) -> Pair:
    """The largest divisors of `period` for which three interior cells fit along each axis.

    A divisor is 1 where nothing larger fits; such a map has no phases.
    """
    rows, columns = (_axis_fit(s, p) for s, p in zip(size, period, strict=True))
    return rows, columns


def whole_stride(stride: tuple[float, float]) -> Pair | str:
    """The stride along (rows, columns) in whole pixels, or the reason why there are no phases."""
    rows, columns = (round(s) for s in stride)
    if (rows, columns) == tuple(stride):
        return rows, columns
    given = " x ".join(f"{s:.6g}" for s in stride)
    return f"the stride of the target, {given} pixels, is not a whole number: there are no phases"


def departure(maps: np.ndarray[Any, Any], period: Pair) -> float:
    """How far a map (height, width) is from repeating with `period`, as a share of its mean.

    The root mean square, over interior pixels, of the map over its moving mean less its phase's
    average. Slow trends contribute some hundredths.
    """
    inner, _ = _over_trend(maps, interior((maps.shape[0], maps.shape[1]), period), period)
    cells = inner.reshape(
        inner.shape[0] // period[0], period[0], inner.shape[1] // period[1], period[1]
    )
    return float((cells - cells.mean((0, 2), keepdims=True)).std())


def repeating_stride(
    expected: np.ndarray[Any, Any], stride: tuple[float, float], notes: list[str]
) -> tuple[float, float] | str:
    """`stride` times the smallest power of two with which `expected` repeats, or why it does not.

    `expected` (height, width) is the sensitivity without noise. It repeats with the stride of the
    target, but where a map of larger stride is resized on the way: then with that one's, which
    `notes` says. A period that fits thrice is compared with twice itself: what that adds is no slow
    trend. Holes do not count; see `without_holes`.
    """
    if isinstance(whole_stride(stride), str):
        return stride
    try:
        return _repeating_stride(expected, stride, notes)
    except NotApplicableError as error:  # a hole over the interior
        return str(error)


def _repeating_stride(
    expected: np.ndarray[Any, Any], stride: tuple[float, float], notes: list[str]
) -> tuple[float, float] | str:
    """`repeating_stride` of whole strides. Raises `NotApplicableError` for an interior of 0."""
    size = (expected.shape[0], expected.shape[1])
    rows, columns = (round(s) for s in stride)
    period, twice = (rows, columns), (2 * rows, 2 * columns)
    while (
        fit_period(size, twice) == twice and _added(without_holes(expected, twice), twice) > ADDED
    ):
        period, twice = twice, (2 * twice[0], 2 * twice[1])
    whole = without_holes(expected, period)
    if fit_period(size, period) == period and departure(whole, period) > LARGEST_DEPARTURE:
        return (
            f"the expected sensitivity does not repeat every {period[0]} x {period[1]} pixels, as "
            "after an interpolation of a map of larger stride, or a mask: there are no phases"
        )
    if period != stride:
        notes.append(
            f"the sensitivity repeats every {period} pixels, not every {(rows, columns)}, the "
            "stride of the target: a map of larger stride is resized on the way, or parts masked"
        )
    return period


def without_holes(expected: Array, period: Pair) -> Array:
    """`expected` (height, width) without what a mask leaves out, if that is less than half of it.

    Cells of `period` in which pixels get nothing, although others of their phase do, are replaced
    by the nearest cell without such pixels, not by one at a border, which is read less, if there is
    another.
    """
    rows, columns = (n // p for n, p in zip(expected.shape, period, strict=True))
    inside = np.s_[: rows * period[0], : columns * period[1]]
    cells = expected[inside].reshape(rows, period[0], columns, period[1]).swapaxes(1, 2)
    silent = cells == 0
    holed = (silent & ~silent.all((0, 1))).any((2, 3))
    if not holed.size or not 0 < holed.mean() < MOST_HOLED:
        return expected
    from scipy import ndimage

    source = ~holed
    if source[1:-1, 1:-1].any():
        source[[0, -1]] = source[:, [0, -1]] = False
    nearest = ndimage.distance_transform_edt(~source, return_distances=False, return_indices=True)
    filled = np.where(holed[..., None, None], cells[tuple(nearest)], cells)
    found = expected.copy()
    found[inside] = filled.swapaxes(1, 2).reshape(found[inside].shape)
    return found


def _added(expected: np.ndarray[Any, Any], period: Pair) -> float:
    """Root mean square that the phases of `period` add to those of half of it."""
    profile = phase_profile(expected[None], period)[0]
    half = fold(profile, (period[0] // 2, period[1] // 2))
    return float(np.sqrt(max(profile.var() - half.var(), 0.0)))


def usable_period(size: Pair, stride: tuple[float, float], notes: list[str]) -> Pair | str:
    """The period of the profile of a map of `size`, or the reason why there are no phases.

    A period shorter than `stride` is reported in `notes`.
    """
    whole = whole_stride(stride)
    if isinstance(whole, str):
        return whole
    stride = whole
    period = fit_period(size, stride)
    if period == (1, 1):
        why = "the target has stride 1" if stride == (1, 1) else NO_PERIOD_FITS
        return f"{why}: there are no phases"
    if period != stride:
        notes.append(f"period lowered from {stride} to {period}: too few interior cells")
    return period


def _axis_fit(size: int, period: int) -> int:
    for divisor in range(period, 1, -1):
        inner = _axis_interior(size, divisor)
        if period % divisor == 0 and inner.stop - inner.start >= MIN_CELLS * divisor:
            return divisor
    return 1


def phase_profile(maps: np.ndarray[Any, Any], period: Pair) -> Array:
    """Profiles (samples, phase row, phase column) of `maps` (samples, height, width).

    Interior pixels whose whole neighbourhood is zero carry no information and are left out. Raises
    `InputError` if no interior cell fits, `NotApplicableError` if a map is zero at and around every
    interior pixel of some phase.
    """
    maps = np.asarray(maps, dtype=np.float64)
    rows, columns = interior((maps.shape[-2], maps.shape[-1]), period)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise InputError(
            f"no interior cell of {period} pixels fits in a map of {maps.shape[-2:]}; "
            "lower the period with fit_period"
        )
    ratio, covered = _over_trend(maps, (rows, columns), period)
    count = _sum_cells(covered, period)
    profile = _sum_cells(ratio, period) / np.maximum(count, 1)
    mean: Array = profile.mean((-2, -1), keepdims=True)
    if not (count.all() and mean.all()):
        raise NotApplicableError("the map is zero throughout the interior: it has no phase profile")
    return profile / mean


def phase_pattern(maps: np.ndarray[Any, Any], period: Pair) -> Array:
    """What repeats in `maps` (..., height, width): (..., phase row, phase column), of mean 0.

    The mean over interior cells of the map minus its moving mean; ramps along an axis vanish.
    Raises `InputError` if no interior cell fits.
    """
    rows, columns = interior((maps.shape[-2], maps.shape[-1]), period)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise InputError(f"no interior cell of {period} units fits in a map of {maps.shape[-2:]}")
    vertical = _box(maps.shape[-2], rows, period[0])
    horizontal = _box(maps.shape[-1], columns, period[1])
    rest = maps[..., rows, columns] - vertical @ maps @ horizontal.T
    cells = rest.reshape(
        *rest.shape[:-2],
        rest.shape[-2] // period[0],
        period[0],
        rest.shape[-1] // period[1],
        period[1],
    )
    mean: Array = cells.mean((-4, -2))
    pattern: Array = mean - mean.mean((-2, -1), keepdims=True)
    return pattern


def _over_trend(
    maps: np.ndarray[Any, Any], inside: tuple[slice, slice], period: Pair
) -> tuple[Array, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Interior pixels (..., rows, columns) over their moving mean, and where that is above 0."""
    rows, columns = inside
    vertical = _box(maps.shape[-2], rows, period[0])
    horizontal = _box(maps.shape[-1], columns, period[1])
    trend = vertical @ maps @ horizontal.T
    covered = trend > 0
    inner = maps[..., rows, columns]
    return np.divide(inner, trend, out=np.zeros_like(trend), where=covered), covered


def _box(size: int, inner: slice, period: int) -> Array:
    """The moving mean as a matrix (interior pixels, pixels), which keeps exact zeros exact."""
    distance = np.abs(np.arange(inner.start, inner.stop)[:, None] - np.arange(size)[None])
    weight: Array = np.clip((period + 1) / 2 - distance, 0.0, 1.0)
    return weight / period


def _sum_cells(inner: np.ndarray[Any, Any], period: Pair) -> Array:
    """Sum of (samples, rows, columns) over all cells: (samples, phase row, phase column)."""
    samples, height, width = inner.shape
    cells = inner.reshape(samples, height // period[0], period[0], width // period[1], period[1])
    total: Array = cells.sum((1, 3), dtype=np.float64)
    return total


def least_sensitive(profile: Array) -> Array:
    """Smallest phase of the profile, relative to the mean; 1 if the profile is even."""
    smallest: Array = profile.min((-2, -1))
    return smallest


def imbalance(profile: Array) -> Array:
    """Coefficient of variation over the phases; 0 if the profile is even."""
    spread: Array = profile.std((-2, -1)) / profile.mean((-2, -1))
    return spread


def ratio(profile: Array) -> Array:
    """Largest over smallest phase; 1 if the profile is even, infinite if a phase is 0."""
    smallest = least_sensitive(profile)
    unbounded = np.full_like(smallest, np.inf)
    share: Array = np.divide(profile.max((-2, -1)), smallest, out=unbounded, where=smallest > 0)
    return share


def variance(profile: Array) -> Array:
    """Variance over the phases."""
    found: Array = profile.var((-2, -1))
    return found


def by_period(profile: Array) -> dict[int, Array]:
    """Split the variance of a profile over nested periods, such as 2, 4, 8, ..., P.

    The share of a period is the variance of the profile folded to it, minus that of the previous
    period; the shares sum to the variance. Periods are the chain of divisors by ascending prime
    factors; where the axes differ, a step is named after the larger one.
    """
    shares: dict[int, Array] = {}
    before: Array = np.zeros(())
    for step in nested_periods((profile.shape[-2], profile.shape[-1])):
        total = variance(fold(profile, step))
        shares[max(step)] = shares.get(max(step), 0.0) + total - before
        before = total
    return shares


def nested_periods(period: Pair) -> list[Pair]:
    """Chain of divisors of both axes, one more prime factor at each step: (2, 2), (4, 4), ..."""
    rows, columns = (_chain(p) for p in period)
    steps = max(len(rows), len(columns))
    rows, columns = (c + [c[-1]] * (steps - len(c)) for c in (rows, columns))
    chain = list(zip(rows, columns, strict=True))
    return chain[1:]


def _chain(period: int) -> list[int]:
    chain = [1]
    factor = 2
    while chain[-1] < period:
        if (period // chain[-1]) % factor == 0:
            chain.append(chain[-1] * factor)
        else:
            factor += 1
    return chain


def fold(profile: Array, period: Pair) -> Array:
    """Average the phases of `profile` that agree modulo `period`, a pair of divisors."""
    height, width = profile.shape[-2:]
    cells = profile.reshape(
        *profile.shape[:-2], height // period[0], period[0], width // period[1], period[1]
    )
    folded: Array = cells.mean((-4, -2))
    return folded


def relative_difference(maps: np.ndarray[Any, Any], order: int) -> Array:
    """Mean absolute first or second difference along both axes over the mean (Kim et al. 2023).

    `maps` is (..., height, width), whole, borders included; `order` is 1 (relL1) or 2 (relL2).
    """
    maps = np.asarray(maps, dtype=np.float64)
    vertical, horizontal = (np.abs(np.diff(maps, order, axis)).mean((-2, -1)) for axis in (-2, -1))
    difference: Array = (vertical + horizontal) / 2 / maps.mean((-2, -1))
    return difference


def divide_by_mean(maps: Array) -> Array:
    """Divide `maps` (..., rows, columns) by their means; NaN where a mean is 0."""
    mean = maps.mean((-2, -1), keepdims=True)
    shares: Array = np.divide(maps, mean, out=np.full_like(maps, np.nan), where=mean > 0)
    return shares
