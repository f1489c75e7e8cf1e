"""The tensors of a forward pass, read as maps of units: NCHW, NHWC or tokens.

Operators with channels first or last determine the layout of their results; transpositions change
it and elementwise operators keep it. A sequence of tokens is a map only if its length is the number
of units of a map that it was computed from, and if every token still has its place there:
attention gives its results the places of its queries, a recurrent layer those of its sequence,
selections give none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from .feature_grid import PREFIXES, Grid, grid_of_shape, has_blocks_as_channels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


Kind = Literal[
    "conv",  # layer with channels first
    "linear",  # layer with channels last
    "recurrent",  # layer over a sequence, its first argument
    "contract",  # product of two tensors that depend on the image, attention; the query first
    "spatial",  # channels first, no layer: pools, batch norms, depth to space
    "norm",  # over the channels of a unit
    "rectify",  # activation of features, such as ReLU or GELU
    "squash",  # activation of scores or gates, such as sigmoid or softmax
    "multiply",
    "permute",
    "view",  # the same numbers in another shape
    "select",  # a part of them
    "concat",
    "pad",
    "other",  # keeps the layout where it keeps the shape
]

LAYERS = {"conv", "linear", "recurrent"}

SAME_MAP = {"permute", "view", "select", "pad"}
"""Kinds of steps whose result is the map of their source."""

RESHAPING = {"view", "select", "concat"}
"""Kinds of steps whose results of four axes may be maps by their size alone."""


@dataclass(frozen=True)
class Step:
    """One tensor of a forward pass.

    `arguments` are the positions of the tensors that it is computed from, in the operator's order,
    None for those that do not depend on the image. `order` is the order of axes of a transposition,
    `wide` says that a layer sees more than one unit, `selected` that the image decides which parts
    of its source it has, or that it is a last state. `floating` is False for integers, which may be
    maps, as of quantised layers, but are never a target.
    """

    name: str
    kind: Kind
    arguments: tuple[int | None, ...]
    shape: tuple[int, ...]
    order: tuple[int, ...] = ()
    wide: bool = False
    selected: bool = False
    floating: bool = True


@dataclass
class Readings:
    """What is known of every step: its grid, its sources, the steps that it is computed from.

    `before` are bits, of the step itself and all steps it depends on; `same_map` says that a step
    only gives another shape to the map of its source.
    """

    steps: Sequence[Step]
    size: tuple[int, int]
    batch: int
    prefix: int | None = None
    grids: list[Grid | None] = field(default_factory=list)
    sources: list[tuple[int, ...]] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    same_map: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._placed: list[bool] = []
        self._flattened: list[bool] = []
        self._layouts: list[str | None] = []
        self._gates: list[bool] = []
        self._new: list[tuple[int, tuple[int, int]]] = []  # the steps that change the size
        for i, step in enumerate(self.steps):
            sources, carriers = self._links(step)
            bits = 1 << i
            for source in sources:
                bits |= self.before[source]
            self.sources.append(sources)
            self.before.append(bits)
            self._placed.append(i == 0 or self._is_placed(step, carriers))
            self._flattened.append(not self._placed[i] and self._is_flattened(step, carriers))
            self._layouts.append(self._layout(step, carriers))
            self._gates.append(self._is_gate(step, sources))
            grid = self._grid(i, carriers) if self._placed[i] else None
            self.grids.append(grid)
            if grid is not None and self._layouts[i] is None:
                self._layouts[i] = grid.kind
            self.same_map.append(self._note_size(i, carriers) and step.kind in SAME_MAP)

    @cached_property
    def float_grids(self) -> list[Grid | None]:
        """The grids of the steps that are floats: the others have no gradient."""
        return [g if s.floating else None for g, s in zip(self.grids, self.steps, strict=True)]

    def _note_size(self, i: int, carriers: Sequence[int]) -> bool:
        """Whether the map of step `i` is as large as one that it is computed from."""
        here = self.grids[i]
        if here is None:
            return False
        size = here.height, here.width
        same = any(g is not None and (g.height, g.width) == size for g in self._of(carriers))
        if i > 0 and not same:
            self._new.append((i, size))
        return same

    def _of(self, positions: Sequence[int]) -> list[Grid | None]:
        return [self.grids[i] for i in positions]

    def _links(self, step: Step) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The sources of a step, and those of them whose units keep their places in it.

        Keys and values of attention are no sources where the query depends on the image, and gates
        are none either: both are weights of the tensor that they are applied to.
        """
        sources = tuple(dict.fromkeys(a for a in step.arguments if a is not None))
        if step.kind == "contract":
            first = step.arguments[0]
            return ((first,), (first,)) if first is not None else (sources, ())
        if step.kind in ("recurrent", "select") and step.selected:
            return sources, ()
        if step.kind == "recurrent":
            return sources, tuple(a for a in step.arguments[:1] if a is not None)
        if step.kind == "multiply" and len(sources) == 2:
            gates = tuple(s for s in sources if self._gates[s])
            if len(gates) == 1:
                sources = tuple(s for s in sources if s not in gates)
        return sources, sources

    def _is_gate(self, step: Step, sources: Sequence[int]) -> bool:
        """Whether a step has only squashed values, such as those of a sigmoid, in any shape.

        Also what one further function makes of each, such as their rounding.
        """
        alone = step.kind == "other" and len(sources) == 1
        alone = alone and self.steps[sources[0]].shape == step.shape
        shaped = alone or step.kind in SAME_MAP or step.kind == "spatial"
        return step.kind == "squash" or (
            shaped and bool(sources) and all(self._gates[s] for s in sources)
        )

    def _is_vector(self, shape: tuple[int, ...]) -> bool:
        """Whether a shape has one axis besides the batch's."""
        axes = list(shape)
        if self.batch in axes:
            axes.remove(self.batch)
        return sum(n > 1 for n in axes) < 2

    def _is_placed(self, step: Step, carriers: Sequence[int]) -> bool:
        """Whether the numbers of a step have places in the image, and more than one axis."""
        back = step.kind == "view"
        placed = any(self._placed[s] or (back and self._flattened[s]) for s in carriers)
        return placed and not self._is_vector(step.shape)

    def _is_flattened(self, step: Step, carriers: Sequence[int]) -> bool:
        """Whether a vector has all numbers of a map, each changed by itself or by a norm.

        Norms of one group view a map so; a view gives it its axes back.
        """
        known = [s for s in carriers if self._placed[s] or self._flattened[s]]
        return any(_keeps_order(step, self.steps[s]) for s in known)

    def _layout(self, step: Step, carriers: Sequence[int]) -> str | None:
        """The order of axes as far as operators determine it."""
        rank = len(step.shape)
        if step.kind in ("conv", "spatial"):
            return {4: "NCHW", 3: "NCL"}.get(rank)
        if step.kind == "contract" or (step.kind == "recurrent" and rank != 3):
            return None
        given = [
            layout
            for s in carriers
            if (layout := self._layouts[s]) is not None and len(layout) == rank
        ]
        if step.kind == "permute":
            letters = "".join(given[0][k] for k in step.order) if given and step.order else None
            return letters if letters in KINDS else None
        if step.kind == "linear" and rank == 4:
            return self._behind_linear(step, carriers, given)
        if step.kind == "view" and not any(self.steps[s].shape == step.shape for s in carriers):
            return None
        return given[0] if given else None

    def _behind_linear(
        self, step: Step, carriers: Sequence[int], given: Sequence[str]
    ) -> str | None:
        """The order of four axes behind a product with a matrix: of channels, or of columns."""
        if "NCHW" not in given[:1]:
            return "NHWC"
        before = next(s.shape for s in map(self.steps.__getitem__, carriers) if len(s.shape) == 4)
        if before[2:] == step.shape[2:]:
            return "NCHW"
        return "NHWC" if before[2:] == step.shape[1:3] else None

    def _grid(self, i: int, carriers: Sequence[int]) -> Grid | None:
        step = self.steps[i]
        shape = step.shape
        for s in carriers:
            grid = self.grids[s]
            if grid is not None and self.steps[s].shape == shape and step.kind != "permute":
                return replace(grid, name=step.name)
            if grid is None and self.steps[s].shape == shape and step.kind == "view":
                return None  # the same numbers in the same shape
        if step.kind == "view" and (grid := self._restored(i)) is not None:
            return replace(grid, name=step.name)
        layout = self._layouts[i]
        if len(shape) == 4 and layout is None and step.kind == "view":
            layout = self._layouts[i] = self._gathered(i)
        if len(shape) == 4 and layout is not None:
            return self._stated(i, layout)
        if step.kind == "recurrent" and len(shape) != 3:
            return None  # an axis for the directions, as ONNX has
        if len(shape) == 4 and step.kind not in RESHAPING:
            return self._unmatched(i)
        return self._matched(i, layout) or self._unmatched(i)

    def _restored(self, i: int) -> Grid | None:
        """The map whose shape a view gives back to its numbers; None if it is none of that shape.

        On the way there each of them may have been changed by itself or by a norm.
        """
        shape, k = self.steps[i].shape, i
        while k > 0 and len(self.sources[k]) == 1:
            step, k = self.steps[k], self.sources[k][0]
            if not _keeps_order(step, self.steps[k]):
                return None
            if self.steps[k].shape == shape:
                return self.grids[k]
        return None

    def _gathered(self, i: int) -> str | None:
        """The order of axes of a view in which blocks of units became channels; None if it is none.

        It is space to depth: a map whose rows and columns are split in two, transposed and joined.
        """
        permuted = self._viewed(i)
        if self.steps[permuted].kind != "permute":
            return None
        grid, order = self.grids[self._viewed(permuted)], self.steps[permuted].order
        split = self.steps[self.sources[permuted][0]].shape
        blocks = grid is not None and has_blocks_as_channels(
            grid, split, order, self.steps[i].shape
        )
        return grid.kind if grid is not None and blocks else None

    def _viewed(self, i: int) -> int:
        """The step whose numbers a step has in another shape, apart from rounding."""
        i = self.sources[i][0]
        while i > 0 and len(self.sources[i]) == 1 and self._keeps_numbers(i):
            i = self.sources[i][0]
        return i

    def _keeps_numbers(self, i: int) -> bool:
        step, source = self.steps[i], self.steps[self.sources[i][0]]
        return step.kind == "view" or (step.kind == "other" and step.shape == source.shape)

    def _stated(self, i: int, layout: str) -> Grid | None:
        """The grid of four axes in a known order."""
        step = self.steps[i]
        letters = dict(zip(layout, step.shape, strict=True))
        size = letters["H"], letters["W"]
        fits = size[0] * size[1] > 1 and size[0] <= self.size[0] and size[1] <= self.size[1]
        if letters["N"] != self.batch or not fits or self._is_attention(i, size):
            return None
        return Grid(step.name, layout, letters["C"], *size)  # type: ignore[arg-type]

    def _is_attention(self, i: int, size: tuple[int, int]) -> bool:
        """Whether `size` is that of a matrix of weights between the units of a map."""
        counts = {h * w + p for h, w in self.known(i) for p in PREFIXES}
        return self.steps[i].kind == "linear" and size[0] == size[1] and size[0] in counts

    def known(self, i: int) -> list[tuple[int, int]]:
        """Sizes (height, width) of the maps that step `i` was computed from, the latest first."""
        found = [size for k, size in reversed(self._new) if self.before[i] >> k & 1]
        return list(dict.fromkeys(found))

    def _matched(self, i: int, layout: str | None) -> Grid | None:
        """The reading by which step `i` has the size of a map that it was computed from."""
        shape, sizes = self.steps[i].shape, self.known(i)
        for kind in self._orders(i, layout):
            letters = dict(zip(kind, shape, strict=True))
            if letters["N"] != self.batch:
                continue
            for size in sizes:
                for prefix in self._prefixes(i) if "L" in letters else (0,):
                    if self._same_size(letters, size, prefix):
                        name, channels = self.steps[i].name, letters["C"]
                        return Grid(name, kind, channels, *size, prefix=prefix)  # type: ignore[arg-type]
        return None

    @staticmethod
    def _same_size(letters: dict[str, int], size: tuple[int, int], prefix: int) -> bool:
        if "L" in letters:
            return letters["L"] - prefix == size[0] * size[1]
        return (letters["H"], letters["W"]) == size

    def _orders(self, i: int, layout: str | None) -> Iterator[str]:
        """Orders of axes to try, those like the source's first."""
        rank = len(self.steps[i].shape)
        if layout is not None:
            yield layout
            return
        if self.steps[i].kind == "linear":
            yield from ("NLC", "LNC") if rank == 3 else ()
            return
        grids = [g for g in self._of(self.sources[i]) if g is not None]
        first = bool(grids) and grids[0].kind in ("NCHW", "NCL")
        if rank == 4:
            yield from ("NCHW", "NHWC") if first else ("NHWC", "NCHW")
        if rank == 3:
            yield from ("NCL", "NLC", "LNC") if first else ("NLC", "NCL", "LNC")

    def _prefixes(self, i: int) -> tuple[int, ...]:
        """How many tokens may come before those of the map.

        They are joined to it by a concatenation with a tensor whose tokens have no place.
        """
        grids = [g for g in self._of(self.sources[i]) if g is not None]
        if self.prefix is not None:
            return (0, self.prefix)
        if self.steps[i].kind == "concat":
            placed = [a is not None and self._placed[a] for a in self.steps[i].arguments]
            return PREFIXES if not all(placed) else (0,)
        return tuple(sorted({0, *(g.prefix for g in grids), *self._earlier_prefixes(i)}))

    def _earlier_prefixes(self, i: int) -> set[int]:
        """Numbers of tokens that precede those of maps that step `i` was computed from."""
        return {
            g.prefix for k, g in enumerate(self.grids) if g is not None and self.before[i] >> k & 1
        }

    def _unmatched(self, i: int) -> Grid | None:
        """The reading by shape alone, where no map precedes that a size could be that of.

        Tokens are units of such a map only if a step before them gathers blocks of pixels: rows of
        an image may be as many as the units of a square.
        """
        shape = self.steps[i].shape
        if self.known(i) or shape[0] != self.batch:
            return None
        if len(shape) == 3 and not any(self._gathers(k) for k in range(1, i + 1)):
            return None
        return grid_of_shape(self.steps[i].name, shape, self.size, self.prefix)

    def _gathers(self, i: int) -> bool:
        """Whether step `i` may bring pixels of a block together, as views of six axes do."""
        shape, sources = self.steps[i].shape, [self.steps[s].shape for s in self.sources[i]]
        if max(map(len, (shape, *sources))) > 4:
            return True
        if self.steps[i].kind in ("conv", "spatial"):
            return any(len(source) == 4 for source in sources)
        kept = [source[:k] + source[k + 1 :] for source in sources for k in range(len(source))]
        # what drops an axis, as a mean does, is in the place of what it was
        return self.steps[i].kind not in REARRANGING and shape not in (*sources, *kept)


def _keeps_order(step: Step, source: Step) -> bool:
    """Whether a step has the numbers of `source` in order, each changed by itself or by a norm."""
    if step.kind == "view":
        return math.prod(step.shape) == math.prod(source.shape)
    return step.shape == source.shape and step.kind not in MIXING


MIXING = ("conv", "linear", "recurrent", "contract", "permute", "select", "concat")
"""Kinds of steps whose numbers are not those of one source in its order."""

REARRANGING = ("view", "permute", "multiply", "norm", "linear", "recurrent")
"""Kinds of steps that bring no pixels of a block together, unless by a view of more axes."""

KINDS = ("NCHW", "NHWC", "NLC", "NCL", "LNC")
