"""Where two variants of one graph part, node by node: float and int8, two exporters, an export.

Both models are run on the same images, and the tensors of their nodes are paired in execution
order: by shape, then by how close their values are, then by name (a global alignment, Needleman and
Wunsch 1970). For each pair there are two numbers, |b - a| / |a| over all images together:

- the *accumulated* difference, each model run from the image;
- the node's *own* difference: the second model's node works on the tensors of the first (whatever
  reads a paired tensor reads the first model's instead).

A map that is the first model's but for a shift of whole units is named with its shift, (rows,
columns), if both agree where they overlap.

With `alone`, the first model has one layer at a time in eight bits; the number is the largest
change of an output (see `adapters.onnx.quantise`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ...adapters.errors import InputError, NotApplicableError
from ...adapters.model import ModelOfNodes, QuantisableModel
from ...adapters.treatment import PaddingOptions
from ..execution.engines.process import call_bounded
from ..execution.rerun import run_spec_of
from .alignment import align, flat_array
from .divergence import DIVERGED
from .fingerprint import IMAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from ...adapters.model import Model
    from ...suites.base import Array
    from ..execution.rerun import RerunOptions
    from ..execution.settings import Settings, Toolkit
    from .sides import Side

FARTHEST = 2
"""The largest shift, in units of the map, that is looked for."""


@dataclass(frozen=True)
class NodeDifference:
    """One node of both models: names, operator of the first, and differences.

    `shift` is (rows, columns), if the map of the second is that of the first but for a shift.
    `alone` is the change of an output if this node of the first alone is in eight bits.
    """

    first: str
    second: str
    operator: str
    shape: tuple[int, ...]
    own: float
    accumulated: float
    shift: tuple[int, int] | None = None
    alone: float | None = None


@dataclass(frozen=True)
class NodeTable:
    """All nodes that pair, in execution order, and the names of those that do not."""

    nodes: tuple[NodeDifference, ...]
    left_first: tuple[str, ...] = ()
    left_second: tuple[str, ...] = ()

    @property
    def worst(self) -> list[NodeDifference]:
        """The nodes, the largest own difference first."""
        return sorted(self.nodes, key=lambda node: (-node.own, -node.accumulated))

    @property
    def parting(self) -> NodeDifference | None:
        """The first node whose own difference is more than rounding."""
        return next((node for node in self.nodes if not node.own <= DIVERGED), None)


@dataclass(frozen=True)
class Opened:
    """How one model is opened again: what it is, its settings and its kernel padding."""

    thing: Any
    fill: str
    settings: Settings


def node_table(
    first: Side, second: Side, options: RerunOptions, *, alone: bool = False
) -> NodeTable:
    """The nodes of both models, measured on their images in a process with limits.

    Modules and opened models are measured here. Raises `InputError` for models that are not
    variants of one graph, and other subclasses of `PerimetryError` for what cannot be opened.
    """
    found: NodeTable = _with_limits(measure_nodes, (first, second), options, alone)
    return found


def _with_limits(
    work: Callable[..., Any], sides: Sequence[Side], options: RerunOptions, more: object
) -> Any:
    """What `work` returns of two models, in a process with limits if they can be opened there."""
    specs = [run_spec_of(list(side.records.values()), options) for side in sides]
    models = [
        Opened(side.thing, side.fill, spec.settings)
        for side, spec in zip(sides, specs, strict=True)
    ]
    run = options.run
    job = partial(work, *models, run.toolkit, run.devices[0], more)
    isolated = run.isolated and all(isinstance(one.thing, str) for one in models)
    return call_bounded(job, run) if isolated else job()


def measure_nodes(
    first: Opened, second: Opened, toolkit: Callable[[], Toolkit], device: str, alone: bool
) -> NodeTable:
    """Open both models and compare their nodes."""
    models = [_open(one, toolkit().load, device) for one in (first, second)]
    images = first.settings.open_images()
    xs = []
    for model in models:
        x = model.spec.prepare(images.first(IMAGES).load(model.spec))
        model.select(0, x)
        xs.append(x.to(model.device))
    followed = [_followed(model) for model in models]
    one, other = (m.nodes(x[:1]) for m, x in zip(followed, xs, strict=True))
    pairs = align(one, other)
    if not pairs or 2 * len(pairs) < min(len(one), len(other)):
        raise InputError(
            "the nodes of the two models do not pair: expected variants of one graph, such as "
            "float and int8 files, two exports, or a module and its export"
        )
    table = _differences(followed, xs, pairs)
    effects = _alone(models[0], xs[0]) if alone else {}
    nodes = [
        NodeDifference(
            a,
            b,
            one[a].operator,
            tuple(one[a].value.shape[1:]),
            *table[a],
            find_shift(one[a].value, other[b].value),
            effects.get(a),
        )
        for a, b in pairs
    ]
    paired = [set(names) for names in zip(*pairs, strict=True)]
    return NodeTable(
        tuple(nodes),
        tuple(name for name in one if name not in paired[0]),
        tuple(name for name in other if name not in paired[1]),
    )


def _open(one: Opened, load: Any, device: str) -> Model:
    chosen = one.settings
    model: Model = load(
        one.thing,
        device=device,
        size=chosen.size,
        seed=chosen.seed,
        members=1 if chosen.weight_sets else None,
        precision="float32",
        inputs=chosen.inputs,
    )
    if one.fill == "none":
        return model
    if one.fill == "fit":
        raise NotApplicableError("models with kernel padding fit are not compared node by node")
    return model.padded(one.fill, PaddingOptions(chosen.seed))  # type: ignore[arg-type]


def stage_shift(
    first: Side, second: Side, names: tuple[str, str], options: RerunOptions
) -> tuple[int, int] | None:
    """The shift (rows, columns) between the maps of the stages `names`, if it is one.

    Raises subclasses of `PerimetryError` for what cannot be opened.
    """
    found: tuple[int, int] | None = _with_limits(_stage_shift, (first, second), options, names)
    return found


def _stage_shift(
    first: Opened,
    second: Opened,
    toolkit: Callable[[], Toolkit],
    device: str,
    names: tuple[str, str],
) -> tuple[int, int] | None:
    maps = []
    for one, name in zip((first, second), names, strict=True):
        model = _open(one, toolkit().load, device)
        x = model.spec.prepare(first.settings.open_images().first(1).load(model.spec))
        model.select(0, x)
        maps.append(model.stages(x.to(model.device))[name].cpu())
    return find_shift(*maps)


def _followed(model: Model) -> ModelOfNodes:
    """The model. Raises `NotApplicableError` for one whose nodes cannot be followed."""
    if not isinstance(model, ModelOfNodes):
        raise NotApplicableError(f"{model.reference!r} cannot be followed node by node")
    return model


@dataclass
class _Sums:
    """Sums of squares over the images: of the first tensor, and of both differences."""

    size: float = 0.0
    own: float = 0.0
    accumulated: float = 0.0

    def add(self, a: Array, b: Array, own: Array | None) -> None:
        self.size += float((a**2).sum())
        self.accumulated += float(((b - a) ** 2).sum())
        self.own += math.nan if own is None else float(((own - a) ** 2).sum())

    def shares(self) -> tuple[float, float]:
        """Own and accumulated difference; infinite where only the first is 0."""
        return tuple(  # type: ignore[return-value]
            (0.0 if part == 0 else math.inf) if self.size == 0 else math.sqrt(part / self.size)
            for part in (self.own, self.accumulated)
        )


def _differences(
    models: Sequence[ModelOfNodes], xs: Sequence[Tensor], pairs: Sequence[tuple[str, str]]
) -> dict[str, tuple[float, float]]:
    """Own and accumulated difference of every pair, by the first model's name."""
    sums = {a: _Sums() for a, _ in pairs}
    for k in range(len(xs[0])):
        one, other = (m.nodes(x[k : k + 1]) for m, x in zip(models, xs, strict=True))
        fed = models[1].fed(xs[1][k : k + 1], {b: one[a].value for a, b in pairs})
        for a, b in pairs:
            own = None if b not in fed else flat_array(fed[b])
            sums[a].add(flat_array(one[a].value), flat_array(other[b].value), own)
    return {name: found.shares() for name, found in sums.items()}


