"""Any `torch.nn.Module` as a `Model`.

The forward pass stops at the target. Weights are frozen, gradients are taken with respect to the
input only. On the CPU, batch and instance norm return wrong input gradients at batch 1 when the
incoming gradient is strided (seen with torch 2.13 and 2.15); `contiguous_norm_gradients` guards
every pass against it.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .borders import active, survey
from .device import pick_device
from .errors import InputError, NotApplicableError, PerimetryError
from .folding import Pairs, find_pairs, folded
from .model import (
    UNTOUCHED,
    Border,
    Fill,
    Grid,
    InputSpec,
    Outputs,
    Precision,
    Treatment,
)
from .padding_trace import Trace, trace_uneven
from .resizing import resize
from .shapes import quickly
from .skeleton import Skeleton, light_copy
from .stages import module_filters, record_stages
from .torch_target import FEATURES, find_target, first_logits, named_target, run_target, run_to
from .weights import calibrate_norms, match_norms, tensors_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KEPT_BYTES = 2**30
"""Weight sets stay in memory, once built and calibrated, where all together take no more."""

_NORMS = (F.batch_norm, torch.batch_norm, F.instance_norm, torch.instance_norm)


class _ContiguousNormGradients(TorchFunctionMode):
    """Makes the gradient that reaches a norm's backward contiguous."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        out = func(*args, **(kwargs or {}))
        if func in _NORMS and out.requires_grad:
            out.register_hook(lambda gradient: gradient.contiguous())
        return out


