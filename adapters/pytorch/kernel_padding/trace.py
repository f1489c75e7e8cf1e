"""Find the strided and uneven calls of a module by one pass on the `meta` device.

Parameters, buffers and the example are replaced by `meta` tensors during the pass, so that only
shapes are computed and weights need no values. A module whose forward depends on values is run on
the example itself.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ...errors import InputError
from ...exported_operators import as_torch_function
from ...kernel_padding.call import StridedCall
from ...meta_forward import quickly
from ...torch_calls import FunctionMode, running_layers
from .calls import is_reparametrised, own_buffer, own_parameter, read_call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


UNPADDED_NAME = "unpadded_name"
"""Attribute of a padded class: the name of the class that was padded."""


def _class_name(module: nn.Module) -> str:
    """The name of the class of `module`, padded or not; a network that has no other name has it."""
    return str(getattr(module, UNPADDED_NAME, type(module).__name__))


@dataclass(frozen=True, eq=False)
class ObservedCall:
    """One uneven call: the innermost module that made it, its name, the parameter it used.

    `direct` says that the weight is the parameter itself, not computed from it. `buffer` names the
    buffer with the fixed kernel of the call. `reparametrised` says that the weight takes the place
    of the layer's parameter, as with weight norm.
    """

    name: str
    module: nn.Module
    call: StridedCall
    parameter: str | None
    direct: bool
    buffer: str | None
    reparametrised: bool = False


@dataclass
class PaddingTrace:
    """Result of the pass: uneven calls, other strided reads by module name, output shapes."""

    uneven: list[ObservedCall] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)
    shapes: list[tuple[int, ...]] = field(default_factory=list)


class _Recorder(FunctionMode):
    """Records uneven calls while it is active; changes nothing."""

    def __init__(self, root: nn.Module) -> None:
        super().__init__()
        self.trace = PaddingTrace()
        self.stack: list[tuple[str, nn.Module]] = [(_class_name(root), root)]
        self.starts: dict[str, set[tuple[int, ...]]] = {}

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record the call, and make it."""
        call = read_call(func, args, kwargs)
        if call is None:
            self._note_other(func, args, kwargs)
        elif call.uneven:
            self._note(call)
        return func(*args, **kwargs)

    def _note(self, call: StridedCall) -> None:
        name, module = self.stack[-1]
        own = own_parameter(module, call.weight)
        direct = own is not None and module._parameters[own] is call.weight
        buffer = own_buffer(module, call.weight)
        normed = own is None and is_reparametrised(module, call.weight)
        seen = ObservedCall(name, module, call, own, direct, buffer, normed)
        known = ((s.module, s.call.kind, s.call.kernel, s.call.stride) for s in self.trace.uneven)
        if (module, call.kind, call.kernel, call.stride) not in known:
            self.trace.uneven.append(seen)

    def _note_other(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        name = self.stack[-1][0]
        func, args, kwargs = as_torch_function(func, args, kwargs)
        if func is torch.Tensor.__getitem__:
            start = _strided_slice(args[1])
            if start is not None:
                self.starts.setdefault(name, set()).add(start)
        elif func in _OTHERS and _OTHERS[func](args, kwargs):
            self.trace.others[name] = f"{func.__name__}: only 2-D convolutions and pools are grown"

    def finish(self, out: Any) -> PaddingTrace:
        """Return the trace after the pass with the result `out`."""
        for name, starts in self.starts.items():
            if not any(any(start) for start in starts):
                self.trace.others[name] = "a strided slice, which has no kernel to grow"
        self.trace.shapes = [tuple(t.shape) for t in tree_leaves(out) if isinstance(t, Tensor)]
        return self.trace


def _strided_slice(index: Any) -> tuple[int, ...] | None:
    """Return the starts of an index that reads every n-th entry along two axes or more, or None."""
    parts = index if isinstance(index, tuple) else (index,)
    steps = [p for p in parts if isinstance(p, slice) and isinstance(p.step, int) and p.step > 1]
    if len(steps) < 2:
        return None
    return tuple(p.start if isinstance(p.start, int) else 0 for p in steps)


def _divides(kernel: Any, stride: Any) -> bool:
    """Whether every stride divides its kernel size; numbers or tuples."""
    kernels = (kernel,) if isinstance(kernel, int) else tuple(kernel)
    strides = (stride,) * len(kernels) if isinstance(stride, int) else tuple(stride)
    return all(k % s == 0 for k, s in zip(kernels, strides * len(kernels), strict=False))


def _uneven_conv(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    weight = kwargs["weight"] if "weight" in kwargs else args[1]
    stride = kwargs.get("stride", args[3] if len(args) > 3 else 1)
    return not _divides(tuple(weight.shape[2:]), stride)


def _uneven_window(place: int, default: int | None) -> Callable[..., bool]:
    """Make a check for functions of (x, ..., kernel_size, ..., stride); `place` is the stride's."""

    def check(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        kernel_at = 2 if default is None else 1
        kernel = kwargs["kernel_size"] if "kernel_size" in kwargs else args[kernel_at]
        stride = kwargs.get("stride", args[place] if len(args) > place else default)
        return not _divides(kernel, kernel if stride is None else stride)

    return check


_OTHERS: dict[Any, Callable[[tuple[Any, ...], dict[str, Any]], bool]] = {
    F.conv1d: _uneven_conv,
    F.conv3d: _uneven_conv,
    F.conv_transpose3d: _uneven_conv,
    F.unfold: _uneven_window(4, 1),
    F.lp_pool2d: _uneven_window(3, None),
}


@contextlib.contextmanager
def _untouched(root: nn.Module) -> Iterator[None]:
    """Run `root` in eval mode and restore the attributes of all its modules afterwards.

    A forward may cache tensors on its module; `meta` tensors must not stay there.
    """
    kept = [
        (module, {k: dict(v) if type(v) is dict else v for k, v in module.__dict__.items()})
        for module in root.modules()
    ]
    root.eval()
    try:
        yield
    finally:
        for module, attributes in kept:
            module.__dict__.clear()
            module.__dict__.update(attributes)


def _record(module: nn.Module, run: Callable[[], Any]) -> PaddingTrace:
    recorder = _Recorder(module)
    running = running_layers(module, recorder.stack, root_name=_class_name(module))
    with _untouched(module), running, torch.no_grad(), recorder:
        out = run()
    return recorder.finish(out)


def trace_uneven(module: nn.Module, example: Tensor) -> PaddingTrace:
    """Find every uneven call of `module` on `example` (batch, channels, height, width).

    Names are dotted paths of the innermost module whose forward was running. Raises `InputError`
    when the module cannot be run on the example.
    """
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    shapes = {name: tensor.detach().to("meta") for name, tensor in tensors.items()}
    try:
        return quickly(
            lambda: _record(
                module,
                lambda: torch.func.functional_call(module, shapes, (example.to("meta"),)),
            )
        )
    except Exception as shapes_only:  # a foreign forward may raise anything
        try:
            return _record(module, lambda: module(example))
        except Exception as error:
            raise InputError(
                f"kernel padding could not run {type(module).__name__} on an example of shape "
                f"{tuple(example.shape)}: {error} (and without numbers: {shapes_only}); give an "
                "example it accepts"
            ) from error