def find_shift(a: Tensor, b: Tensor) -> tuple[int, int] | None:
    """The shift (rows, columns) by which the maps (1, channels, height, width) agree, or None.

    None as well for maps that agree as they are, and for those that are too small to tell.
    """
    if a.ndim != 4 or a.shape != b.shape or min(a.shape[2:]) <= 2 * (FARTHEST + 1):
        return None
    first, second = a.double(), b.double()
    if _gap(first, second) <= DIVERGED:
        return None
    edge = FARTHEST + 1
    height, width = a.shape[2:]
    inner = first[..., edge : height - edge, edge : width - edge]
    if not float(inner.norm()) > 0:
        return None
    steps = range(-FARTHEST, FARTHEST + 1)
    moves = [(rows, columns) for rows in steps for columns in steps if rows or columns]
    for rows, columns in sorted(moves, key=lambda move: math.hypot(*move)):
        moved = second[
            ..., edge + rows : height - edge + rows, edge + columns : width - edge + columns
        ]
        if _gap(inner, moved) <= DIVERGED:
            return rows, columns
    return None


def _gap(a: Tensor, b: Tensor) -> float:
    size = float(a.norm())
    return float((b - a).norm()) / size if size else math.inf


def _alone(model: Model, x: Tensor) -> dict[str, float]:
    """The largest change of an output, over the images, by the layer that is in eight bits."""
    if not isinstance(model, QuantisableModel):
        raise InputError(
            f"{model.reference!r} is not an ONNX file; layers are quantised one at a time in float "
            "ONNX files only"
        )
    found: dict[str, float] = {}
    for k in range(len(x)):
        image = x[k : k + 1]
        right = model.every_output(image).tensors
        for name, outputs in model.each_quantised(image):
            gaps = [
                _gap(right[n].double().flatten().cpu(), v.double().flatten())
                for n, v in outputs.items()
                if n in right and v.is_floating_point()
            ]
            found[name] = max(found.get(name, 0.0), *gaps, 0.0)
    return found
