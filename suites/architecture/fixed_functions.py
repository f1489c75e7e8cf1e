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

What random weights end. Let F = B W A, with fixed A and B and weights w[o, c, t] for the output
channel o, input channel c and tap t, independent, zero-mean and the same at all positions. A
derivative is a sum over paths, and E of its square a sum over pairs of paths that have the same
weight. Two paths from one unit to another with the same o, c and t differ in their place only: A
gives the unit to two places of one channel, and B reads two places as far apart of one channel. So
units that share one in several *channels* of one place (`Sharing.channels`) are independent behind
such weights; those in several *places* (`Sharing.places`) are not. Weights of positions, or of
channels that were folded into the batch, are shared over channels: they leave both. Elementwise
functions leave both, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...adapters.torch_calls import each_axis
from .calls import Call
from .chains import (
    Amplitude,
    Chain,
    Parts,
    Sample,
    Sharing,
    axis_of_channels,
    beginning,
    channel_axis,
    has_chain,
    mark_chain,
)
from .compact import alias, annotate
from .fixed_steps import amplitude_of, step_of
from .mixtures import (
    ATTENTION,
    CHOOSE_ONE,
    CHOOSING,
    CONCATENATIONS,
    FILTERS,
    JOINS,
    KEEPS,
    MAXIMA_OF_UNITS,
    MEANS,
    PRODUCTS,
    REORDERINGS,
    SCALES,
    SUMS,
    UNIT_BY_UNIT,
    argument,
    summed_axes,
)
from .parts import joined_roots, parts_after
from .places import (
    ANYWHERE,
    Root,
    Roots,
    Ways,
    all_over,
    all_places,
    all_ways,
    chosen,
    in_a_row,
    within,
    without,
)
from .rule_table import LIKE_ANOTHER, MOVES, is_energy, is_weight

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


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
    if name in ATTENTION:  # its weights are constants, whatever the queries and keys are
        value = argument(args, kwargs, 2, "value")
        inputs = [t for t in inputs if t is value]
    if not inputs:
        return out, None
    call = _Followed(name, func, args, kwargs, inputs, f"{name!r}{where}", padded)
    if name == "setitem":
        x = args[0]
        mark_chain(x, call.written(x))
        return out, None
    if isinstance(out, Tensor):
        return call.followed(out) if is_energy(out) else (out, None)
    for place, piece in enumerate(out if isinstance(out, list | tuple) else ()):
        if isinstance(piece, Tensor) and is_energy(piece):
            replace(call, place=place).followed(piece)
    return out, None


