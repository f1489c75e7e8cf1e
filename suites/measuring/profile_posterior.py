"""What samples show of a phase profile: draws from its posterior, without the noise.

The P x Q phases of a profile are noisy, and the smallest of 1,024 noisy means is too small. But a
network's profile has little freedom: it is close to what the architecture implies, times a factor
for each row and one for each column, each a sum over the nested periods 2, 4, 8, ..., and what is
left of such products is small, but for single phases. This module estimates such a profile by
empirical Bayes:

    A = B r c' (1 + e),   r and c rows and columns, e the rest, all of mean 1, 1 and 0.

B, the base (`profile_base`)
    The structure's profile S to a power: S itself, up to a small error of the power (a normal prior
    of standard deviation `POWER_ERROR` about 1), or 1 where the samples say that the network is
    even, or the power that they show (prior uniform on `POWERS`); whichever of the three is most
    probable. Without a structure B is 1. Where the power is not near 1, the samples contradict the
    structure, and half of the draws are made without it.
Lone phases (`profile_lone`)
    A phase that departs from the product of its row and its column (by medians) far more than the
    others do is lone, with prior probability `LONE` (`LONE_OF_FEW` with fewer than `FEW` samples)
    over the number of phases; so is a class of phases that agree modulo a nested period. Departures
    are taken on the scale of cube roots, where energies are nearly normal; an ordinary one follows
    Student's t of the noise and of the others' spread, a lone one is normal of standard deviation
    `LONE_SIZE`. The variance of a phase, relative to its square, is moderated by that of all. A
    lone phase is scaled to what its row and column imply before r, c and e are estimated, and drawn
    from its own samples afterwards. A phase that is silent in every sample is 0 in every draw.
r, c and e: *components* for each step of the nested periods (`profile_components`)
    Orthogonal projections of the samples' profiles over B, those of e over B r c'. A component of d
    directions, whose mean over n samples has the squared length q, has a signal of squared length t
    that is 0 with probability `ZERO`, or log-uniform on `AMPLITUDES` (as a root mean square over
    phases), plus its part of a roughness that all phases share: a variance that is 0 with
    probability `SMOOTH`, or log-uniform on `ROUGHNESS`. v, the squared length of the mean's noise,
    is known from the samples' own spread: q / v over 1 + t / v follows Fisher's F of k and
    k (n - 1) degrees of freedom, k being the effective number of directions. A draw takes the
    roughness, t and v, and shrinks the mean by f = t / (t + v). What is held back returns as noise
    of variance f (1 - f) v, so that a draw is one of the profiles that the samples leave possible,
    not an average of them.
    Where f is above `CLEAR` half of the draws keep the component whole: signals have heavier tails
    than normal ones. The noise of the mean itself is that of a resample of the samples, so that two
    models on the same images stay paired.
All zero
    The base alone explains the samples with prior probability 1/2, and at most with `CERTAINTY`.

A metric is a function of the profile. Its value is that of the draws' median, phase by phase; its
interval holds the 2.5 % and 97.5 % quantiles of the draws and these mirrored at the value (see
`Bootstrap.from_draws`): the smallest of noisy phases that nearly tie is too small in the median
and, by about as much again, in the draws. As every profile has mean 1, `weakest` is never above 1.
Coverage is measured on planted profiles and pools of real maps in docs/validation.md.

The definitions are ours; empirical Bayes is of Robbins (1956) and Efron and Morris (1973), the
mixture with a point at zero that of Mitchell and Beauchamp (1988), moderated variances are Smyth's
(2004), the cube root is Wilson and Hilferty's (1931).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from ..base import Estimate, missing
from .bootstrap import share_interval
from .phases import WEAKEST_IS_ZERO, imbalance, least_sensitive, ratio
from .profile_base import Base, even_base, structure_base
from .profile_components import Component, draw_factors, subspaces
from .profile_lone import LEAST, balance, find_lone, put_lone

if TYPE_CHECKING:
    from ..base import Array
    from .bootstrap import Bootstrap
    from .profile_components import Subspaces


@dataclass(frozen=True)
class Posterior:
    """Draws of a profile (draws, phase rows, phase columns), each of mean 1.

    `exact` says that the samples agree to rounding: then there is one draw, their mean.
    `contradicted` says that the samples disagree with the structure that was given.
    """

    draws: Array
    exact: bool = False
    contradicted: bool = False

    @cached_property
    def profile(self) -> Array:
        """The median of each phase (phase rows, phase columns), of mean 1: what is published."""
        middle: Array = np.median(self.draws, 0)
        middle /= middle.mean()
        return middle


def profile_posterior(
    profiles: Array, resamples: Bootstrap, expected: Array | None = None
) -> Posterior:
    """Posterior of the mean of `profiles` (samples, phase rows, phase columns), each of mean 1.

    `expected` (phase rows, phase columns) is the structure's profile, None where there is none.
    Two models share the resamples of their images, but not the random numbers that stand for what
    the samples do not show; the same function gives the same numbers, whatever it is called.
    """
    mean = profiles.mean(0)
    if len(profiles) < 2 or _agree(profiles):
        return Posterior(mean[None], exact=len(profiles) > 1)
    rng = np.random.default_rng([len(profiles), _signature(profiles)])
    moves = resamples.deviations
    if expected is None:
        return Posterior(_draw(profiles, even_base(profiles), moves, rng))
    base = structure_base(profiles, expected, len(moves), rng)
    if base.near_structure:
        return Posterior(_draw(profiles, base, moves, rng))
    half = len(moves) // 2
    with_structure = _draw(profiles, base.part(half), moves[:half], rng)
    without = _draw(profiles, even_base(profiles), moves[half:], rng)
    return Posterior(np.concatenate([with_structure, without]), contradicted=True)


def phase_estimates(
    posterior: Posterior, resamples: Bootstrap, cells: int = 1
) -> dict[str, Estimate]:
    """`weakest`, `imbalance` and `ratio` of a profile.

    Each sample shows every phase in `cells` cells. `weakest` is 0 in every draw where a phase is
    silent in all of them: its interval is that of a share of which none was seen.
    """
    found = {}
    for name, read, low, high in (
        ("weakest", least_sensitive, 0.0, 1.0),
        ("imbalance", imbalance, 0.0, None),
        ("ratio", ratio, 1.0, None),
    ):
        value, draws = float(read(posterior.profile)), read(posterior.draws)
        found[name] = (
            resamples.from_draws(value, draws, low=low, high=high, positive=name == "ratio")
            if np.isfinite(value)
            else missing(f"{WEAKEST_IS_ZERO}: the ratio is unbounded")
        )
    if found["weakest"].value == 0 and not least_sensitive(posterior.draws).any():
        high = share_interval(0, resamples.samples * cells)[1]
        found["weakest"] = Estimate(0.0, 0.0, high)
    return found


def _signature(profiles: Array) -> int:
    """A number that differs between models, and not between runs that differ by rounding."""
    coarse = np.floor(profiles[:, 0, 0] * 10).astype(np.int64)
    return crc32(coarse.tobytes())


def _agree(profiles: Array) -> bool:
    """Whether all samples are the same up to rounding."""
    return bool(np.ptp(profiles, axis=0).max() < 1e-9)


def _draw(profiles: Array, base: Base, moves: Array, rng: np.random.Generator) -> Array:
    """Draws (draws, rows, columns); `moves` (draws, samples) are deviations of resamples."""
    count, shape = len(moves), (profiles.shape[1], profiles.shape[2])
    parts = subspaces(shape)
    relative = profiles / base.mean
    lone, relative = find_lone(relative / relative.mean())
    relative = relative / relative.mean()
    row, column = balance(relative.mean(0))
    rows = _line_components((relative / column).mean(2), parts.rows, 1 / shape[1])
    columns = _line_components((relative / row[:, None]).mean(1), parts.columns, 1 / shape[0])
    rest = relative / np.outer(row, column)
    left = _rest_components(rest / rest.mean() - 1, parts)
    draw_factors([c for _, c in (*rows, *columns, *left)], count, rng)
    drawn = base.draws * _line(rows, moves, shape[0], rng)[:, :, None]
    drawn = drawn * _line(columns, moves, shape[1], rng)[:, None, :]
    drawn = drawn * (1 + _rest(left, moves, parts, shape, rng))
    gone = [one.places for one in lone if one.certain]
    ordinary = ~np.any([np.zeros(shape, bool), *gone], axis=0)
    if ordinary.any():
        drawn *= (profiles.mean(0)[ordinary].mean() / drawn[:, ordinary].mean(1))[:, None, None]
    put_lone(drawn, profiles, lone, moves, rng)
    drawn[:, ~profiles.any(0)] = 0.0
    found: Array = np.maximum(drawn, 0.0)
    found /= found.mean((1, 2), keepdims=True)
    return found


_Rest = list[tuple[int, Component]]
"""Components of what rows and columns leave, each with its place in `Subspaces.components`."""


def _rest_components(rest: Array, parts: Subspaces) -> _Rest:
    """Components of `rest` (samples, rows, columns), whose rows and columns are even: of both."""
    every = zip(parts.components(rest), parts.dimensions(), strict=True)
    return [
        (index, Component(values.reshape(len(rest), -1), size, size))
        for index, (values, size) in enumerate(every)
        if size and index % 3 == 2
    ]


def _rest(
    components: _Rest,
    moves: Array,
    parts: Subspaces,
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> Array:
    """Draws (draws, rows, columns) of e."""
    change = np.zeros((len(moves), *shape))
    noise = parts.components(rng.standard_normal(change.shape))
    for index, component in components:
        used = component.factors > 0
        if used.any():
            across = noise[index].reshape(len(moves), -1)
            change += component.drawn(moves, across).reshape(change.shape)
    return change


_Line = list[tuple["Array", Component]]
"""Components of one axis, each with its projection."""


def _line_components(values: Array, projections: list[Array], rough: float) -> _Line:
    """Components of row or column profiles (samples, places); see `Component` for `rough`."""
    values = values / values.mean()
    sizes = [round(np.trace(p)) for p in projections]
    return [
        (p, Component(values @ p.T, size, size * rough))
        for p, size in zip(projections, sizes, strict=True)
        if size
    ]


def _line(line: _Line, moves: Array, places: int, rng: np.random.Generator) -> Array:
    """Draws (draws, places) of the factor of each row or column."""
    noise = rng.standard_normal((len(moves), places))
    changes = (component.drawn(moves, noise @ p.T) for p, component in line)
    factor: Array = 1 + sum(changes, start=np.zeros_like(noise))
    floored: Array = np.maximum(factor, LEAST)
    return floored