def contiguous_norm_gradients(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Guard one pass over `x` (batch, ...) where torch's norm gradients can be wrong."""
    at_risk = x.requires_grad and x.shape[0] == 1 and x.device.type == "cpu"
    return _ContiguousNormGradients() if at_risk else contextlib.nullcontext()


def _size(module: nn.Module) -> int:
    """Bytes of all parameters."""
    return sum(p.nbytes for p in module.parameters())


def _same(a: Tensor, b: Tensor) -> bool:
    return a.device == b.device and torch.equal(a, b)


def _at_least_single(value: Tensor | None) -> Tensor | None:
    """The tensor in float32 where it is of a narrower type: sums over it must not be narrow."""
    narrow = value is not None and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if value is not None and narrow else value


class TorchModel:
    """A torch module and everything a suite asks of it; see `adapters.model.Model`.

    `shell` may live on the `meta` device: it gives shapes and the skeleton. `build(member)` gives
    the real module, on the CPU, when numbers are first wanted; it must not share state with others.
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
    ) -> None:
        self.reference = reference
        self.spec = spec
        self.device = device
        self.source = source
        self.members = members
        self.gradients: str | None = None
        self.original: TorchModel | None = None
        self.treatment: Treatment | None = None
        self.notes: list[str] = []
        self._shell = shell
        self._build = build
        self._calibrated = calibrated
        self._recalibrated = False
        self._fit_images: Tensor | None = None
        self._dtype = torch.float64 if precision == "float64" else torch.float32
        self._fast = precision == "bfloat16"
        self._seed = 0
        self._body: nn.Module | None = None
        self._trace = Trace()
        self._live: nn.Module | None = None
        self._light: nn.Module | None = None
        self._kept: dict[int, tuple[nn.Module, Tensor]] = {}
        self._pairs: Pairs | None = None
        self._border: Border | None = None
        self.target = self._locate(target, prefix)
        self.spatial = None if self.target else "no layer gives a grid of units for this input size"

    def _locate(self, name: str | None, prefix: int | None) -> Grid | None:
        """Find the target on the shell; on the real module where the shell cannot run."""
        first = next(iter(self._shell.parameters()), torch.empty(0))
        modules: list[Callable[[], nn.Module]] = [lambda: self._build(0)]
        if first.is_meta:
            modules.insert(0, lambda: self._shell)
        failure: Exception | None = None
        for make in modules:
            module = make()
            x = self._example(module)
            try:
                with torch.no_grad():
                    if name is None:
                        return quickly(partial(find_target, module, x, prefix))
                    return quickly(partial(named_target, module, x, name, prefix))
            except PerimetryError:
                raise
            except Exception as error:  # a foreign forward may raise anything
                failure = error
        raise InputError(
            f"{self.reference} refuses an input of {self.spec.channels} x {self.spec.height} x "
            f"{self.spec.width} (channels x height x width): {failure}; give the size it was made "
            "for"
        ) from failure

    def _example(self, module: nn.Module) -> Tensor:
        """Two blank inputs of the size, type and device of `module`."""
        first = next(iter(module.parameters()), torch.empty(0))
        shape = (2, self.spec.channels, self.spec.height, self.spec.width)
        return self._feed(torch.zeros(shape, dtype=first.dtype, device=first.device))

    def _feed(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1) if self.spec.layout == "NHWC" else x

    def module(self) -> nn.Module:
        """The real module, on the device, frozen; its first weight set if none was selected."""
        if self._live is None:
            self._live = self._prepare(0)
        return self._live

    def _prepare(self, member: int) -> nn.Module:
        module = self._build(member)
        if self.treatment is not None:
            from .padding import pad_traced

            fill = self.treatment.fill
            shape: Fill = "zero" if fill == "fit" else fill
            pad_traced(module, self._trace, shape, self._seed + member)
        module = module.eval().requires_grad_(False).to(self.device, self._dtype)
        module = module.to(memory_format=torch.channels_last)
        if self._fit_images is not None:
            self._fit(module, self._fit_images)
        return module

    def _fit(self, module: nn.Module, images: Tensor) -> None:
        """Move the grown taps of `module` as the fill `fit` does, and note which layers moved."""
        from .padding_fit import Fit

        def run(chunk: Tensor) -> Tensor:
            x = self.spec.prepare(chunk)
            with contiguous_norm_gradients(x):
                raw, _ = self._pass(module, x, target=True, logits=False)
            return self.target.read(raw)  # type: ignore[union-attr,arg-type]

        assert self.treatment is not None  # noqa: S101 - only padded twins have images to fit
        grown = [layer.name for layer in self.treatment.layers]
        moved = Fit(module, grown, run, images.to(self.device), seed=self._seed).solve()
        kept = [name for name in grown if name not in moved]
        self.notes.append(
            f"fitted on {len(images)} unlabelled images: {', '.join(moved) or 'none'}"
        )
        if kept:
            self.notes.append(f"new taps left at 0, the same function: {', '.join(kept)}")

    def select(self, member: int, x: Tensor) -> None:
        """Load weight set `member` (0 to `members` - 1); `x` (images, ...) calibrates norms.

        That is done for `@init` models, on the first images, and for twins that are to be
        recalibrated, on all: their norms' outputs get the moments that the original's have.
        """
        if not 0 <= member < self.members:
            raise InputError(f"weight set {member} of {self.members} was asked for")
        x = x[: self._calibrated]
        self._light = None
        kept = self._kept.get(member)
        if kept is not None and _same(kept[1], x):
            self._live = kept[0]
            return
        if self._live is None or self.members > 1:
            self._live = kept[0] if kept is not None else self._prepare(member)
        if self._recalibrated and self.original is not None:
            self.original.select(member, x)
            match_norms(self._live, self.original.module(), self._cast(x, self._live))
        elif self._calibrated:
            calibrate_norms(self._live, self._cast(x, self._live))
        if _size(self._live) * self.members > KEPT_BYTES:
            self._kept.clear()
        self._kept[member] = (self._live, x)

    def _cast(self, x: Tensor, module: nn.Module) -> Tensor:
        """Bring `x` to the module's device and type; batches in channels-last order, as it is."""
        first = next(iter(module.parameters()), x)
        x = x.to(first.device, first.dtype)
        if len(x) > 1:  # a batch of one stays clear of the norms' strides, see above
            x = x.contiguous(memory_format=torch.channels_last)
        return self._feed(x)

    def run(self, x: Tensor, *, target: bool = True, logits: bool = False) -> Outputs:
        """One pass over `x`; see `Model.run`. Raises `NotApplicableError` without a target."""
        if target and self.target is None:
            raise NotApplicableError(self.spatial or "")
        grad, guard = torch.set_grad_enabled(x.requires_grad), contiguous_norm_gradients(x)
        with grad, guard, active(self._border):
            module = self._faster() if self._fast and x.requires_grad else self.module()
            raw, out = self._pass(module, x, target=target, logits=logits)
        grid = self.target.read(raw) if self.target and raw is not None else None
        return Outputs(_at_least_single(grid), _at_least_single(first_logits(out)))

    def _faster(self) -> nn.Module:
        """The module for gradients in bfloat16; batch norms are folded where that is the same."""
        if self._light is None:
            module = self.module()
            if self._pairs is None:
                try:
                    self._pairs = find_pairs(module, self._shown)
                except Exception:  # what comes after the target may refuse; nothing is lost
                    self._pairs = {}
            twin = copy.deepcopy(folded(module, self._pairs))  # `to` changes tensors in place
            self._light = twin.to(torch.bfloat16)
        return self._light

    def _shown(self, module: nn.Module) -> list[Tensor]:
        """What `module` makes of one image of noise: target and logits, those that there are."""
        shape = (1, self.spec.channels, self.spec.height, self.spec.width)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        raw, out = self._pass(module, x, target=True, logits=True)
        return [value for value in (raw, first_logits(out)) if value is not None]

    def _pass(
        self, module: nn.Module, x: Tensor, *, target: bool, logits: bool
    ) -> tuple[Tensor | None, Any]:
        x = self._cast(x, module)
        if not target or self.target is None:
            return None, module(x)
        if not logits:
            return run_target(module, x, self.target), None
        if self.target.name == FEATURES:
            raw: Tensor = module.forward_features(x)  # type: ignore[operator]
            return raw, module.forward_head(raw)  # type: ignore[operator]
        return run_to(module, x, self.target.name, to_end=True)

    def skeleton(self) -> nn.Module:
        """A light copy that maps `x` to the target; see `Model.skeleton`."""
        if self.target is None:
            raise NotApplicableError(self.spatial or "")
        if self._body is None:
            self._body = light_copy(self._shell).eval().requires_grad_(False)
        return Skeleton(self._body, self.target)

    def padded(
        self,
        fill: Fill,
        *,
        seed: int = 0,
        recalibrate: bool = False,
        images: Tensor | None = None,
    ) -> TorchModel:
        """The kernel-padded twin; see `Model.padded`."""
        from .padding import pad_module

        twin = copy.copy(self)
        twin._fit_images = self._fit_on(images) if fill == "fit" else None
        twin.original = self
        twin._live = twin._light = twin._pairs = None
        twin._kept = {}
        twin._seed = seed
        twin._recalibrated = recalibrate
        twin._calibrated = sys.maxsize if recalibrate else self._calibrated
        twin._body = light_copy(self._shell).eval().requires_grad_(False)
        example = self._example(self._shell)
        twin._trace = trace_uneven(twin._body, example)
        shape: Fill = "zero" if fill == "fit" else fill
        treatment = pad_module(twin._body, shape, example, seed=seed, trace=twin._trace)
        twin.treatment = replace(treatment, fill=fill)
        twin.notes = list(self.notes)
        if not twin.treatment.layers:
            twin.notes.append(UNTOUCHED)
        if recalibrate:
            twin.notes.append("norm statistics re-estimated: outputs match the original's moments")
        return twin

    def _fit_on(self, images: Tensor | None) -> Tensor:
        """The images that `fit` may see. Raises `InputError`, `NotApplicableError`."""
        if images is None:
            raise InputError(
                "kernel padding 'fit' was given no images; expected images=..., (images, 3, "
                "height, width) in [0, 1], without labels, other than those that are audited"
            )
        if self._calibrated:
            raise NotApplicableError(
                "kernel padding 'fit' is for trained weights, which an @init model has not; "
                "use box or fresh"
            )
        if self.target is None:
            raise NotApplicableError(self.spatial or "")
        return images

    def _twin(self) -> TorchModel:
        """A copy on the same weights; on its own where `select` would change them in place."""
        twin = copy.copy(self)
        twin._light = twin._pairs = None
        twin._kept = {}
        twin.notes = list(self.notes)
        if self._calibrated and self.members == 1:
            twin._live = copy.deepcopy(self._live)
        return twin

    def resized(self, height: int, width: int) -> TorchModel:
        """The same weights at another input size; see `Model.resized`."""
        if self._fit_images is not None:
            self.module()  # fitted at the size of its images
        twin = self._twin()
        name, prefix = (self.target.name, self.target.prefix) if self.target else (None, None)

        def attempt(height: int, width: int) -> None:
            twin.spec = replace(self.spec, height=height, width=width)
            twin.target = twin._locate(name, prefix)

        resize(attempt, (height, width), self)
        twin.original = self.original.resized(height, width) if self.original else None
        return twin

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """The last spatial map at each resolution; see `Model.stages`."""
        if self.target is None:
            raise NotApplicableError(self.spatial or "")
        return record_stages(self.module(), lambda: self.run(x.detach()), x, self.target)

    def filters(self) -> dict[str, Tensor]:
        """Learned kernels of the 2-D convolutions, by layer name; see `Model.filters`."""
        return module_filters(self.module())

    def bordered(self, border: Border) -> TorchModel:
        """A twin that continues its maps by `border` in place of padding; see `Model.bordered`."""
        module, x = self.module(), self.spec.blank()
        found = survey(module, lambda: self.run(x, target=self.target is not None), border)
        twin = self._twin()
        twin._border = border
        twin.notes += found
        return twin


def wrap(
    module: nn.Module,
    *,
    name: str | None = None,
    spec: InputSpec | None = None,
    device: str = "auto",
    target: str | None = None,
    precision: Precision = "float32",
) -> TorchModel:
    """Make a `Model` of any module; the module itself is never touched.

    Without `spec` the input is guessed: 224 x 224, ImageNet's mean and standard deviation, channels
    of the first convolution. Raises `InputError` when the module refuses that input.
    """
    frozen = copy.deepcopy(module).cpu().eval().requires_grad_(False)
    model = TorchModel(
        frozen,
        lambda _member: copy.deepcopy(frozen),
        reference=name or f"module:{type(module).__name__}",
        spec=spec or guess_spec(frozen),
        device=pick_device(device),
        source={"runtime": "torch", "tensors_sha256": tensors_digest(frozen)},
        target=target,
        precision=precision,
    )
    if model.spec.guessed:
        model.notes.append(f"input guessed: {', '.join(model.spec.guessed)}")
    return model


def guess_spec(module: nn.Module) -> InputSpec:
    """ImageNet's usual input, with the channels of the first convolution; all marked as guessed."""
    first = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    channels = first.in_channels if first is not None else 3
    spec = InputSpec(224, 224, guessed=("height", "width", "mean", "std"))
    if channels == 3:
        return replace(spec, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return replace(spec, channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels)
