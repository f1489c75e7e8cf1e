"""Fixed linear functions of one tensor, whose amplitudes add before they are squared.

The squared coefficients of two fixed mixtures of units in a row (mean pools, interpolations, fixed
filters, running sums) are not the product of each one's: what a unit passes on by several units
between adds up in amplitude, and so does what a filter reads of several copies of a unit, such as
reflected borders, and what a sum reads of one tensor by two ways, such as x less its mean pool. So
an energy carries a `Chain`: the tensor that it is a fixed function of, and that function. Where the
next mixture or sum reads it, the coefficients of the whole function are squared and applied to that
tensor. Random weights and activations end a chain. Functions that do not end what units share, but
are not known, begin another: only a note can say that the two are not independent.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .compact import alias, annotate, compress, pointwise, widen
from .fixed_steps import amplitude_of, step_of
from .mixtures import (
    JOINS,
    KEEPS,
    MEANS,
    MIXTURES,
    PRODUCTS,
    SCALES,
    SUMS,
    copies,
    mixes,
    summed_axes,
)
from .rule_table import LIKE_ANOTHER, MOVES, history_of, is_energy, is_weight
from .squared_coefficients import squared_coefficients
from .tags import tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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


Channels = tuple[int, ...] | None
"""The channel of a root that each channel of a tensor comes from; None for any of them."""

Root = tuple[Tensor, Channels]


@dataclass(frozen=True)
class Chain:
    """A tensor as a fixed linear function of `origin`, times a `factor` (batch,).

    `origin` has the axes (batch, channels, *units) or (batch, *units, channels); the function
    treats all channels alike, as `samples` show. The numbers `varying` (batch,) in it differ
    between entries of the batch; those in the slices `approximate` were computed otherwise, by the
    rules. `mixture` is the last function since the origin that gave several units a share of one,
    in words; `behind` is such a function before it. `roots` are tensors that the origin comes from,
    by their ids, and which of their channels. `windows` says that units were copied to windows that
    overlap.
    """

    origin: Tensor
    factor: Tensor
    samples: tuple[Sample, ...]
    amplitude: Amplitude = field(default_factory=Amplitude)
    varying: tuple[Tensor, ...] = ()
    approximate: tuple[slice, ...] = ()
    mixture: str | None = None
    behind: str | None = None
    windows: bool = False
    roots: Mapping[int, Root] = field(default_factory=dict)

    @property
    def shared(self) -> str | None:
        """The last function that gave several units a share of one, in words, if any did."""
        return self.mixture or self.behind

    def energy(self, product: Tensor) -> Tensor | None:
        """The energies that `product`, of the rules alone, approximates; None if out of reach."""
        sets = _sets(self.varying, len(self.origin))
        if len(product) != len(self.origin) or len(sets) > MOST_SCALES:
            return None
        for axis, two, three in self.samples:
            channel = _channel_axis(two, three)
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


def _channel_axis(two: Tensor, three: Tensor) -> int:
    """The axis along which values of two and three channels differ; 0 if none fits."""
    if two.ndim != three.ndim:
        return 0
    unlike = [d for d, (a, b) in enumerate(zip(two.shape, three.shape, strict=True)) if a != b]
    if len(unlike) != 1 or 3 * two.shape[unlike[0]] != 2 * three.shape[unlike[0]]:
        return 0
    return unlike[0]


def chain_of(t: Tensor) -> Chain:
    """The chain that ends in `t`; of a tensor without one, `t` itself."""
    found: Chain | None = getattr(t, "chain", None)
    return _beginning(t) if found is None else found


def _beginning(t: Tensor, **options: Any) -> Chain:
    """The chain of `t` alone."""
    zero = torch.zeros((), dtype=torch.float64)
    axes = _channel_axes(t)
    shapes = [[1, *t.shape[1:axis], n, *t.shape[axis + 1 :]] for axis in axes for n in (2, 3)]
    values = [zero.expand(shape) for shape in shapes]
    samples = tuple(zip(axes, values[::2], values[1::2], strict=True))
    return Chain(t, torch.ones(len(t) if t.ndim else 1, dtype=torch.float64), samples, **options)


def _channel_axes(t: Tensor) -> list[int]:
    """The axes that may be the channels': the second or the last, by the units of its map."""
    axes = [1, t.ndim - 1] if t.ndim > 2 else [1] if t.ndim == 2 else []
    found = history_of(t)
    if found is None or len(axes) < 2:
        return axes
    rows, columns = found.grid
    units = {1: t.shape[2:], t.ndim - 1: t.shape[1:-1]}
    known = [a for a in axes if tuple(units[a]) in ((rows, columns), (rows * columns,))]
    return known if len(known) == 1 else axes


