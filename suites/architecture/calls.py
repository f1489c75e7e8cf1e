"""One call of a function of energies: what its units share, read and spread."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import combinations, starmap
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .chains import NOTHING, Chain, Parts, Sharing, axis_of_channels, chain_of, channels_of_roots
from .mixtures import (
    ATTENTION,
    CHOOSE_ONE,
    COPIES,
    FILTERS,
    JOINS,
    MAXIMA_OF_UNITS,
    MEANS,
    MIXTURES,
    PRODUCTS,
    PRODUCTS_OF_UNITS,
    QUOTIENTS,
    SPATIAL,
    SUMS,
    copies,
    mixes,
    summed_axes,
)
from .parts import summed_parts
from .places import (
    Places,
    Root,
    Roots,
    chosen,
    common_places,
    in_other_channels,
    meet,
    overlap,
    side_by_side,
    written,
)
from .rule_table import history_of, is_energy, is_weight
from .tags import MAX_PREFIX_TOKENS, tensors_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Call:
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
    def shared(self) -> Sharing:
        """What units of the inputs share."""
        return reduce(Sharing.or_else, (c.shared for c in self.chains), NOTHING)

    @cached_property
    def channels(self) -> int:
        """The axis of the channels in the inputs; 0 if it is not known."""
        axes = {axis_of_channels(c, t) for c, t in zip(self.chains, self.inputs, strict=True)}
        return axes.pop() if len(axes) == 1 else 0

    @cached_property
    def placed(self) -> list[Roots]:
        """What each of the inputs comes from; of a value that is written, where it goes."""
        found = [c.roots for c in self.chains]
        if self.name != "setitem":
            return found
        whole, index, value = self.args
        taken = chosen(whole, lambda numbers: numbers[index])

        def put(root: Root) -> Root:
            return replace(root, ways=tuple(written(p, taken, whole.shape) for p in root.ways))

        return [
            {key: put(root) for key, root in roots.items()} if t is value else roots
            for t, roots in zip(self.inputs, found, strict=True)
        ]

    @cached_property
    def common(self) -> list[tuple[Places, Places]]:
        """The places of pairs of inputs in the tensors that both come from."""
        pairs = combinations(self.placed, 2)
        return [places for pair in pairs for places in common_places(*pair)]

    @cached_property
    def doubled(self) -> list[tuple[Places, Places]]:
        """Those of the common places that hold one unit in both inputs."""
        return [pair for pair in self.common if overlap(*pair)]

    def counted(self, shared: Sharing) -> str | None:
        """What of `shared` counts where a unit of the result reads several units, in words."""
        if self.is_spatial:
            return shared.places
        axes = summed_axes(self.args, self.kwargs) if self.name in MEANS else None
        if not axes or not self.channels or self.summed is not None:
            return shared.units
        kinds = [shared.channels if a == self.channels else shared.places for a in axes]
        return next((kind for kind in kinds if kind), None)

    @cached_property
    def is_spatial(self) -> bool:
        """Whether each channel of the result is made of that of the input alone."""
        if self.name in FILTERS:
            call = FILTERS[self.name](*self.args, **self.kwargs)
            apart = (call.groups, 1) == tuple(call.weight.shape[:2])
            return apart and self.channels == 1
        return self.name in SPATIAL and self.channels == 1

    @cached_property
    def summed(self) -> Parts | None:
        """The parts that are summed, if the call does no more."""
        return summed_parts(self.name, self.args, self.kwargs, self.inputs)

    @property
    def reads(self) -> bool:
        """Whether a unit of the result reads several units that may share one."""
        if self.name in SUMS and len(self.inputs) > 1:
            channels = self.channels or channels_of_roots(self.placed)
            return any(meet(*p) or _is_shared(self.shared, channels, *p) for p in self.common)
        if self.name in PRODUCTS_OF_UNITS | QUOTIENTS and len(self.inputs) > 1:
            return any(starmap(meet, self.common))
        if self.name in FILTERS and len(self.inputs) > 1:  # each place of a filter meets many units
            return bool(self.common)
        if self.name == "fold" and self.chains[0].amplitude.parts:
            return True
        if not self.counted(self.shared) or not self.is_fixed or len(self.inputs) > 1:
            return False
        parts = self.summed
        if parts is not None:
            pairs = [pair for two in combinations(parts.roots, 2) for pair in common_places(*two)]
            channels = parts.channels or channels_of_roots(parts.roots)
            return any(meet(*p) or _is_shared(parts.shared, channels, *p) for p in pairs)
        if self.name not in MEANS or not self.chains[0].samples:
            return mixes(self.name, self.args, self.kwargs)[0]
        axes = summed_axes(self.args, self.kwargs)
        if not self.channels or axes != (self.channels,):
            return True
        copied = any(two.shape[self.channels] > 2 for _, two, _ in self.chains[0].samples)
        return copied or bool(self.chains[0].behind.channels)

    def spreads(self, out: Tensor) -> bool:
        """Whether several units of the result read one."""
        x = self.args[0] if self.args else None
        if self.attends:
            return True
        if len(self.inputs) > 1:
            return self.name in JOINS | MAXIMA_OF_UNITS and bool(self.doubled)
        if self.name == "setitem":
            return bool(self.args[0][self.args[1]].numel() > self.inputs[0].numel())
        if not self.is_fixed or (self.name not in PRODUCTS and not isinstance(x, Tensor)):
            return False
        reads, spreads = mixes(self.name, self.args, self.kwargs)
        if spreads or ((reads or self.name in CHOOSE_ONE) and self.chains[0].windows):
            return True
        return isinstance(x, Tensor) and copies(self.name, self.args, self.kwargs, x, out)

    def sharing(self, shared: Sharing, out: Tensor) -> Sharing:
        """What units share behind this function, and before it `shared`.

        A tensor that is joined or added to channels of itself, or whose channels are copied, is
        shared among channels alone.
        """
        if not self.spreads(out):
            return shared
        if self.attends:
            return self._attended(shared)
        if len(self.inputs) > 1:
            aside = all(side_by_side(*pair, self.channels) for pair in self.doubled)
        else:
            pairs = enumerate(zip(self.inputs[0].shape, out.shape, strict=False))
            unlike = [axis for axis, (have, give) in pairs if have != give]
            aside = self.name in COPIES and self.channels > 0 and unlike == [self.channels]
        if aside:
            return replace(shared, channels=self.own)
        if self.is_spatial:
            return replace(shared, places=self.own)
        return Sharing(self.own, self.own)

    @cached_property
    def attends(self) -> bool:
        """Whether these are means over tokens, each of which is read by all queries."""
        if self.name in ATTENTION:
            return True
        others = [t for t in tensors_in((self.args, self.kwargs)) if not is_energy(t)]
        weights = [t for t in others if history_of(t) is not None]
        return self.name in PRODUCTS and any(t.shape[-2] > 1 for t in weights if t.ndim > 1)

    def _attended(self, shared: Sharing) -> Sharing:
        """What units share behind attention over places.

        Over the channels of one place it gives all places the same share, which changes no map.
        """
        x, history = self.inputs[0], history_of(self.inputs[0])
        grid = math.prod(history.grid) if history else 0
        first = self.name in PRODUCTS and self.args and self.args[0] is x
        over, other = (x.shape[-1], x.shape[-2]) if first else (x.shape[-2], x.shape[-1])
        if grid and 0 <= over - grid <= MAX_PREFIX_TOKENS:
            return replace(shared, places=self.own)
        if grid and 0 <= other - grid <= MAX_PREFIX_TOKENS:
            return shared
        return Sharing(self.own, self.own)

    @cached_property
    def is_fixed(self) -> bool:
        """Whether this is no product with another energy, no attention and no random mixture."""
        if len(self.inputs) > 1:
            return self.name in JOINS
        others = [t for t in tensors_in((self.args, self.kwargs)) if not is_energy(t)]
        if self.name in PRODUCTS and any(history_of(t) is not None for t in others):
            return False
        return self.name not in MIXTURES or not any(map(is_weight, others))


def _is_shared(shared: Sharing, channels: int, a: Places, b: Places) -> bool:
    """Whether different units of a root, at these places of two inputs, may share one."""
    aside = side_by_side(a, b, channels) or in_other_channels(a, b, channels)
    return bool(shared.channels if aside else shared.units)
