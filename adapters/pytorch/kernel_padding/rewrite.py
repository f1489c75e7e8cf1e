"""Kernel padding of any torch module, in place (Kim et al., arXiv 2108.13576).

Every strided convolution or pool whose stride does not divide its kernel grows at the bottom and at
the right until all input phases are read evenly, and every transposed convolution until its taps
reach all output phases evenly, which removes the checkerboard of Odena et al. (2016). The sizes of
all outputs stay, for every input size that the module accepted, except with `kim2023`, which leaves
transposed convolutions as they are. The new taps, by fill:

| fill | convolution, transposed or not | max-pool | mean-pool |
|---|---|---|---|
| `zero` | new taps are parameters of value 0, next to the weight | left | left |
| `box` | the weight convolved with a box of the stride | window k' | mean * box |
| `fresh` | a new random weight, same output variance | window k' | mean over k' |
| `kim2023` | zeros at the bottom and right of the weight | window k' | left |

`box` makes the output of a transposed convolution a moving mean over a stride of what it was.

One pass finds the calls (`trace`). A module that makes one becomes an instance of a subclass of its
class, whose forward rewrites them (`calls`). `box` and `fresh` replace the parameter by a larger
one; if the layer standardises its weight in forward, `box` acts on the standardised weight at every
call and the parameter stays. `zero` keeps the parameter and adds `weight_rows` (out, in, new rows,
all columns) and `weight_columns` (out, in, old rows, new columns), so that all that the layer
computes from its weight stays the same. So it does where the weight takes the place of the
parameter (weight norm, spectral norm, pruning, parametrizations), which `fresh` pads like `box`.
Kernels that are fixed (a blur) or computed from the input (CondConv) can be neither trained nor
drawn: `zero` and `kim2023` do not pad them, `fresh` pads them like `box`.

`kim2023` is what Kim et al. do to a network, for reproduction: kernels of convolutions and windows
of max-pools become larger, and nothing else changes. Where a padded layer reads one row less (odd
sizes of a layer whose padding was just enough), its output is smaller by one; layers that compute
their padding from their `kernel_size` (TF-SAME) compute it from the larger one and keep the size.

The weight that reaches `conv2d` has an attribute `tap_energy`, (rows, columns) float64 on the CPU:
the second moments of its taps if the old ones are independent with unit variance.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ...exported_operators import as_torch_function
from ...kernel_padding.arithmetic import (
    Pair,
    end_padding,
    grown_kernel,
    pad_weight,
    padded_size,
    tap_energy,
)
from ...kernel_padding.call import StridedCall, call_growth, settled_fill, why_not_padded
from ...torch_calls import CallWatcher, FunctionMode, Padding
from ...treatment import FILLS, ZEROS, Fill, PaddedLayer, Treatment
from .calls import (
    as_plane,
    fixed_energy,
    grow_conv,
    is_reparametrised,
    own_buffer,
    own_parameter,
    read_call,
    run_conv,
    run_max_pool,
    run_mean,
    run_transposed,
)
from .trace import UNPADDED_NAME, ObservedCall, PaddingTrace, trace_uneven

__all__ = ["end_padding", "pad_module", "pad_weight", "padded_size", "tap_energy"]

_PLAN = "kernel_padding"

_ENTRANCES = ("forward", "forward_features")

_NONE: tuple[Pair, Pair] = ((0, 0), (0, 0))


@dataclass
class PaddingPlan:
    """The kernel padding of a module.

    `grown` maps parameters that grew to their old kernels, `fixed` padded buffers to their
    `tap_energy`. `reparametrised` is the kernel of a weight that takes the place of the parameter.
    """

    fill: Fill
    reparametrised: Pair | None = None
    grown: dict[str, Pair] = field(default_factory=dict)
    fixed: dict[str, Tensor] = field(default_factory=dict)


class _Rewriter(FunctionMode):
    """Pads the uneven calls of `module` while it is active."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.plan: PaddingPlan = getattr(module, _PLAN)
        self.last_padded: Tensor | None = None
        self.by_hand: tuple[Pair, Pair] = _NONE

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Pad the call if it is uneven, and remember the padding that the layer applies itself."""
        call = read_call(func, args, kwargs)
        with CallWatcher.hidden():  # steps of the model keep their names
            out = None if call is None else self._rewritten(call)
        if out is not None:
            CallWatcher.show(func, args, kwargs, out)
        else:
            out = func(*args, **kwargs)
            func, args, kwargs = as_torch_function(func, args, kwargs)
            if func is F.pad:
                padding = Padding(*args, **kwargs)
                if padding.mode == "constant" and len(padding.pad) == 4:
                    left, right, top, bottom = padding.pad
                    self.last_padded, self.by_hand = out, ((top, bottom), (left, right))
        return out

    def _rewritten(self, call: StridedCall) -> Tensor | None:
        """Return the output of the padded call, or None if the call is not padded."""
        name = own_parameter(self.module, call.weight)
        if name is not None and name in self.plan.grown:
            return self._run_grown(call, name)
        normed = self.plan.reparametrised == call.kernel and is_reparametrised(
            self.module, call.weight
        )
        if not call.uneven or why_not_padded(call, self.plan.fill, name is not None or normed):
            return None
        fill = settled_fill(call, self.plan.fill, name is not None)
        by_hand = self.by_hand if call.x is self.last_padded else _NONE
        return _run(call, fill, by_hand, self.module, "weight" if normed else name)

    def _run_grown(self, call: StridedCall, name: str) -> Tensor:
        """Run a call whose parameter has grown; a weight standardised in forward is rescaled."""
        assert call.weight is not None  # noqa: S101 - it has a name
        weight, kernel, old = call.weight, call.kernel, self.plan.grown[name]
        if weight is not self.module._parameters[name]:
            weight = weight * (old[0] * old[1] / (kernel[0] * kernel[1])) ** 0.5
        call = replace(call, kernel=old)
        energy = tap_energy(old, call.stride, self.plan.fill, call.dilation)
        run = run_transposed if call.transposed else run_conv
        grown = call_growth(call, kernel, self.plan.fill, _NONE)
        return run(call, grown, as_plane(weight), energy)


def _run(
    call: StridedCall, fill: Fill, by_hand: tuple[Pair, Pair], module: nn.Module, name: str | None
) -> Tensor:
    """Pad one uneven call of `module`; `name` is the parameter that is its weight, or None."""
    as_pool: Fill = "fresh" if call.kind == "max_pool2d" else fill
    grown = call_growth(
        call, grown_kernel(call.kernel, call.stride, as_pool, call.dilation), fill, by_hand
    )
    if call.kind == "max_pool2d":
        return run_max_pool(call, grown)
    if call.kind == "avg_pool2d":
        return run_mean(call, grown, fill)
    assert call.weight is not None  # noqa: S101 - a convolution has one
    rows, columns = (getattr(module, f"{name}_{taps}", None) for taps in ("rows", "columns"))
    weight = grow_conv(call, fill, (rows, columns))
    plan: PaddingPlan = getattr(module, _PLAN)
    energy = plan.fixed.get(own_buffer(module, call.weight) or "")
    if energy is None:
        energy = tap_energy(call.kernel, call.stride, fill, call.dilation)
    run = run_transposed if call.transposed else run_conv
    return run(call, grown, weight, energy)


@functools.cache
def _padded_class(base: type[nn.Module]) -> type[nn.Module]:
    """A subclass of `base` that pads the uneven calls of its own forward."""

    def entrance(name: str) -> Any:
        original = getattr(base, name)

        @functools.wraps(original)
        def enter(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            with _Rewriter(self):
                return original(self, *args, **kwargs)

        return enter

    body = {name: entrance(name) for name in _ENTRANCES if callable(getattr(base, name, None))}
    names = {"__module__": base.__module__, UNPADDED_NAME: base.__name__}
    return type(f"Padded{base.__name__}", (base,), {**names, **body})


def pad_module(
    module: nn.Module,
    fill: Fill,
    example: Tensor,
    *,
    seed: int = 0,
    trace: PaddingTrace | None = None,
) -> Treatment:
    """Pad the kernels of `module` in place and return what was done.

    `example` (batch, channels, height, width) is any input of the module; only its shape and type
    matter, unless the module's forward depends on values. Weights may be on the `meta` device.
    `seed` is that of `fresh`; `trace` is the result of an earlier pass, if there was one. Raises
    `InputError` for an unknown fill, when the module does not run on the example, or when an output
    would change its shape.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1))
    >>> pad_module(net, "box", torch.zeros(1, 3, 32, 32)).layers[0].padded_kernel
    (4, 4)
    """
    if fill not in FILLS:
        raise InputError(f"unknown fill {fill!r}; expected one of {', '.join(FILLS)}")
    if fill == "none":
        return Treatment(fill)
    if fill == "fit":
        raise InputError(
            "kernel padding 'fit' moves trained weights and needs images; expected zero, box, "
            "fresh or kim2023 here, or load(...).padded('fit', PaddingOptions(images=...))"
        )
    trace = trace or trace_uneven(module, example)
    layers, left = pad_traced(module, trace, fill, seed)
    left = {**trace.others, **left}
    if not layers:
        return Treatment(fill, (), left)
    again = _trace_padded(module, example, fill)
    if again.shapes != trace.shapes and fill != "kim2023":
        raise InputError(
            f"kernel padding changed the output shapes of {type(module).__name__} from "
            f"{trace.shapes} to {again.shapes}; please report it with the model's name"
        )
    missed = {seen.name for seen in again.uneven} - left.keys()
    left |= dict.fromkeys(missed, "its forward is an attribute, not a method of its class")
    return Treatment(fill, tuple(layer for layer in layers if layer.name not in missed), left)


def _trace_padded(module: nn.Module, example: Tensor, fill: Fill) -> PaddingTrace:
    """Trace the padded `module`; raises `InputError` where it no longer runs."""
    try:
        return trace_uneven(module, example)
    except InputError as error:
        if fill != "kim2023":
            raise
        raise InputError(
            f"kernel padding 'kim2023' makes maps of {type(module).__name__} smaller at an input "
            f"of {tuple(example.shape[-2:])} pixels, and they no longer fit together; give an "
            "input size that is a multiple of the total stride, or use zero or box, which keep "
            f"all sizes ({error})"
        ) from error


def pad_traced(
    module: nn.Module, trace: PaddingTrace, fill: Fill, seed: int
) -> tuple[list[PaddedLayer], dict[str, str]]:
    """Pad the uneven calls that `trace` found in `module`; return grown and refused layers."""
    modules = dict(module.named_modules())
    generator = torch.Generator().manual_seed(seed)
    layers: list[PaddedLayer] = []
    left: dict[str, str] = {}
    for seen in trace.uneven:
        trainable = seen.parameter is not None or seen.reparametrised
        reason = why_not_padded(seen.call, fill, trainable)
        if reason is None:
            own = replace(seen, module=modules.get(seen.name, module))
            layers.append(_treat(own, fill, generator))
        else:
            reasons = dict.fromkeys([*left.get(seen.name, "").split("; "), reason])
            left[seen.name] = "; ".join(filter(None, reasons))
    return layers, left


def _treat(seen: ObservedCall, fill: Fill, generator: torch.Generator) -> PaddedLayer:
    """Change the module of one call so that it pads it, with the parameters that this needs."""
    module, call, name = seen.module, seen.call, seen.parameter
    base = type(module)
    if not hasattr(module, _PLAN):
        setattr(module, _PLAN, PaddingPlan(fill))
        module.__class__ = _padded_class(base)  # type: ignore[arg-type]
    owned = name is not None
    settled = settled_fill(call, fill, owned)
    rule: Fill = "fresh" if call.kind == "max_pool2d" else settled
    kernel = grown_kernel(call.kernel, call.stride, rule, call.dilation)
    if settled == "kim2023" and _kernel_of(module) == call.kernel:
        module.kernel_size = kernel  # type: ignore[assignment]
    if seen.reparametrised and settled in ZEROS:
        plan: PaddingPlan = getattr(module, _PLAN)
        plan.reparametrised = call.kernel
        _add_taps(module, "weight", call, kernel)
    elif name is not None and (settled == "zero" or (settled == "kim2023" and not seen.direct)):
        _add_taps(module, name, call, kernel)
    elif name is not None and (settled == "fresh" or seen.direct):
        _grow(module, name, call, settled, generator)
    elif seen.buffer is not None:
        plan = getattr(module, _PLAN)
        plan.fixed[seen.buffer] = fixed_energy(call, module.get_buffer(seen.buffer), settled)
    return PaddedLayer(seen.name, call.kind, call.stride, call.kernel, kernel)


def _kernel_of(module: nn.Module) -> Pair | None:
    """Return the attribute `kernel_size` of a layer as (rows, columns), or None."""
    kernel: Any = getattr(module, "kernel_size", None)
    if isinstance(kernel, int):
        return kernel, kernel
    return tuple(kernel) if isinstance(kernel, tuple) and len(kernel) == 2 else None


def _add_taps(module: nn.Module, name: str, call: StridedCall, grown: Pair) -> None:
    """Register the new rows and columns of 0 next to the parameter `name`.

    They are like it, or like the parameter that the weight is computed from.
    """
    assert call.weight is not None  # noqa: S101 - the trace saw it
    out, into = call.weight.shape[:2]
    kernel, own = call.kernel, module._parameters.get(name)
    weight = own if own is not None else next(p for p in module.parameters() if p.ndim > 1)
    shapes = {
        f"{name}_rows": (out, into, grown[0] - kernel[0], grown[1]),
        f"{name}_columns": (out, into, kernel[0], grown[1] - kernel[1]),
    }
    for label, shape in shapes.items():
        if 0 not in shape and label not in module._parameters:
            taps = nn.Parameter(weight.new_zeros(shape), requires_grad=weight.requires_grad)
            module.register_parameter(label, taps)


def _grow(
    module: nn.Module, name: str, call: StridedCall, fill: Fill, generator: torch.Generator
) -> None:
    """Replace the parameter `name` by the padded one, once."""
    plan: PaddingPlan = getattr(module, _PLAN)
    weight = module._parameters[name]
    if weight is None or name in plan.grown:
        return
    plane = as_plane(weight.detach())
    taps = pad_weight(plane, call.stride, fill, generator, dilation=call.dilation)
    plan.grown[name] = call.kernel
    own = taps if weight.ndim == taps.ndim else taps.squeeze(2)
    module._parameters[name] = nn.Parameter(own, requires_grad=weight.requires_grad)
    # TF-SAME layers compute their padding from it; transposed ones the size of an output, as it was
    if hasattr(module, "kernel_size") and not call.transposed:
        kernel: Any = (taps.shape[2], taps.shape[3])
        module.kernel_size = kernel