def follow(
    func: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    out: Any,
    inputs: Sequence[Tensor],
    where: str,
    padded: slice | None = None,
) -> tuple[Any, str | None]:
    """Note on the result `out` of a function which chain it continues; return it, and a pair.

    `out` is replaced where squares do not multiply, or add. The pair is of two functions, in
    words, whose common coefficients are not known; `where` says in which layer the later one is.
    `inputs` are the energies among the arguments. `padded` is the slice of the batch in which the
    function has another kernel.
    """
    name = func.__name__.strip("_")
    inputs = inputs[:1] if name in LIKE_ANOTHER else inputs
    if not inputs:
        return out, None
    call = _Call(name, func, args, kwargs, inputs, f"{name!r}{where}", padded)
    if name == "setitem":
        x = args[0]
        x.chain = call.written(x)
        return out, None
    if isinstance(out, Tensor):
        return call.followed(out) if is_energy(out) else (out, None)
    for place, piece in enumerate(out if isinstance(out, list | tuple) else ()):
        if isinstance(piece, Tensor) and is_energy(piece):
            replace(call, place=place).followed(piece)
    return out, None


@dataclass(frozen=True)
class _Call:
    """One call of the function `name`, of the energies `inputs`; `own` is the call in words.

    `place` is that of one of several results.
    """

    name: str
    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    inputs: Sequence[Tensor]
    own: str
    padded: slice | None = None
    place: int | None = None

    @cached_property
    def chains(self) -> list[Chain]:
        """What each of the inputs is."""
        return [chain_of(t) for t in self.inputs]

    @cached_property
    def shared(self) -> str | None:
        """The last function, of those before, that gave several units a share of one, if any."""
        return next((found for c in self.chains if (found := c.shared)), None)

    @cached_property
    def common(self) -> bool:
        """Whether several inputs come from one tensor."""
        roots = [_roots(c, t) for c, t in zip(self.chains, self.inputs, strict=True)]
        return any(
            _meet(a[key][1], b[key][1])
            for n, a in enumerate(roots)
            for b in roots[:n]
            for key in a.keys() & b.keys()
        )

    @property
    def reads(self) -> bool:
        """Whether a unit of the result reads several units that may share one."""
        if self.name in SUMS | {"lerp"} and len(self.inputs) > 1:
            return self.common
        if self.name == "fold" and self.chains[0].amplitude.parts:
            return True
        if self.shared is None or len(self.inputs) > 1:
            return False
        samples = self.chains[0].samples
        if self.name not in MEANS or not samples:
            return mixes(self.name, self.args, self.kwargs)[0]
        axes = summed_axes(self.args, self.kwargs)
        channel, two = _channel_axis(*samples[0][1:]), samples[0][1]
        return axes is None or two.shape[channel] > 2 or any(a != channel for a in axes)

    def spreads(self, out: Tensor) -> bool:
        """Whether several units of the result read one."""
        x = self.args[0] if self.args else None
        if len(self.inputs) > 1:
            return self.name in JOINS and self.common
        if self.name not in PRODUCTS and not isinstance(x, Tensor):
            return False
        reads, spreads = mixes(self.name, self.args, self.kwargs)
        if spreads or (reads and self.chains[0].windows):
            return True
        return isinstance(x, Tensor) and copies(self.name, self.args, self.kwargs, x, out)

    def followed(self, out: Tensor) -> tuple[Tensor, str | None]:
        """`out`, exact where it was not, with its chain; and the pair."""
        chain, pair, reads = self.continued(out), None, self.reads
        if reads:
            exact = None
            if chain is not None:
                alone = len(self.inputs) == 1 and self.name != "fold"
                exact = out if alone and not chain.mixture else chain.energy(out)
            if exact is None:
                chain = None
            elif exact is not out:
                out = annotate(exact, out)
            if (chain is None or chain.behind) and (self.shared or len(self.inputs) > 1):
                pair = f"{self.own} behind {self.shared or 'a function of the same units'}"
        if any(out is t for t in self.inputs):
            out = annotate(alias(out), out)
        if chain is None:
            chain = self.beginning(out)
        elif self.spreads(out):
            chain = replace(chain, mixture=self.own)
        out.chain = chain  # type: ignore[attr-defined]
        return out, pair

    def written(self, x: Tensor) -> Chain:
        """The chain of `x`, into which a value was written."""
        changed = any(t is x for t in self.inputs) and not hasattr(x, "chain")
        chain = None if changed else self.continued(x)
        if chain is None:
            return self.beginning(annotate(alias(x), x))
        return replace(chain, mixture=self.own)

    def beginning(self, out: Tensor) -> Chain:
        """A chain that begins with the result, and knows what it is behind."""
        spreads = self.spreads(out)
        if not (spreads or self._keeps()):
            return _beginning(out)
        roots: dict[int, Root] = {}
        taken = self._taken(out) if self.name in MOVES else None
        if self.name not in MEANS and self._is_fixed():
            for chain, t in zip(self.chains, self.inputs, strict=True):
                for key, (root, channels) in _roots(chain, t).items():
                    kept = None if taken is None or channels is None else channels
                    named = kept and taken and tuple(kept[n] for n in taken)
                    roots[key] = (root, named if key not in roots else None)
        return _beginning(out, behind=self.shared or (self.own if spreads else None), roots=roots)

    def _is_fixed(self) -> bool:
        """Whether this is no product with another energy, and no attention."""
        if len(self.inputs) > 1:
            return self.name in JOINS
        others = [t for t in tensors_in((self.args, self.kwargs)) if not is_energy(t)]
        return self.name not in PRODUCTS or all(history_of(t) is None for t in others)

    def _taken(self, out: Tensor) -> Channels:
        """The channel of the input that each channel of the result of a move is; None if mixed."""
        x, axis = self.inputs[0], _axis_of_channels(self.chains[0])
        if not axis or self.name not in CHOOSING:
            return None
        numbers = torch.arange(x.shape[axis]).view(-1, *(1,) * (x.ndim - 1 - axis)).expand(x.shape)
        found = self.func(numbers, *self.args[1:], **self.kwargs)
        found = found if self.place is None else found[self.place]
        if found.ndim != x.ndim or found.shape != out.shape:
            return None
        line = found.movedim(axis, 0).flatten(1)
        return tuple(line[:, 0].tolist()) if bool((line == line[:, :1]).all()) else None

    def _keeps(self) -> bool:
        if self.name in MIXTURES - MEANS:
            tensors = tensors_in((self.args, self.kwargs))
            return len(self.inputs) == 1 and not any(map(is_weight, tensors))
        return self.name in KEEPS

    def continued(self, out: Tensor) -> Chain | None:
        """The inputs' chain, of one origin, behind this function; None if it is not known."""
        first, *others = self.chains
        if any(c.origin is not first.origin for c in others):
            return None
        if not others and self.name in SCALES | SUMS:
            amplitude = amplitude_of(self.name, self.args, out)
            if amplitude is not None:
                return first.scaled(amplitude)
        step = step_of(self.name, self.func, self.args, self.kwargs, self.inputs)
        ratios = [c.factor / first.factor for c in self.chains]
        if step is None or not all(bool(r.isfinite().all()) for r in ratios):
            return None
        uneven = tuple(r for r in ratios if bool((r != r[0]).any()))
        place = self.place

        def scaled(values: Sequence[Tensor], entry: int) -> Tensor:
            terms = [
                v * r[min(entry, len(r) - 1)] if bool((r != 1).any()) else v
                for v, r in zip(values, ratios, strict=True)
            ]
            found: Any = step(terms)
            value: Tensor = found if place is None else found[place]
            return value

        samples = _stepped(self.chains, lambda values: scaled(values, 0), out)
        if not samples:
            return None
        return replace(
            first,
            samples=samples,
            amplitude=Amplitude(scaled, tuple(c.amplitude for c in self.chains)),
            varying=(*(v for c in self.chains for v in c.varying), *uneven),
            approximate=(
                *(part for c in self.chains for part in c.approximate),
                *([self.padded] if self.padded is not None else []),
            ),
            mixture=next((c.mixture for c in self.chains if c.mixture), None),
            windows=self.name == "unfold" or any(c.windows for c in self.chains),
        )


