"""Sums of a tensor and its own mean pool, whose amplitudes add.

Energies of independent terms add. But a x + b P x, where P is a mean over windows at stride 1, is
not a sum of independent terms: each unit is in its own window. With w its weight there, its entry
contributes (a + b w)^2 rather than a^2 + (b w)^2:

    energy = a^2 x + b^2 P(x) + 2 a b w x,    P(x) the energy of the pool

Token mixers without weights of their own (pool less input, Yu et al., "MetaFormer is actually what
you need for vision", 2022) are such sums, as is the residual connection: x + (P x - x) = P x.
Tensors carry a and b through known constant factors and through norms that divide a whole map by
one number. Any other operation ends this: the second of two such blocks in a row treats its input
as independent entries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from .compact import compress, pointwise, widen

if TYPE_CHECKING:
    Amplitude = float | Tensor


@dataclass(frozen=True)
class Pooled:
    """The energy of P x (variants, channels, height, width), and each unit's weight in its window.

    The weights are (1, 1, height, width).
    """

    energy: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Mix:
    """The sum of `own` times x and `pool` times P x; both are numbers or (variants, 1, 1, 1).

    `origin` (variants, channels, height, width) is the energy of x; `pooled` is None before P.
    """

    origin: Tensor
    own: Amplitude = 1.0
    pool: Amplitude = 0.0
    pooled: Pooled | None = None

    def plus(self, other: Mix, sign: float) -> Mix | None:
        """The sum with `sign` times a mix of the same x and P x; None if these differ."""
        pools = {id(m.pooled): m for m in (self, other) if m.pooled is not None}
        if self.origin is not other.origin or len(pools) != 1:
            return None
        own, pool = self.own + sign * other.own, self.pool + sign * other.pool
        return replace(*pools.values(), own=own, pool=pool)

    def energy(self) -> Tensor:
        """Energies of the mix, of the shape of `origin`."""
        x = compress(self.origin, [1])
        energy = self.own**2 * x
        if self.pooled is not None:
            both = 2 * self.own * self.pool * self.pooled.weight * x
            energy = energy + both + self.pool**2 * compress(self.pooled.energy, [1])
        return widen(energy, self.origin.shape)


def mix_of(t: Tensor) -> Mix:
    """The mix that `t` is; a tensor without a known mix is a mix of itself alone."""
    found: Mix | None = getattr(t, "mix", None)
    return found or Mix(t)


def with_mix(t: Tensor, mix: Mix | None) -> Tensor:
    """Set the mix that `t` is; return `t`."""
    t.mix = mix  # type: ignore[attr-defined]
    return t


def scaled_mix(x: Tensor, factor: Amplitude) -> Mix:
    """The mix that `x` is, times a constant amplitude."""
    mix = mix_of(x)
    return replace(mix, own=mix.own * factor, pool=mix.pool * factor)


def pooled_mix(x: Tensor, out: Tensor, weight: Tensor) -> Mix | None:
    """The mix that the mean pool `out` of `x` is; None if `x` already contains a pool."""
    mix = mix_of(x)
    if mix.pooled is not None:
        return None
    own = mix.own
    pooled = Pooled(pointwise(lambda e: e / own**2, out), weight)
    return Mix(mix.origin, own=0.0, pool=own, pooled=pooled)


def add_mixes(a: Tensor, b: Tensor, sign: float) -> Tensor | None:
    """The energy of a + sign b for two mixes of one tensor; None for mixes of different tensors."""
    mix = mix_of(a).plus(mix_of(b), sign)
    return None if mix is None else with_mix(mix.energy(), mix)
