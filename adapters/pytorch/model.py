"""Any `torch.nn.Module` as a `Model`.

The forward pass stops at the target. Weights are frozen, gradients are taken with respect to the
input only. `batch_norm_fix` guards every pass against wrong gradients of norms.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..blocks import Blocks
from ..complexity import Complexity
from ..copies import copy_without_caches, resize_images
from ..device import pick_device
from ..errors import InputError, NotApplicableError
from ..every_output import EveryOutput, every_output
from ..feature_grid import Grid
from ..input_spec import InputSpec, guessed_note
from ..model import NodeOutput, Outputs, Precision
from ..padding_mode import PaddingMode
from ..target_rule import Way, target_note
from ..treatment import PADDING_DEFAULTS, Fill, PaddingOptions, Treatment, left_note
from .batch_norm_fix import contiguous_norm_gradients
from .batch_norm_folding import Pairs, find_pairs, folded
from .channels import pick_spec, settle_types
from .complexity import module_complexity
from .float_types import cast_note, other_types
from .inputs import fix_module_inputs
from .kernel_padding.padded_model import ModelPadding, check_fit_images, pad_body
from .nodes import (
    fed_layer_outputs,
    layer_outputs,
    layers_by_image,
    module_filters,
    record_stages,
    watched,
)
from .padding_mode import active, survey
from .passes import NOT_NARROW, ONE_BY_ONE, ModulePasses
from .skeleton import Skeleton, light_copy
from .target import blank_input, locate, module_blocks, module_way
from .tensors import cast_module, copy_module, frozen_copy, has_complex, order_kernels
from .weights import (
    WeightSets,
    calibrate_norms,
    check_initialised,
    match_norms,
    module_tensors_digest,
    not_finite_weights,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence


class TorchModel:
    """A torch module as a `Model`; see `adapters.model.Model`.

    `shell` may be on the `meta` device: target and skeleton are derived from it. `build(member)`
    returns the module with weights, on the CPU, when they are first needed; it must not share state
    with other modules. Its norms are calibrated on the first `calibrated` images. Modules that are
    not `known` are first tried: whether they have gradients, and in which memory order they run.
    """

    def __init__(
        self,
        shell: nn.Module,
        build: Callable[[int], nn.Module],
        *,
        reference: str,
        spec: InputSpec,
        device: torch.device,
        source: Mapping[str, str],
        target: str | None = None,
        prefix: int | None = None,
        members: int = 1,
        calibrated: int = 0,
        precision: Precision = "float32",
        known: bool = True,
    ) -> None:
        self.reference = reference
        self.spec = spec
        self.device = device
        self.source = source
        self.members = members
        self.original: TorchModel | None = None
        self.treatment: Treatment | None = None
        self.notes: list[str] = []
        self._shell = shell
        self._build = build
        self._known = known
        self._passes = ModulePasses(spec)
        self._calibrated = calibrated
        self._recalibrated = False
        self._dtype = torch.float64 if precision == "float64" else torch.float32
        self._fast = precision == "bfloat16"
        self._body: nn.Module | None = None
        self._padding: ModelPadding | None = None
        self._padding_mode: PaddingMode | None = None
        self._sets = WeightSets(members)
        self._prefix = prefix
        self.target = self._locate(target, prefix)
        self.notes += target_note(self.target)
        self.why_not_spatial = (
            None if self.target else "no layer gives a grid of units for this input size"
        )

    @cached_property
    def why_no_gradients(self) -> str | None:
        """None, or why the input has no gradient, or a wrong one; a known model is not tried."""
        module, notes = self._sets.live or self._shell, self.notes
        return None if self._known else self._passes.why_no_gradients(module, self.target, notes)

    def select(self, member: int, x: Tensor) -> None:
        """Load weight set `member` (0 to `members` - 1); `x` (images, ...) calibrates norms.

        `@init` models are calibrated on the first images, padded models with `recalibrate` on all:
        the outputs of their norms get the moments that those of the original have.
        """
        if not 0 <= member < self.members:
            raise InputError(f"weight set {member} was requested; expected 0 to {self.members - 1}")
        self.__dict__.pop("_fast_module", None)  # it is a copy of the set in use until now
        x = x[: self._calibrated]
        self._sets.select(member, x, self._prepare, partial(self._calibrate, member, x))

    def run(self, x: Tensor, *, target: bool = True, logits: bool = False) -> Outputs:
        """One pass over `x`; see `Model.run`. Raises `NotApplicableError` without a target."""
        if target and self.target is None:
            raise NotApplicableError(self.why_not_spatial or "")
        raw, out = self._run(x, [self.target] if target and self.target else [], logits=logits)
        return Outputs(next(iter(raw), None), out)

    def run_each(self, x: Tensor, grids: Sequence[Grid], *, logits: bool = False) -> list[Outputs]:
        """One pass for several targets; see `ModelOfScales.run_each`."""
        raw, out = self._run(x, grids, logits=logits)
        return [Outputs(one, out) for one in raw]

    def _run(
        self, x: Tensor, grids: Sequence[Grid], *, logits: bool
    ) -> tuple[list[Tensor], Tensor | None]:
        """The maps (batch, channels, height, width) of `grids`, and the logits if asked."""
        grad, guard = torch.set_grad_enabled(x.requires_grad), contiguous_norm_gradients(x)
        with grad, guard, active(self._padding_mode):
            module = self._fast_module if self._fast and x.requires_grad else self.module()
            raw, out = self._passes.run_each(module, x, grids, logits=logits)
        maps = [_at_least_single(g.read(one)) for g, one in zip(grids, raw, strict=True)]
        return maps, None if out is None else _at_least_single(out)

    def skeleton(self) -> nn.Module:
        """A light copy that maps `x` to the target; see `Model.skeleton`."""
        if self.target is None:
            raise NotApplicableError(self.why_not_spatial or "")
        if self._body is None:
            self._body = _weightless(self._shell)
        return Skeleton(self._body, self.target)

    def padded(self, fill: Fill, options: PaddingOptions = PADDING_DEFAULTS) -> TorchModel:
        """A kernel-padded copy; see `Model.padded`."""
        images = None
        if fill == "fit":
            images = check_fit_images(
                options.images, trained=not self._calibrated, why_not_spatial=self.why_not_spatial
            )
        model = self._copy(WeightSets(self.members))
        model.original = self
        model._body, model._padding = self._grown(
            partial(pad_body, fill=fill, seed=options.seed, images=images)
        )
        model.treatment = model._padding.treatment
        if fill == "kim2023" and self.target is not None:
            model._relocate(self.target)
        model._recalibrated = options.recalibrate
        model.notes += left_note(model.treatment)
        if options.recalibrate:
            model._calibrated = sys.maxsize
            model.notes.append("norm statistics re-estimated: outputs match the original's moments")
        return model

    def _grown(self, pad: Callable[..., ModelPadding]) -> tuple[nn.Module, ModelPadding]:
        """Return the body without weights, padded by `pad`; its forward may need real weights."""
        body = _weightless(self._shell)
        try:
            return body, pad(body, x=self._blank(self._shell))
        except InputError:
            real = self._build(0).eval()
            padding = pad(real, x=self._blank(real))
            return _weightless(real), padding

    def _blank(self, module: nn.Module) -> Tensor:
        return blank_input(module, self.spec)[: 1 if self._passes.one_by_one else 2]

    def resized(self, height: int, width: int) -> TorchModel:
        """A copy with the same weights at another input size; see `Model.resized`."""
        if self._padding is not None and self._padding.images is not None:
            self.module()  # fitted at the size of its images
        made = self._copy_on_same_weights()
        name, prefix = (self.target.name, self.target.prefix) if self.target else (None, None)

        def attempt(height: int, width: int) -> None:
            made.spec = replace(self.spec, height=height, width=width)
            made._passes = replace(self._passes, spec=made.spec)
            made.target = made._locate(name, prefix)
            if made.target is not None and self.target is not None:
                made.target = made.target.chosen_like(self.target)

        resize_images(attempt, (height, width), self)
        made.original = self.original.resized(height, width) if self.original else None
        return made

    def scales(self) -> list[Grid]:
        """The last map of every resolution; see `ModelOfScales.scales`."""
        way = self._way()
        return way.scales() if way else []

    def blocks(self) -> Blocks:
        """The maps behind the blocks on the way to the target; see `ModelOfScales.blocks`."""
        if self.target is None:
            raise NotApplicableError(self.why_not_spatial or "")
        count = 1 if self._passes.one_by_one else 2
        return module_blocks(self._candidates(), self.spec, self.target, self._prefix, count)

    def output_map(self) -> Grid | None:
        """The output that is a map with the most units; see `ModelOfScales.output_map`."""
        way = self._way()
        return way.output_map() if way else None

    def _way(self) -> Way | None:
        count = 1 if self._passes.one_by_one else 2
        return module_way(self._candidates(), self.spec, self._prefix, count)

    def at(self, grid: Grid) -> TorchModel:
        """The same model with the target `grid`; see `ModelOfScales.at`."""
        made = self._copy(self._sets)
        made.target, made.why_not_spatial = grid, None
        made.original = self.original.at(grid) if self.original else None
        return made

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """The last spatial map at each resolution; see `Model.stages`."""
        if self.target is None:
            raise NotApplicableError(self.why_not_spatial or "")
        if self._passes.one_by_one and len(x) > 1:
            parts = [self.stages(one) for one in x.split(1)]
            return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        x, layers = x.detach(), self._layers_by_image
        return record_stages(self.module(), lambda: self.run(x), x, self.target, layers)

    @cached_property
    def _layers_by_image(self) -> frozenset[str] | None:
        """Names of the layers that give one entry per image; None if images are passed singly."""
        images = self._passes.noise(3).to(self.device)
        found = layers_by_image(self.module(), lambda count: self.run(images[:count]))
        return None if self._passes.one_by_one else found

    def every_output(self, x: Tensor) -> EveryOutput:
        """All outputs of one pass over one image; see `Model.every_output`."""
        module = self.module()
        with torch.no_grad(), active(self._padding_mode):
            return every_output(module(self._passes.cast(x.detach(), module)))

    def nodes(self, x: Tensor) -> dict[str, NodeOutput]:
        """The output of every call of a layer; see `ModelOfNodes.nodes`."""
        return layer_outputs(self.module(), partial(self.every_output, x))

    def fed(self, x: Tensor, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What layers give for given inputs; see `ModelOfNodes.fed`."""
        return fed_layer_outputs(self.module(), partial(self.every_output, x), values)

    @cached_property
    def complexity(self) -> Complexity:
        """Parameters, and MACs at the size of `spec`; counted without weights where possible."""
        shell = self._body if self._padding is not None and self._body is not None else self._shell
        return module_complexity(shell, self.spec, self._passes, self.module)

    def filters(self) -> dict[str, Tensor]:
        """Learned kernels of the 2-D convolutions, by layer name; see `Model.filters`."""
        return module_filters(self.module())

    def stored(self, shapes: Collection[tuple[int, ...]]) -> dict[str, Tensor]:
        """Parameters and buffers of one of `shapes`, by name; see `ModelOfTokens.stored`."""
        module = self.module()
        every = (*module.named_parameters(), *module.named_buffers())
        return {n: t.detach().float().cpu() for n, t in every if tuple(t.shape) in shapes}

    def trace(self, x: Tensor, read: Callable[[str, Tensor], None]) -> None:
        """Call `read(step, output)` for every operator of one pass; see `Model.trace`."""
        self._watch(x, lambda step, output, _random: read(step, output))

    def random_steps(self, x: Tensor) -> list[str]:
        """The operators of one pass that draw random numbers; see `Model.random_steps`."""
        found: list[str] = []
        self._watch(x, lambda step, _output, random: found.append(step) if random else None)
        return found

    def _watch(self, x: Tensor, read: Callable[[str, Tensor, bool], None]) -> None:
        with watched(self.module(), read):
            self.run(x.detach(), target=self.target is not None, logits=True)

    def with_padding_mode(self, mode: PaddingMode) -> TorchModel:
        """A copy that pads by `mode` instead of zeros; see `Model.with_padding_mode`."""
        module, x = self.module(), self.spec.blank()
        found = survey(module, lambda: self.run(x, target=self.target is not None), mode)
        made = self._copy_on_same_weights()
        made._padding_mode = mode
        made.notes += found
        return made

    def module(self) -> nn.Module:
        """Return the frozen module on the device; its first weight set if none is selected."""
        if self._sets.live is None:
            self._sets.live = self._prepare(0)
        return self._sets.live

    def _prepare(self, member: int) -> nn.Module:
        """Build weight set `member`, padded like this model but not calibrated."""
        module = self._grown_weights(member)
        module = cast_module(module.eval().requires_grad_(False), self.device, self._dtype)
        if self._known:
            order_kernels(module, torch.channels_last)
        else:
            self._passes.settle_order(module, self.target)
        if self._padding is not None:
            self.notes += self._padding.fit(module, partial(self._seen, module), self.device)
        return module

    def _seen(self, module: nn.Module, images: Tensor) -> Tensor:
        """Return the target of `module` for `images` (images, 3, height, width)."""
        x = self.spec.prepare(images)
        with contiguous_norm_gradients(x):
            raw, _ = self._passes.run(module, x, self.target, logits=False)
        return self.target.read(raw)  # type: ignore[union-attr,arg-type]

    def _calibrate(self, member: int, x: Tensor, module: nn.Module) -> None:
        if self._recalibrated and self.original is not None:
            self.original.select(member, x)
            match_norms(module, self.original.module(), self._passes.cast(x, module))
        elif self._calibrated:
            calibrate_norms(module, self._passes.cast(x, module))

    @cached_property
    def _fast_module(self) -> nn.Module:
        """The selected module in bfloat16; batch norms are folded where that is the same.

        A module that does not run so, as with complex weights, stays as it is.
        """
        module = self.module()
        if not has_complex(module):
            light = copy_module(folded(module, self._pairs))  # `to` changes tensors in place
            light = light.to(torch.bfloat16)
            if self._known or self._passes.runs(light, self.target):
                return light
        self.notes += [] if NOT_NARROW in self.notes else [NOT_NARROW]
        return module

    @cached_property
    def _pairs(self) -> Pairs:
        """Convolutions and the batch norms that can be folded into them."""
        try:
            return find_pairs(self.module(), self._shown)
        except Exception:  # layers after the target may refuse the input; folding is optional
            return {}

    def _shown(self, module: nn.Module) -> list[Tensor]:
        """The target and the logits of `module` for one image of noise, if it has them."""
        answer = self._passes.run(module, self._passes.noise(1), self.target, logits=True)
        return [value for value in answer if value is not None]

    def _locate(self, name: str | None, prefix: int | None) -> Grid | None:
        """Find the target on the shell, or on the module with weights if the shell cannot run."""
        grid, single = locate(self._candidates(), self.spec, name, prefix, self.reference)
        self._passes.one_by_one |= single
        if self._passes.one_by_one and ONE_BY_ONE not in self.notes:
            self.notes.append(ONE_BY_ONE)
        return grid

    def _relocate(self, target: Grid) -> None:
        """Find `target` again in a model that padding may have given smaller maps."""
        found = self._locate(target.name, target.prefix)
        self.target = found.chosen_like(target) if found else None
        if found is None:
            self.why_not_spatial = f"kernel padding left {target.name!r} no grid of units"

    def _candidates(self) -> list[Callable[[], nn.Module]]:
        """What a trace may run on: the shell if it has shapes alone, then a module with weights."""
        shell = self._shell if self._padding is None or self._body is None else self._body
        first = next(iter(shell.parameters()), torch.empty(0))
        modules: list[Callable[[], nn.Module]] = [partial(self._grown_weights, 0)]
        return [lambda: shell, *modules] if first.is_meta else modules

    def _grown_weights(self, member: int) -> nn.Module:
        """Weight set number `member`, with padded kernels if the model has them."""
        module = self._build(member)
        if self._padding is not None:
            self._padding.grow(module, member)
        return module

    def _copy(self, sets: WeightSets) -> TorchModel:
        made = copy_without_caches(self)
        made._sets = sets
        made.notes = list(self.notes)
        return made

    def _copy_on_same_weights(self) -> TorchModel:
        """A copy that shares the weights, unless `select` would change them in place."""
        own = bool(self._calibrated) and self.members == 1
        return self._copy(self._sets.copy(own=own))