CHOOSING = MOVES & {"chunk", "split", "split_with_sizes", "getitem", "narrow", "index_select"}
"""Moves that may choose channels."""


def _axis_of_channels(chain: Chain) -> int:
    """The axis of the channels in the tensor at the end of a chain; 0 if it is not known."""
    return _channel_axis(*chain.samples[0][1:]) if chain.samples else 0


def _roots(chain: Chain, t: Tensor) -> dict[int, Root]:
    """The tensors that `t`, at the end of `chain`, comes from, by their ids."""
    axis = _axis_of_channels(chain)
    all_of_them = tuple(range(t.shape[axis])) if axis else None
    return {**chain.roots, id(chain.origin): (chain.origin, all_of_them)}


def _meet(a: Channels, b: Channels) -> bool:
    """Whether tensors that come from these channels of one root have one in the same place."""
    if a is None or b is None:
        return True
    if len(a) != len(b):
        return bool(set(a) & set(b))
    return any(m == n for m, n in zip(a, b, strict=True))


def _stepped(
    chains: Sequence[Chain], step: Callable[[Sequence[Tensor]], Tensor], out: Tensor
) -> tuple[Sample, ...]:
    """The samples behind `step`, whose result is `out`, that show channels treated alike."""
    samples = []
    for axis, *_ in chains[0].samples:
        parts = [s for c in chains for s in c.samples if s[0] == axis]
        if len(parts) < len(chains):
            continue
        try:
            two, three = step([s[1] for s in parts]), step([s[2] for s in parts])
        except (RuntimeError, IndexError, TypeError, ValueError):
            continue
        channel = _channel_axis(two, three)
        units = [d for d in range(1, two.ndim) if d != channel]
        if channel and two.ndim == out.ndim and all(two.shape[d] == out.shape[d] for d in units):
            samples.append((axis, two, three))
    return tuple(samples)
