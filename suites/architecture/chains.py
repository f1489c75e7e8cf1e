"""Tensors as fixed linear functions of other tensors; see `fixed_functions`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .compact import compress, pointwise, widen
from .places import Root, Roots, all_places
from .rule_table import history_of
from .squared_coefficients import squared_coefficients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MOST_SCALES = 16
"""Most different sets of factors, of images of one batch, whose coefficients are computed."""


@dataclass(frozen=True, eq=False)
class Amplitude:
    """A fixed linear function of a tensor: `step` of the `parts`, or without it the tensor."""

    step: Callable[[Sequence[Tensor], int], Tensor] | None = None
    parts: tuple[Amplitude, ...] = ()

    def of(self, x: Tensor, entry: int) -> Tensor:
        """The function's value for `x`, with the factors of one `entry` of the batch."""
        return self._value(x, entry, {})

    def _value(self, x: Tensor, entry: int, known: dict[Amplitude, Tensor]) -> Tensor:
        if self.step is None:
            return x
        if self not in known:
            values = [part._value(x, entry, known) for part in self.parts]
            known[self] = self.step(values, entry)
        return known[self]


Sample = tuple[int, Tensor, Tensor]
"""The channels' axis in the origin, and values of two and of three channels."""


@dataclass(frozen=True)
class Sharing:
    """The last functions that gave several units a share of one, in words; None if none did.

    `channels` gave it to units of several channels, as where a tensor is joined to itself;
    `places` to units of several places, as windows that overlap do. A function may be both.
    """

    channels: str | None = None
    places: str | None = None

    @property
    def units(self) -> str | None:
        """Such a function of either kind."""
        return self.channels or self.places

    def of_either(self) -> Sharing:
        """The same where channels and places are no longer distinguished."""
        return Sharing(self.units, self.units)

    def or_else(self, other: Sharing) -> Sharing:
        """These functions, or the `other` ones where there are none."""
        return Sharing(self.channels or other.channels, self.places or other.places)


NOTHING = Sharing()


@dataclass(frozen=True)
class Parts:
    """The slices of a tensor along `axis`, by what each comes from: its `roots`.

    `shared` is what units of the parts share, and `channels` the axis of the channels in each; 0 if
    it is not known.
    """

    axis: int
    roots: tuple[Roots, ...]
    shared: Sharing
    channels: int


@dataclass(frozen=True)
class Chain:
    """A tensor as a fixed linear function of `origin`, times a `factor` (batch,).

    `origin` has the axes (batch, channels, *units) or (batch, *units, channels); the function
    treats all channels alike, as `samples` show. The numbers `varying` (batch,) in it differ
    between entries of the batch; those in the slices `approximate` were computed otherwise, by the
    rules. `mixture` says what units share since the origin, `behind` what they share before it.
    `roots` are tensors that it was moved or summed from, by their ids, and the places in them.
    `windows` says that units were copied to windows that overlap. `parts` are its slices along an
    axis, where each has roots of its own.
    """

    origin: Tensor
    factor: Tensor
    samples: tuple[Sample, ...]
    amplitude: Amplitude = field(default_factory=Amplitude)
    varying: tuple[Tensor, ...] = ()
    approximate: tuple[slice, ...] = ()
    mixture: Sharing = NOTHING
    behind: Sharing = NOTHING
    windows: bool = False
    roots: Roots = field(default_factory=dict)
    parts: Parts | None = None

    @property
    def shared(self) -> Sharing:
        """What units share, since the origin or before it."""
        return self.mixture.or_else(self.behind)

    def energy(self, product: Tensor) -> Tensor | None:
        """The energies that `product`, of the rules alone, approximates; None if out of reach."""
        sets = _sets(self.varying, len(self.origin))
        if len(product) != len(self.origin) or len(sets) > MOST_SCALES:
            return None
        for axis, two, three in self.samples:
            channel = channel_axis(two, three)
            units = [n for d, n in enumerate(product.shape) if d not in (0, channel)]
            small = compress(self.origin, [axis]).movedim(axis, 1)
            outputs = [self._squares(small, axis, channel, units, entries) for entries in sets]
            found = [t for t in outputs if t is not None]
            if len(found) == len(sets):
                order = torch.cat(sets).argsort()
                energies = torch.cat(found)[order].movedim(1, channel)
                return self._exact(widen(energies, product.shape), product)
        return None

    def _squares(
        self, x: Tensor, axis: int, channel: int, units: Sequence[int], entries: Tensor
    ) -> Tensor | None:
        """Energies (entries, channels, *units) of some entries of the origin's energies `x`."""
        entry = int(entries[0])

        def function(t: Tensor) -> Tensor:
            return self.amplitude.of(t, entry).movedim(channel, 1)

        squares = squared_coefficients(function, axis, x.shape[2:], units)
        if squares is None:
            return None
        own = x if len(entries) == len(x) else x[entries]
        inputs = own.flatten(2).flatten(0, 1).to(torch.float64)
        outputs: Tensor = torch.sparse.mm(squares, inputs.T).T.reshape(*own.shape[:2], *units)
        return outputs

    def _exact(self, energies: Tensor, product: Tensor) -> Tensor:
        """`energies` times the squared factor; of entries that are approximate the `product`."""
        shape = (-1, *(1,) * (product.ndim - 1))
        scaled = pointwise(torch.mul, energies, self.factor.view(shape) ** 2)
        if not self.approximate:
            return scaled
        rules = torch.zeros(len(product), dtype=torch.bool)
        for part in self.approximate:
            rules[part] = True
        return pointwise(torch.where, rules.view(shape), product, scaled)

    def scaled(self, amplitude: Tensor) -> Chain | None:
        """The chain times `amplitude` (batch,)."""
        if len(amplitude) != len(self.factor):
            if bool((amplitude != amplitude[0]).any()):
                return None
            amplitude = amplitude[:1]
        return replace(self, factor=self.factor * amplitude)


