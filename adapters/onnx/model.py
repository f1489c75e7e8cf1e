"""Any ONNX file with one image input as a `Model`.

Forward passes run through onnxruntime. Gradients come from an interpreter of the graph over torch,
which is verified against onnxruntime on the file itself before its first use.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
from onnx import numpy_helper
from torch import Tensor, nn

from ..blocks import Blocks, find_blocks
from ..complexity import Complexity
from ..copies import copy_without_caches, resize_images
from ..errors import NO_GRADIENTS, InputError, ModelFileError, NotApplicableError, PerimetryError
from ..every_output import EveryOutput, every_output
from ..feature_grid import Grid
from ..input_spec import InputSpec
from ..model import Model, NodeOutput, Outputs, Precision
from ..padding_mode import PaddingMode
from ..target_rule import Way
from ..treatment import PADDING_DEFAULTS, Fill, PaddingOptions, Treatment, left_note
from .analysis.complexity import graph_complexity
from .analysis.steps import graph_way
from .analysis.target import find_graph_target, graph_filters, named_graph_target, stage_grids
from .files.protos import printable
from .gradient_check.subject import (
    CheckTarget,
    GradientReach,
    GradientVerdict,
    as_float,
    gradient_reach,
)
from .gradient_check.verify import verify_gradients, why_another_function
from .graph import Mode
from .inputs.batch_axis import settle_batch
from .inputs.declaration import InputDeclaration
from .inputs.outputs import example, first_output, precision_of
from .inputs.size import take_size
from .inputs.spec import ImageInput, check_spec, image_input
from .interpreter import Interpreter
from .nodes import fed_outputs, node_outputs, random_nodes, steps
from .operators.quantised import STRAIGHT_THROUGH
from .padding_mode import exchange
from .quantise import each_quantised, expose_levels
from .session import Session, feed, shaped, with_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    import onnx


class OnnxModel:
    """An ONNX graph as a `Model`; see `adapters.model.Model`."""

    members = 1

    def __init__(
        self,
        proto: onnx.ModelProto,
        *,
        reference: str,
        source: Mapping[str, str],
        spec: InputSpec,
        image: ImageInput,
        output: str | None,
        device: torch.device,
        target: str | None = None,
        precision: Precision = "float32",
        named_output: str | None = None,
    ) -> None:
        self.reference = reference
        self.spec = spec
        self.device = device
        self._dtype: torch.dtype = getattr(torch, precision)
        self.source: Mapping[str, str] = source
        self.original: Model | None = None
        self.treatment: Treatment | None = None
        self.declaration = InputDeclaration()
        self.notes: list[str] = []
        self.image = image.name
        self._output = output
        self._named_output = named_output
        self._energy: Mapping[str, Tensor] = {}
        self._first = first_output(proto, image.name)
        outputs = [output or self._first]
        self.declares_any_batch = not isinstance(image.dims[0], int)
        proto = expose_levels(proto)
        self.graph, self._batch = settle_batch(
            proto, image.name, outputs, feed(example(spec, 2), spec), image.dims[0]
        )
        self.target = self._locate(target)
        self.why_not_spatial = None if self.target else NO_MAP
        session = self._session(tuple(outputs))
        self.source = {**source, "provider": session.provider}

    @property
    def _example(self) -> Any:
        """Random images of the file's batch size, as its input takes them."""
        return feed(example(self.spec, self._batch or 1), self.spec)

    def _locate(self, name: str | None) -> Grid | None:
        size = (self.spec.height, self.spec.width)
        if name is not None:
            return named_graph_target(self.graph, self.image, name, self._example, size)
        return find_graph_target(self.graph, self.image, self._ends(), self._example, size)

    def _ends(self) -> list[str]:
        """The outputs that the way from the image leads to: the named one, or all."""
        named = self._named_output
        return [named] if named else [o.name for o in self.graph.graph.output]

    @cached_property
    def _sessions(self) -> dict[tuple[str, ...], Session]:
        return {}

    @cached_property
    def _measured(self) -> list[str]:
        """Notes on the gradients of this graph, which do not apply to another."""
        return []

    def _session(self, names: tuple[str, ...]) -> Session:
        if names not in self._sessions:
            self._sessions[names] = Session(self.graph, names, device=self.device)
        return self._sessions[names]

    @cached_property
    def reach(self) -> GradientReach:
        """Which tensors the gradient route can reach, and which operators it leaves out."""
        return gradient_reach(self.graph, self.target.name if self.target else None, self._output)

    @cached_property
    def verdict(self) -> GradientVerdict:
        """Whether the gradient route agrees with onnxruntime on this file; measured once."""
        try:
            subject = self._subject(self.reach.outputs)
        except PerimetryError as error:
            return GradientVerdict(str(error))
        verdict = verify_gradients(subject, example(self.spec, 1))
        self._measured.append(verdict.note())
        if subject.straight_through and verdict.reason is None:
            self._measured.append("quantised: the gradient is the straight-through one")
        self.notes += self._measured
        return verdict

    def _subject(self, outputs: tuple[str, ...]) -> CheckTarget:
        """The tensors `outputs`, among those that gradients reach, for checks of the interpreter.

        Raises `PerimetryError` if there is no interpreter of the graph.
        """
        interpreter = self._interpreter(self.reach.outputs)
        graph = with_outputs(self.graph, outputs)
        bytes_in = self.spec.dtype == "uint8"
        return CheckTarget(
            proto=as_float(graph, self.image) if bytes_in else graph,
            interpreter=interpreter,
            spec=replace(self.spec, dtype="float32") if bytes_in else self.spec,
            image=self.image,
            outputs=outputs,
            precision=precision_of(graph),
            straight_through=any(n.op in STRAIGHT_THROUGH for n in interpreter.graph.walk()),
            batch=self._batch or 1,
        )

    @cached_property
    def _why_no_structure(self) -> str | None:
        """Why the graph up to the target is not the function that onnxruntime computes, or None.

        Gradients that were verified show that it is; a graph that draws random numbers shows
        nothing.
        """
        verified = "verdict" in vars(self) and self.verdict.reason is None
        names = (self.target.name,) if self.target else ()
        if verified or not {*names} <= {*self.reach.outputs} or random_nodes(self.graph.graph):
            return None
        try:
            subject = self._subject(names)
        except PerimetryError:
            return None
        return why_another_function(subject, example(self.spec, 1))

    @cached_property
    def why_no_gradients(self) -> str | None:
        """None when gradients can be trusted, else the reason why not, with the node at fault."""
        reason = self.verdict.reason
        return None if reason is None else f"{NO_GRADIENTS}{reason}"

    def select(self, member: int, x: Tensor) -> None:
        """There is one weight set and nothing to calibrate."""
        if member != 0:
            raise InputError(
                f"weight set {member} was requested; an ONNX file has only weight set 0"
            )

    def run(self, x: Tensor, *, target: bool = True, logits: bool = False) -> Outputs:
        """One pass over `x`; see `Model.run`.

        Raises `NotApplicableError` without a target, or when `x` requires a gradient that cannot
        be trusted.
        """
        if target and self.target is None:
            raise NotApplicableError(self.why_not_spatial or "")
        if x.requires_grad:
            reason = self.why_no_gradients or (self.reach.why_no_logits if logits else None)
            if reason is not None:
                raise NotApplicableError(reason)
        grids = [self.target] if target and self.target else []
        maps, scores = self._run(x, grids, logits=logits)
        return Outputs(next(iter(maps), None), scores)

    def run_each(self, x: Tensor, grids: Sequence[Grid], *, logits: bool = False) -> list[Outputs]:
        """One pass for several targets; see `ModelOfScales.run_each`.

        Whether their gradients can be trusted says the model that `at` gives for each.
        """
        maps, scores = self._run(x, grids, logits=logits)
        return [Outputs(one, scores) for one in maps]

    def _run(
        self, x: Tensor, grids: Sequence[Grid], *, logits: bool
    ) -> tuple[list[Tensor], Tensor | None]:
        """The maps (batch, channels, height, width) of `grids`, and the logits if asked."""
        names = [grid.name for grid in grids]
        names += [self._output] if logits and self._output else []
        if not names:
            return [], None
        values = self._pass(x, tuple(dict.fromkeys(names)), {g.name: g.batch_axis for g in grids})
        scores = values[self._output].flatten(1) if logits and self._output else None
        return [grid.read(values[grid.name]) for grid in grids], scores

    def _pass(
        self, x: Tensor, names: tuple[str, ...], axes: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """Evaluate the tensors `names`, in pieces if the file requires a batch size.

        `axes` gives the axis of the images where it is not the first: the second one of tokens
        before them.
        """
        one = self._differentiable if x.requires_grad else self._forward
        if self._batch is None:
            return one(x, names)
        pieces = []
        for piece in x.split(self._batch):
            missing = self._batch - len(piece)
            full = torch.cat([piece, piece[-1:].detach().expand(missing, *piece.shape[1:])])
            found = one(full, names).items()
            pieces.append({n: v.narrow(axes.get(n, 0), 0, len(piece)) for n, v in found})
        return {n: torch.cat([p[n] for p in pieces], axes.get(n, 0)) for n in names}

    def _forward(self, x: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
        values = self._session(names).run_tensors({self.image: shaped(x, self.spec)})
        return {n: v.to(self.device, torch.float32) for n, v in values.items()}

    def _differentiable(self, x: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
        x = x.permute(0, 2, 3, 1) if self.spec.layout == "NHWC" else x
        reached = set(names) <= set(self.reach.outputs)
        by = self._interpreter(self.reach.outputs if reached else names)
        return by({self.image: x}, names)  # type: ignore[no-any-return]

    @cached_property
    def _interpreters(self) -> dict[tuple[str, ...], Interpreter]:
        return {}

    def _interpreter(self, names: tuple[str, ...]) -> Interpreter:
        """The graph up to the tensors `names`, which need not be target and logits."""
        if names not in self._interpreters:
            mode = Mode(dtype=self._dtype, device=self.device)
            self._interpreters[names] = Interpreter(with_outputs(self.graph, names), mode)
        return self._interpreters[names]

    def skeleton(self) -> nn.Module:
        """A light copy that maps `x` to the target; see `Model.skeleton`."""
        from .skeleton.skeleton import OnnxSkeleton

        if self.target is None:
            raise NotApplicableError(self.why_not_spatial or "")
        if self._why_no_structure is not None:
            raise NotApplicableError(f"no structure: {self._why_no_structure}")
        skeleton = OnnxSkeleton(self.graph, self.image, self.target, self.spec.layout, self._energy)
        note = f"structure: {len(skeleton.body.folded)} batch norms folded by the exporter assumed"
        if skeleton.body.folded and note not in self.notes:
            self.notes.append(note)
        return skeleton

    def padded(self, fill: Fill, options: PaddingOptions = PADDING_DEFAULTS) -> OnnxModel:
        """A kernel-padded copy; see `Model.padded`. A graph has no norms to recalibrate."""
        from .kernel_padding.rewrite import pad_graph

        padded = pad_graph(self.graph, fill, seed=options.seed)
        model = self._copy(padded.proto)
        model._energy = padded.energy
        model.original = cast("Model", self)
        model.treatment = padded.treatment
        model.notes += left_note(model.treatment)
        if options.recalibrate:
            model.notes.append("not recalibrated: norm statistics are part of an ONNX graph")
        self._compare_shapes(model)
        return model

    def _copy(self, proto: onnx.ModelProto) -> OnnxModel:
        """A copy of the model with the graph `proto`."""
        made = copy_without_caches(self)
        made.graph = proto
        made.notes = [n for n in self.notes if n not in self._measured]
        return made

    def resized(self, height: int, width: int) -> OnnxModel:
        """A copy at another input size; see `Model.resized`."""
        made = self._copy(self.graph)
        name = self.target.name if self.target else None

        def attempt(height: int, width: int) -> None:
            made.spec = replace(self.spec, height=height, width=width)
            made.graph = take_size(self.graph, image_input(self.graph, self.image), made.spec)
            check_spec(made.spec, image_input(made.graph, self.image))
            made.target = made._locate(name)
            if made.target is not None and self.target is not None:
                made.target = made.target.chosen_like(self.target)
            made.run(example(made.spec, 1), target=name is not None, logits=True)

        resize_images(attempt, (height, width), self)
        made.original = self.original.resized(height, width) if self.original else None
        return made

    def scales(self) -> list[Grid]:
        """The last map of every resolution; see `ModelOfScales.scales`."""
        return self._way(self._ends()).scales()

    def blocks(self) -> Blocks:
        """The maps behind the blocks on the way to the target; see `ModelOfScales.blocks`."""
        if self.target is None:
            raise NotApplicableError(self.why_not_spatial or "")
        way = self._way([self.target.name])
        return find_blocks(way, next(iter(way.outputs), None), self.target)

    def output_map(self) -> Grid | None:
        """The output that is a map with the most units; see `ModelOfScales.output_map`."""
        return self._way(self._ends()).output_map()

    def _way(self, ends: Sequence[str]) -> Way:
        size = (self.spec.height, self.spec.width)
        return graph_way(self.graph, self.image, ends, self._example, size)

    def at(self, grid: Grid) -> OnnxModel:
        """The same model with the target `grid`; see `ModelOfScales.at`."""
        made = self._copy(self.graph)
        made.target, made.why_not_spatial = grid, None
        original = cast("OnnxModel | None", self.original)
        made.original = cast("Model", original.at(grid)) if original else None
        return made

    @cached_property
    def _stages(self) -> list[Grid]:
        if self.target is None:
            raise NotApplicableError(self.why_not_spatial or "")
        size = (self.spec.height, self.spec.width)
        return stage_grids(self.graph, self.image, self.target, self._example, size)

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """The last spatial map at each resolution; see `Model.stages`."""
        axes = {grid.name: grid.batch_axis for grid in self._stages}
        values = self._pass(x.detach(), tuple(axes), axes)
        return {grid.name: grid.read(values[grid.name]) for grid in self._stages}

    def every_output(self, x: Tensor) -> EveryOutput:
        """All outputs of the file for one image; see `Model.every_output`.

        Where onnxruntime refuses the file as a whole, each output is computed by itself.
        """
        feeds = {self.image: feed(x.expand(self._batch or 1, *x.shape[1:]), self.spec)}
        names = tuple(o.name for o in self.graph.graph.output)
        found = self._outputs(names, feeds)
        if found.tensors or len(names) == 1:
            return found
        parts = [self._outputs((name,), feeds) for name in names]
        return EveryOutput(
            {n: v for part in parts for n, v in part.tensors.items()},
            {n: why for part in parts for n, why in part.unread.items()},
        )

    def _outputs(self, names: tuple[str, ...], feeds: dict[str, Any]) -> EveryOutput:
        """The outputs `names`, or why onnxruntime does not compute them."""
        try:
            values = self._session(names).run(feeds)
        except (InputError, ModelFileError) as error:
            return EveryOutput(unread=dict.fromkeys(names, str(error)))
        return every_output(values)

    @cached_property
    def complexity(self) -> Complexity:
        """Numbers stored as weights, and MACs at the size of `spec`."""
        return graph_complexity(self.graph, self.image, self._example)

    def filters(self) -> dict[str, Tensor]:
        """Stored kernels of the 2-D convolutions, by node name; see `Model.filters`."""
        return graph_filters(self.graph)

    def stored(self, shapes: Collection[tuple[int, ...]]) -> dict[str, Tensor]:
        """Stored tensors of one of `shapes`, by name; see `ModelOfTokens.stored`."""
        found = (t for t in self.graph.graph.initializer if tuple(t.dims) in shapes)
        return {t.name: torch.tensor(numpy_helper.to_array(t)).float() for t in found}

    def trace(self, x: Tensor, read: Callable[[str, Tensor], None]) -> None:
        """Call `read(step, output)` for every node of the graph; see `Model.trace`."""
        named = steps(self.graph)
        session = Session(self.graph, tuple(named), device=self.device)
        values = session.run_tensors({self.image: shaped(x, self.spec)})
        for name, step in named.items():
            read(step, values[name])

    def nodes(self, x: Tensor) -> dict[str, NodeOutput]:
        """Every tensor of floats of one pass; see `ModelOfNodes.nodes`."""
        return node_outputs(self.graph, self.image, self._full(x), self.device)

    def fed(self, x: Tensor, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What nodes give for given inputs; see `ModelOfNodes.fed`."""
        return fed_outputs(self.graph, self.image, self._full(x), values, self.device)

    def each_quantised(self, x: Tensor) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """One layer at a time in eight bits; see `QuantisableModel.each_quantised`."""
        return each_quantised(self.graph, self.image, self._full(x), self.device)

    def _full(self, x: Tensor) -> Tensor:
        """One image as the file takes it, as often as its batch size asks for."""
        return shaped(x.cpu().expand(self._batch or 1, *x.shape[1:]), self.spec)

    def random_steps(self, x: Tensor) -> list[str]:
        """The nodes that may draw random numbers; see `Model.random_steps`."""
        return random_nodes(self.graph.graph)

    def with_padding_mode(self, mode: PaddingMode) -> OnnxModel:
        """A copy that pads by `mode` instead of zeros; see `Model.with_padding_mode`."""
        proto, found = exchange(self.graph, mode, {self.image: self._example})
        made = self._copy(proto)
        made.notes += found
        self._compare_shapes(made)
        return made

    def _compare_shapes(self, other: OnnxModel) -> None:
        """Raise `ModelFileError` unless `other` gives outputs of the shapes that `self` gives."""
        names = (self._output or self._first, *([self.target.name] if self.target else []))
        feeds = {self.image: self._example}
        old, new = (m._session(names).run(dict(feeds)) for m in (self, other))
        changed = [printable(n) for n in names if old[n].shape != new[n].shape]
        if changed:
            raise ModelFileError(
                f"the change of the graph changed the shapes of {', '.join(changed)}"
            )


NO_MAP = "no tensor on the way from the image to the output is a grid of units; name the target"
