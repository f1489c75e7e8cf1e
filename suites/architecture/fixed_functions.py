"""Fixed linear functions of one tensor, whose amplitudes add before they are squared.

The squared coefficients of two fixed mixtures of units in a row (mean pools, interpolations, fixed
filters, running sums) are not the product of each one's: what a unit passes on by several units
between adds up in amplitude, and so does what a filter reads of several copies of a unit, such as
reflected borders, and what a sum reads of one tensor by two ways, such as x less its mean pool. So
an energy carries a `Chain`: the tensor that it is a fixed function of, and that function. Where the
next mixture or sum reads it, the coefficients of the whole function are squared and applied to that
tensor. Random weights, activations and functions that are not known begin another chain. They do
not end what units share: of two mixtures with such a function between, the squares are multiplied,
and a note says that they are not independent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .chains import (
    Amplitude,
    Chain,
    Channels,
    Root,
    Sample,
    axis_of_channels,
    beginning,
    chain_of,
    channel_axis,
    meet,
    roots_of,
)
from .compact import alias, annotate
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
from .tags import tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

CHOOSING = MOVES & {"chunk", "split", "split_with_sizes", "getitem", "narrow", "index_select"}
"""Moves that may choose channels."""


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
        roots = [roots_of(c, t) for c, t in zip(self.chains, self.inputs, strict=True)]
        return any(
            meet(a[key][1], b[key][1])
            for n, a in enumerate(roots)
            for b in roots[:n]
            for key in a.keys() & b.keys()
        )

    @property
    def reads(self) -> bool:
        """Whether a unit of the result reads several units that may share one."""
        if self.name in SUMS and len(self.inputs) > 1:
            return self.common
        if self.name == "fold" and self.chains[0].amplitude.parts:
            return True
        if self.shared is None or not self._is_fixed or len(self.inputs) > 1:
            return False
        samples = self.chains[0].samples
        if self.name not in MEANS or not samples:
            return mixes(self.name, self.args, self.kwargs)[0]
        axes = summed_axes(self.args, self.kwargs)
        channel, two = channel_axis(*samples[0][1:]), samples[0][1]
        return axes is None or two.shape[channel] > 2 or any(a != channel for a in axes)

    def spreads(self, out: Tensor) -> bool:
        """Whether several units of the result read one."""
        x = self.args[0] if self.args else None
        if len(self.inputs) > 1:
            return self.name in JOINS and self.common
        if not self._is_fixed or (self.name not in PRODUCTS and not isinstance(x, Tensor)):
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
            before = self.shared if chain is None else chain.behind
            if before or (chain is None and len(self.inputs) > 1):
                pair = f"{self.own} behind {before or 'a function of the same units'}"
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
        """A chain that begins with the result, and knows what it is behind.

        Weights that are shared over positions, and activations of neighbours, leave in common what
        units share: they end a chain, but not what it is behind.
        """
        behind = self.shared or (self.own if self.spreads(out) else None)
        roots: dict[int, Root] = {}
        if self.name in KEEPS and self._is_fixed:
            taken = self._taken(out)
            for chain, t in zip(self.chains, self.inputs, strict=True):
                for key, (root, channels) in roots_of(chain, t).items():
                    named = tuple(channels[n] for n in taken) if taken and channels else None
                    roots[key] = (root, named if key not in roots else None)
        return beginning(out, behind=behind, roots=roots)

    @cached_property
    def _is_fixed(self) -> bool:
        """Whether this is no product with another energy, no attention and no random mixture."""
        if len(self.inputs) > 1:
            return self.name in JOINS
        others = [t for t in tensors_in((self.args, self.kwargs)) if not is_energy(t)]
        if self.name in PRODUCTS and any(history_of(t) is not None for t in others):
            return False
        return self.name not in MIXTURES or not any(map(is_weight, others))

    def _taken(self, out: Tensor) -> Channels:
        """The channel of the input that each channel of the result of a move is; None if mixed."""
        x, axis = self.inputs[0], axis_of_channels(self.chains[0])
        if not axis or self.name not in CHOOSING:
            return None
        numbers = torch.arange(x.shape[axis]).view(-1, *(1,) * (x.ndim - 1 - axis)).expand(x.shape)
        found = self.func(numbers, *self.args[1:], **self.kwargs)
        found = found if self.place is None else found[self.place]
        if found.ndim != x.ndim or found.shape != out.shape:
            return None
        line = found.movedim(axis, 0).flatten(1)
        return tuple(line[:, 0].tolist()) if bool((line == line[:, :1]).all()) else None

    def continued(self, out: Tensor) -> Chain | None:
        """The inputs' chain, of one origin, behind this function; None if it is not known."""
        first, *others = self.chains
        if not self._is_fixed or any(c.origin is not first.origin for c in others):
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

        windows = self.name == "unfold" and out.numel() > self.inputs[0].numel()
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
            windows=windows or any(c.windows for c in self.chains),
        )


def _stepped(
    chains: Sequence[Chain], step: Callable[[Sequence[Tensor]], Tensor], out: Tensor
) -> tuple[Sample, ...]:
    """The samples behind `step`, whose result is `out`, that show channels treated alike."""
    samples, batch = [], len(chains[0].origin)
    for axis, *_ in chains[0].samples:
        parts = [s for c in chains for s in c.samples if s[0] == axis]
        if len(parts) < len(chains):
            continue
        try:
            two, three = step([s[1] for s in parts]), step([s[2] for s in parts])
        except (RuntimeError, IndexError, TypeError, ValueError):
            continue
        channel = channel_axis(two, three)
        if channel and two.ndim == out.ndim:
            others = [(two.shape[d], out.shape[d]) for d in range(1, two.ndim) if d != channel]
            if all(n == m or (n, m) == (1, batch) for n, m in others):  # a new axis may come first
                samples.append((axis, two, three))
    return tuple(samples)
