"""The rule by which the target of a model is chosen, the same for every runtime (docs/models.md).

A runtime describes one forward pass as `Step`s: the tensors that depend on the image, in execution
order. `Way` reads them as maps (`readings`) and keeps those on the way from the image to the
output. The target is the last map of the coarsest resolution that all of the output depends on,
before the layers that give the output's own numbers. Branches of the same resolution that share
less than half of their layers, as in networks of two streams, are not cut down to what they share.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from .feature_grid import Grid, TargetChoice, grid_of_shape
from .readings import LAYERS, Kind, Readings, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


PASSING = ("other", "multiply")

SHAPING = ("view", "permute", "select")

MAIN_OUTPUT = 0.9
"""An output counts if this share of the layers of the deepest one leads to it: auxiliary heads,
which end earlier, have no part in the choice."""


@dataclass(frozen=True)
class Way:
    """The steps of one forward pass over images of `size` (height, width), and its outputs.

    `outputs` are positions in `steps`; the image is step 0. `batch` is the number of images.
    """

    steps: Sequence[Step]
    outputs: Sequence[int]
    size: tuple[int, int]
    batch: int
    prefix: int | None = None

    @cached_property
    def read(self) -> Readings:
        """The steps read as maps."""
        return Readings(self.steps, self.size, self.batch, self.prefix)

    @cached_property
    def main(self) -> list[int]:
        """The outputs to which nearly as many layers lead as to the deepest one.

        Where no output has a gradient, as with a map of classes, the tensors that nothing reads.
        """
        read = {a for step in self.steps for a in step.arguments}
        ends = [i for i in range(len(self.steps)) if i not in read]
        found = [i for i in self.outputs if self.read.before[i] & 1]
        found = found or [i for i in ends if self.read.before[i] & 1]
        depth = {i: self._depth(i) for i in found}
        most = max(depth.values(), default=0)
        return [i for i in found if depth[i] >= MAIN_OUTPUT * most]

    @cached_property
    def on_way(self) -> int:
        """A bit for every step on a path from the image to a main output."""
        bits = 0
        for i in self.main:
            bits |= self.read.before[i]
        return bits

    @cached_property
    def after(self) -> list[int]:
        """For every step the bits of itself and of the steps on the way that depend on it."""
        found = [1 << i for i in range(len(self.steps))]
        for i in reversed(range(len(self.steps))):
            if self.on_way >> i & 1:
                for source in self.read.sources[i]:
                    found[source] |= found[i]
        return found

    @cached_property
    def bottlenecks(self) -> set[int]:
        """The steps that every path from the image to the main outputs passes through."""
        return self.on_every_path(self.on_way, self.main)

    def on_every_path(self, bits: int, ends: Sequence[int]) -> set[int]:
        """The steps that every path from the image to `ends` passes through.

        `bits` are those of the steps on these paths.
        """
        longest: dict[int, int] = {}
        last = len(self.steps)
        for i in self._bits(bits):
            for source in self.read.sources[i]:
                longest[source] = max(longest.get(source, 0), i)
        longest.update(dict.fromkeys(ends, last))
        found, reach = set(), 0
        for i in self._bits(bits):
            if reach <= i:
                found.add(i)
            reach = max(reach, longest.get(i, i))
        return found

    @cached_property
    def tail(self) -> int:
        """A bit for every step behind which there is no further layer, last layers included."""
        bits, waiting = 0, list(self.main)
        while waiting:
            i = waiting.pop()
            if not bits >> i & 1:
                bits |= 1 << i
                if self.steps[i].kind not in LAYERS:
                    waiting += self.read.sources[i]
        return bits

    @cached_property
    def ends(self) -> list[int]:
        """The last layers before the outputs."""
        return [i for i in self._bits(self.tail) if self.steps[i].kind in LAYERS]

    @cached_property
    def heads(self) -> int:
        """A bit for every step from a last layer on that gives numbers of the output, not features.

        A last layer is one when its input has the same resolution and its result is squashed to
        scores, is no map at the output or one of more units, or has fewer channels than its input.
        Where an activation such as ReLU follows, a norm, or a mean over all units, it gives
        features.
        """
        bits = 0
        for end in self.ends:
            if self._gives_numbers(end):
                bits |= self.after[end] & self.tail
        return bits

    def _gives_numbers(self, end: int) -> bool:
        grids, steps = self.read.grids, self.steps
        own = grids[end] if steps[end].kind != "recurrent" else None  # its result is activated
        before = [g for s in self.read.sources[end] if (g := grids[s]) is not None]
        if own is None or all(_size(g) != _size(own) for g in before):
            return False
        behind = [i for i in self._bits(self.after[end] & self.tail & self.on_way) if i != end]
        if any(steps[i].kind in ("rectify", "norm") for i in behind):
            return False
        if any(steps[i].kind == "squash" for i in behind):
            return True
        if any(self._is_mean_of(end, i) for i in behind):
            return False
        results = [grids[i] for i in self.main if self.after[end] >> i & 1]
        if any(g is None or g.kind[1:] != "CHW" or not _same_or_pooled(g, own) for g in results):
            return True
        return own.channels < max(g.channels for g in before)

    def _is_mean_of(self, layer: int, i: int) -> bool:
        """Whether step `i` has one number for each channel of the map of step `layer`."""
        grid, numbers = self.read.grids[layer], math.prod(self.steps[i].shape)
        if grid is None or _units(grid) == 1:
            return False
        return numbers * _units(grid) == math.prod(self.steps[layer].shape)

    @cached_property
    def maps(self) -> dict[int, Grid]:
        """The maps among which is chosen: on the way, computed there, and not in a head.

        A resolution counts if every path passes through one of its maps, or if a layer that sees
        more than one unit works at it: pools with layers of one unit behind them are context.
        """
        grids = self.read.grids
        found = {
            i: grid
            for i in self._bits(self.on_way & ~1)
            if (grid := grids[i]) is not None
            and not (self.read.same_map[i] or self._is_key_or_value(i) or self._is_in_stack(i))
            and not self._is_raw(i)
        }
        sizes = {_size(g) for i, g in found.items() if i in self.bottlenecks or self.steps[i].wide}
        found = {i: g for i, g in found.items() if _size(g) in sizes and self.steps[i].floating}
        kept = {i: g for i, g in found.items() if not self.heads >> i & 1}
        return kept or found

    def _is_raw(self, i: int) -> bool:
        """Whether step `i` is the image, normalised or changed point by point before any layer.

        What the layers behind it do not read would be missed at such a map.
        """
        grid, before = self.read.grids[i], self.read.before[i]
        same = grid is not None and _size(grid) == self.size
        return same and not before & self.layers and bool(self.after[i] & self.layers)

    @cached_property
    def _readers(self) -> dict[int, list[int]]:
        """The steps on the way that read a step, by the step."""
        found: dict[int, list[int]] = defaultdict(list)
        for i in self._bits(self.on_way):
            for source in self.read.sources[i]:
                found[source].append(i)
        return found

    def _is_key_or_value(self, i: int) -> bool:
        """Whether step `i` makes a map to keys or values that queries of no place read."""
        kind, readers = self.steps[i].kind, self._readers[i]
        if len(self.read.sources[i]) != 1 or kind not in ("linear", *PASSING, *SHAPING):
            return False
        if self._only_read_by("contract", i):
            return True
        return kind != "linear" and bool(readers) and all(map(self._is_key_or_value, readers))

    def _only_read_by(self, kind: Kind, i: int) -> bool:
        """Whether nothing but steps of `kind` reads step `i`, in whatever shape.

        Reading it at places that the image decides is a product with queries, too.
        """
        readers = self._readers[i]
        sampled = kind == "contract"
        return bool(readers) and all(
            self.steps[k].kind == kind
            or (sampled and self.steps[k].kind == "select" and self.steps[k].selected)
            or (self.steps[k].kind in (*PASSING, *SHAPING) and self._only_read_by(kind, k))
            for k in readers
        )

    def _is_in_stack(self, i: int) -> bool:
        """Whether step `i` passes the sequence of a recurrent layer to the next one alone."""
        return self._is_sequence(i) and self._only_read_by("recurrent", i)

    def _is_sequence(self, i: int) -> bool:
        """Whether step `i` is the result of a recurrent layer, in whatever shape."""
        kind, sources = self.steps[i].kind, self.read.sources[i]
        shaped = kind in SHAPING and bool(sources) and all(map(self._is_sequence, sources))
        return kind == "recurrent" or shaped

    def target(self) -> Grid | None:
        """The target by the rule, with the reason; None when nothing on the way is a map."""
        if not self.maps:
            return None
        whole = [i for i in self.maps if self._depends(i)]
        last = self._coarsest(list(self.maps))[-1]
        if not whole:
            return self._chosen(last, TargetChoice.BRANCH)
        i = self._last(self._coarsest(whole))
        if _size(self.maps[last]) == _size(self.maps[i]) and 2 * self._depth(i) < self._depth(last):
            return self._chosen(last, TargetChoice.BRANCH)
        return self._chosen(i, TargetChoice.RULE if i in self.bottlenecks else TargetChoice.DETOUR)

    def _depends(self, i: int) -> bool:
        """Whether all parts of the output depend on the map `i`, or are before it.

        The parts of a concatenation do so by themselves, those of a sum together, also of one that
        stacks its parts first.
        """
        found: dict[int, bool] = {}
        for step in self._bits(self.tail):
            related = bool((self.after[i] | self.read.before[i]) >> step & 1)
            parts = [found[s] for s in self.read.sources[step] if s in found]
            if step == i or self.steps[step].kind in LAYERS or not parts:
                found[step] = related
            else:
                joined = self.steps[step].kind == "concat" and not self._is_summed(step)
                found[step] = related and (all(parts) if joined else any(parts))
        return all(found[output] for output in self.main)

    def _is_summed(self, i: int) -> bool:
        """Whether the parts of the concatenation `i` are summed afterwards: `stack(parts).sum(0)`.

        Also their mean, their maximum or a weighted sum: what is left has the size of one part.
        """
        sizes = {math.prod(self.steps[s].shape) for s in self.read.sources[i]}
        readers = self._readers[i]
        while len(readers) == 1 and self.steps[readers[0]].kind in (*PASSING, "view", "permute"):
            if {math.prod(self.steps[readers[0]].shape)} == sizes:
                return len(self.read.sources[i]) > 1
            readers = self._readers[readers[0]]
        return False

    def _coarsest(self, maps: Sequence[int]) -> list[int]:
        fewest = min(_units(self.maps[i]) for i in maps)
        return [i for i in maps if _units(self.maps[i]) == fewest]

    def _depth(self, i: int) -> int:
        """The number of layers that step `i` depends on."""
        return (self.read.before[i] & self.layers).bit_count()

    @cached_property
    def layers(self) -> int:
        """A bit for every layer."""
        return sum(1 << i for i, step in enumerate(self.steps) if step.kind in LAYERS)

    def _last(self, same: Sequence[int]) -> int:
        """The last of the maps `same`; if there is one, the last that all others meet."""
        meeting = [i for i in same if all(self._related(i, other) for other in same)]
        return (meeting or same)[-1]

    def _related(self, a: int, b: int) -> bool:
        """Whether one of two steps depends on the other."""
        return bool(self.after[a] >> b & 1 or self.after[b] >> a & 1)

    def _chosen(self, i: int, choice: TargetChoice) -> Grid:
        grid, remark = self.maps[i], REMARKS.get(choice)
        begun = f"the last map of the coarsest resolution ({grid.height} x {grid.width} units)"
        reason = f"{begun} on the way from the image to the output"
        return replace(grid, reason=f"{reason}; {remark}" if remark else reason, choice=choice)

    def scales(self) -> list[Grid]:
        """The last map of every resolution, from the finest to the coarsest.

        Resolutions whose numbers of units differ by less than the square root of 2 count as one. A
        map inside a block that goes on to a coarser resolution by two paths is not the last one.
        """
        groups: dict[int, list[int]] = defaultdict(list)
        for i, grid in self.maps.items():
            if _size(grid) != self.size or any(_units(g) < _units(grid) for g in self._before(i)):
                groups[round(math.log2(self.size[0] * self.size[1] / _units(grid)))].append(i)
        last = {key: self._last_outside_blocks(groups[key]) for key in sorted(groups)}
        return [self._at_scale(self.maps[i]) for i in last.values()]

    def _at_scale(self, grid: Grid) -> Grid:
        reason = f"the last map at {_strides(grid, self.size)}"
        return replace(grid, reason=reason, choice=TargetChoice.SCALE)

    def output_map(self) -> Grid | None:
        """The map with the most units among the outputs, also of more units than pixels, or None.

        An output of four axes, such as patches that were put back, is read by its shape alone; one
        that only drops axes of a map, as of one channel, is that map.
        """
        grids = [self._output_grid(i) for i in self.outputs if self.read.before[i] & 1]
        found = [grid for grid in grids if grid is not None]
        if not found:
            return None
        densest = max(found, key=_units)
        return replace(densest, reason="the output with the most units", choice=TargetChoice.OUTPUT)

    def _output_grid(self, i: int) -> Grid | None:
        step, sources = self.steps[i], self.read.sources[i]
        if (grid := self.read.float_grids[i]) is not None or not step.floating:
            return grid
        if len(step.shape) == 4 and step.shape[0] == self.batch:
            magnified = self._magnified(step.shape[2:])
            by_shape = None if magnified else grid_of_shape(step.name, step.shape, self.size)
            return Grid(step.name, "NCHW", *step.shape[1:]) if magnified else by_shape
        same = step.kind == "view" and len(sources) == 1 and _numbers(step, self.steps[sources[0]])
        return self._output_grid(sources[0]) if same and sources[0] > 0 else None

    def _magnified(self, units: Sequence[int]) -> bool:
        """Whether a grid has more units than pixels, by the same factor along both axes."""
        rows, columns = (n / m for n, m in zip(units, self.size, strict=True))
        return rows == columns > 1

    def _before(self, i: int) -> list[Grid]:
        return [g for k, g in self.maps.items() if self.read.before[i] >> k & 1]

    def _last_outside_blocks(self, same: list[int]) -> int:
        """The last of the maps `same` of one resolution, see `scales`."""
        meeting = [i for i in same if all(self._related(i, other) for other in same)]
        outside = [i for i in meeting if not self._inside_block(i, same)]
        return (outside or meeting or same)[-1]

    def _inside_block(self, i: int, same: Sequence[int]) -> bool:
        """Whether another path from an earlier map joins that of map `i` at a coarser one."""
        earlier = sum(1 << k for k in same if k != i and self.after[k] >> i & 1)
        for step in self._bits(self.on_way):
            leaves = any(earlier >> s & 1 for s in self.read.sources[step])
            if leaves and not self._related(step, i):
                common = self.after[step] & self.after[i]
                joined = self.read.grids[(common & -common).bit_length() - 1] if common else None
                if joined is not None and _units(joined) < _units(self.maps[i]):
                    return True
        return False

    @staticmethod
    def _bits(bits: int) -> Iterator[int]:
        """The positions of the bits that are set, from the lowest."""
        while bits:
            yield (bits & -bits).bit_length() - 1
            bits &= bits - 1


REMARKS = {
    TargetChoice.BRANCH: "one branch of several: a part of the output does not depend on it",
    TargetChoice.DETOUR: "other paths go around it (skip connections or other branches)",
}
"""What is said of a target that is not all that leads to the output."""

ALL_SCALES = "all-scales"
"""In place of a target's name: the target by the rule, and the last map of every resolution."""


def named_by_user(grid: Grid) -> Grid:
    """`grid` as a target that the user named."""
    return replace(grid, reason="named by the user", choice=TargetChoice.NAMED)


def target_note(target: Grid | None) -> list[str]:
    """A note for the record of a model whose target is not all that leads to its output."""
    if target is None or target.choice not in REMARKS:
        return []
    return [f"target {target.name!a}: {REMARKS[target.choice]}"]


def _units(grid: Grid) -> int:
    return grid.height * grid.width


def _numbers(step: Step, source: Step) -> bool:
    """Whether two steps have the same number of numbers for each image."""
    return math.prod(step.shape) == math.prod(source.shape)


def _same_or_pooled(result: Grid, layer: Grid) -> bool:
    """Whether the map `result` has the units of `layer`, or fewer, as behind a pool; not one."""
    return _size(result) == _size(layer) or 1 < _units(result) < _units(layer)


def _size(grid: Grid) -> tuple[int, int]:
    return grid.height, grid.width


def _strides(grid: Grid, size: tuple[int, int]) -> str:
    rows, columns = (round(n / m, 1) for n, m in zip(size, _size(grid), strict=True))
    return f"stride {rows:g}" if rows == columns else f"strides {rows:g} x {columns:g}"