def _weightless(shell: nn.Module) -> nn.Module:
    return light_copy(shell).eval().requires_grad_(False)


def _at_least_single(value: Tensor) -> Tensor:
    """Convert half-precision tensors to float32, so that sums over them are accurate."""
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


def wrap(
    module: nn.Module,
    *,
    name: str | None = None,
    spec: InputSpec | None = None,
    device: str = "auto",
    target: str | None = None,
    precision: Precision = "float32",
    size: tuple[int, int] | None = None,
    image: str | None = None,
    fixed: Mapping[str, Any] | None = None,
    declare: Callable[[InputSpec], InputSpec] = lambda spec: spec,
) -> TorchModel:
    """Make a `Model` of any module; the module itself is not changed.

    Without `spec` the input is guessed: `size` (height, width) or 224 x 224, ImageNet's mean and
    standard deviation, channels that the first layer takes; `declare` states parts of it. `image`
    is the input of `forward` that takes the image, `fixed` has values for the others by name. All
    layers are audited in float32, whatever they have, and a compiled module as its original.
    Raises `InputError` when the module refuses that input, cannot be copied, is or contains
    a TorchScript module, or has weights without values or shapes.
    """
    module = getattr(module, "_orig_mod", module)
    for layer, one in module.named_modules():
        if isinstance(one, torch.jit.ScriptModule):
            where = f"layer {layer!r} of {type(module).__name__}" if layer else type(one).__name__
            raise InputError(
                f"{where} is a TorchScript module, whose layers cannot be traced; give the "
                "original nn.Module, or export it to ONNX"
            )
    check_initialised(module)
    frozen = frozen_copy(module)
    digest = module_tensors_digest(frozen)
    single = torch.float64 if precision == "float64" else torch.float32
    others = other_types(frozen, single)
    frozen = cast_module(frozen, torch.device("cpu"), single)
    fix_module_inputs(frozen, image, fixed or {})
    model = TorchModel(
        frozen,
        lambda _member: copy_module(frozen),
        reference=name or f"module:{type(module).__name__}",
        spec=settle_types(frozen, others, lambda: spec or pick_spec(frozen, size, declare)),
        device=pick_device(device),
        source={"runtime": "torch", "tensors_sha256": digest, "library": library_of(module)},
        target=target,
        precision=precision,
        known=False,
    )
    model.notes[:0] = not_finite_weights(frozen)
    model.notes += [*cast_note(frozen, single), *guessed_note(model.spec)]
    return model


def library_of(module: nn.Module) -> str:
    """The package that defines the class of `module`, with its version; torch for one's own."""
    package = type(module).__module__.partition(".")[0]
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"torch {torch.__version__}"