def _sets(varying: Sequence[Tensor], batch: int) -> list[Tensor]:
    """The entries of a batch, those with equal numbers together."""
    if not varying:
        return [torch.arange(batch)]
    _, which = torch.unique(torch.stack(list(varying)), dim=1, return_inverse=True)
    return [(which == n).nonzero().flatten() for n in range(int(which.max()) + 1)]


def channel_axis(two: Tensor, three: Tensor) -> int:
    """The axis along which values of two and three channels differ; 0 if none fits."""
    if two.ndim != three.ndim:
        return 0
    unlike = [d for d, (a, b) in enumerate(zip(two.shape, three.shape, strict=True)) if a != b]
    if len(unlike) != 1 or 3 * two.shape[unlike[0]] != 2 * three.shape[unlike[0]]:
        return 0
    return unlike[0]


_CHAIN = "chain"


def chain_of(t: Tensor) -> Chain:
    """The chain that ends in `t`; of a tensor without one, `t` itself."""
    found: Chain | None = getattr(t, _CHAIN, None)
    return beginning(t) if found is None else found


def has_chain(t: Tensor) -> bool:
    """Whether a chain that ends in `t` is known."""
    return hasattr(t, _CHAIN)


def mark_chain(t: Tensor, chain: Chain) -> None:
    """Remember the chain that ends in `t`."""
    setattr(t, _CHAIN, chain)


def forget_chain(t: Tensor) -> None:
    """Let go of the chain that ends in `t`."""
    vars(t).pop(_CHAIN, None)


def beginning(
    t: Tensor,
    behind: Sharing = NOTHING,
    roots: Roots | None = None,
    parts: Parts | None = None,
) -> Chain:
    """The chain of `t` alone."""
    zero = torch.zeros((), dtype=torch.float64)
    axes = channel_axes(t)
    shapes = [[1, *t.shape[1:axis], n, *t.shape[axis + 1 :]] for axis in axes for n in (2, 3)]
    values = [zero.expand(shape) for shape in shapes]
    samples = tuple(zip(axes, values[::2], values[1::2], strict=True))
    ones = torch.ones(len(t) if t.ndim else 1, dtype=torch.float64)
    roots = roots or {id(t): Root(t, (all_places(t),))}
    return Chain(t, ones, samples, behind=behind, roots=roots, parts=parts)


def channel_axes(t: Tensor) -> list[int]:
    """The axes that may be the channels': the second or the last, by the units of its map."""
    axes = [1, t.ndim - 1] if t.ndim > 2 else [1] if t.ndim == 2 else []
    found = history_of(t)
    if found is None or len(axes) < 2:
        return axes
    rows, columns = found.grid
    units = {1: t.shape[2:], t.ndim - 1: t.shape[1:-1]}
    known = [a for a in axes if tuple(units[a]) in ((rows, columns), (rows * columns,))]
    return known if len(known) == 1 else axes


def axis_of_channels(chain: Chain, t: Tensor) -> int:
    """The axis of the channels in `t`, at the end of a chain; 0 if it is not known."""
    axes = {channel_axis(two, three) for _, two, three in chain.samples} & {*channel_axes(t)}
    return axes.pop() if len(axes) == 1 else 0


def channels_of_roots(all_roots: Iterable[Roots]) -> int:
    """The axis of the channels in roots; 0 if it is not known, or not the same in all."""
    axes = {tuple(channel_axes(root.tensor)) for roots in all_roots for root in roots.values()}
    known = [axis for each in axes for axis in each]
    return known[0] if len(known) == 1 else 0