@dataclass(frozen=True)
class _Followed(Call):
    """A call whose result gets a chain."""

    def followed(self, out: Tensor) -> tuple[Tensor, str | None]:
        """`out`, exact where it was not, with its chain; and the pair."""
        chain, pair, reads = self.continued(out), None, self.reads
        if reads:
            exact = None
            if chain is not None:
                alone = len(self.inputs) == 1 and self.name != "fold"
                exact = out if alone and not chain.mixture.units else chain.energy(out)
            if exact is None:
                chain = None
            elif exact is not out:
                out = annotate(exact, out)
            before = self.counted(self.shared if chain is None else chain.behind)
            if before or (chain is None and len(self.inputs) > 1):
                pair = f"{self.own} behind {before or 'a function of the same units'}"
        if any(out is t for t in self.inputs):
            out = annotate(alias(out), out)
        chain = self.beginning(out) if chain is None else self.with_sharing(chain, out)
        mark_chain(out, chain)
        return out, pair

    def written(self, x: Tensor) -> Chain:
        """The chain of `x`, into which a value was written."""
        changed = any(t is x for t in self.inputs) and not has_chain(x)
        chain = None if changed else self.continued(x)
        if chain is None:
            return self.beginning(annotate(alias(x), x))
        return self.with_sharing(chain, x)

    def with_sharing(self, chain: Chain, out: Tensor) -> Chain:
        """The `chain` that was continued to the result, with what its units share, and its roots.

        A move that makes places of channels makes both of what either shares.
        """
        axis, mixture, behind = axis_of_channels(chain, out), chain.mixture, chain.behind
        whole = axis and self.channels and out.shape[axis] == self.inputs[0].shape[self.channels]
        if self.name in MOVES - CHOOSING and not whole:
            mixture, behind = mixture.of_either(), behind.of_either()
        mixture = self.sharing(mixture, out)
        roots, parts = self.roots(out), self.parts(out)
        return replace(chain, mixture=mixture, behind=behind, roots=roots, parts=parts)

    def beginning(self, out: Tensor) -> Chain:
        """A chain that begins with the result, and knows what it is behind.

        Weights that are shared over positions, and activations of neighbours, leave in common what
        units share: they end a chain, but not what it is behind. Weights of their own for each
        channel leave only what units of several places share. A function that may move channels to
        another axis makes places of them.
        """
        shared = self.shared
        if self._weighs_channels:
            shared = replace(shared, channels=None)
        elif not self._keeps_channels(out):
            shared = shared.of_either()
        of_channels = self.name in MEANS and summed_axes(self.args, self.kwargs) == (self.channels,)
        passes = self.is_fixed or self.name in CHOOSE_ONE
        kept = self.name in KEEPS and passes and not of_channels  # even over the places
        roots, parts = (self.roots(out), self.parts(out)) if kept else ({}, None)
        return beginning(out, self.sharing(shared, out), roots, parts)

    @property
    def _weighs_channels(self) -> bool:
        """Whether these are random weights, independent for each channel of the input."""
        last = self.inputs[0].ndim - 1
        axis = {"linear": last, "matmul": last, **dict.fromkeys(FILTERS, 1)}
        weight = argument(self.args, self.kwargs, 1, "weight")
        return 0 < self.channels == axis.get(self.name) and is_weight(weight)

    def _keeps_channels(self, out: Tensor) -> bool:
        """Whether each channel of the result comes from one of the input, on the same axis."""
        if self.name in JOINS:
            return self.name != "stack" and out.ndim == self.inputs[0].ndim
        if self.name in CHOOSING and out.ndim == self.inputs[0].ndim:
            return None not in chosen(self.inputs[0], self._chosen)
        same = out.shape[: self.channels + 1] == self.inputs[0].shape[: self.channels + 1]
        moved = self.name in MOVES | MEANS | PRODUCTS | {"fold"}
        return out.ndim == self.inputs[0].ndim and same and not moved

    def parts(self, out: Tensor) -> Parts | None:
        """The parts of the result along an axis along which tensors are stacked."""
        call = (self.name, self.args, self.kwargs, self.inputs)
        return parts_after(*call, out, self.shared, self.channels)

    def roots(self, out: Tensor) -> Roots:
        """The tensors that the result comes from by moves, factors and sums, and the places."""
        if self.summed is not None:
            return joined_roots(self.summed, known=out.ndim < self.inputs[0].ndim)
        roots = {key: root for placed in self.placed for key, root in placed.items()}
        if self.name in REORDERINGS and not self.shared.units:
            under = {key: u for r in roots.values() for key, u in r.under.items()}
            under |= {key: (root.tensor, root.ways) for key, root in roots.items()}
            return {id(out): Root(out, (all_places(out),), under)}
        joined = self._placing(out)
        ways = {key: [p[key].ways if key in p else () for p in self.placed] for key in roots}
        return {
            key: replace(root, ways=all_ways([joined(ways[key])])) for key, root in roots.items()
        }

    def _placing(self, out: Tensor) -> Callable[[Sequence[Ways]], Ways]:
        """From the ways of each input from a root, none if it is no root of it, to the result's."""
        if self.name in CONCATENATIONS:
            axis = argument(self.args, self.kwargs, 1, "dim") or 0
            sizes = [t.shape[axis] for t in self.inputs]
            whole = sum(sizes) == out.shape[axis]  # no constants among the parts
            if not whole:
                return _anywhere
            return lambda parts: tuple(
                in_a_row(each, sizes, axis % out.ndim) for each in zip_longest(*parts)
            )
        if self.name in CHOOSING:
            taken = chosen(self.inputs[0], self._chosen)
            return lambda parts: tuple(within(places, taken) for places in parts[0])
        if self.name == "setitem":
            return lambda parts: reduce(all_over, [p for p in parts if p])
        blurred = self._blurred(out)
        if blurred is not None:
            return lambda parts: tuple(without(places, blurred) for places in parts[0])
        by_unit = self.name in UNIT_BY_UNIT | MAXIMA_OF_UNITS
        if by_unit and all(t.shape == out.shape for t in self.inputs):
            return all_ways
        return _anywhere

    def _blurred(self, out: Tensor) -> Sequence[int] | None:
        """The axes of one input along which a sum or copies leave no places; None if not known.

        Windows leave none but the channel.
        """
        have, give = self.inputs[0].shape, out.shape
        if len(self.inputs) > 1 or len(have) != len(give):
            return None
        if self.is_spatial and self.name != "pad":
            return range(2, out.ndim) if have[:2] == give[:2] else None
        if self.name in MEANS:
            return summed_axes(self.args, self.kwargs)
        pairs = enumerate(zip(have, give, strict=True))
        copied = [axis for axis, (before, after) in pairs if before != after]
        return copied if self.name in {"expand", "expand_as"} else None

    @property
    def _rolls_channels(self) -> bool:
        """Whether channels are moved to other channels by a number of them."""
        axes = argument(self.args, self.kwargs, 2, "dims") if self.name == "roll" else None
        ndim = self.inputs[0].ndim
        return axes is not None and self.channels in {a % ndim for a in each_axis(axes, 1)}

    def _chosen(self, numbers: Tensor) -> Tensor:
        """What this choice gives of other numbers."""
        found: Any = self.func(numbers, *self.args[1:], **self.kwargs)
        chosen: Tensor = found if self.place is None else found[self.place]
        return chosen

    def continued(self, out: Tensor) -> Chain | None:
        """The inputs' chain, of one origin, behind this function; None if it is not known."""
        first, *others = self.chains
        if not out.ndim or not all(t.ndim for t in self.inputs):
            return None  # a single number has no axis of images
        if self._rolls_channels:
            return None  # by as many as a sample has it would seem to do nothing
        if not self.is_fixed or any(c.origin is not first.origin for c in others):
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
            mixture=reduce(Sharing.or_else, (c.mixture for c in self.chains)),
            windows=windows or any(c.windows for c in self.chains),
        )


def _anywhere(_: Sequence[Ways]) -> Ways:
    return (ANYWHERE,)


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
