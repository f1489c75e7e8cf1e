"""Calls of torch's functions and layers while a model runs: how to see them, and what they say.

`FunctionMode` sees the calls of functions, `CallWatcher` those that a model makes by itself,
`running_layers` names the layers that make them. The
dataclasses bind the arguments of a call as torch does, with its names and defaults:
`Convolution(*args, **kwargs)`.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Iterator

MASKED = -30.0
"""Numbers below this, added to logits, are a mask of attention: no key of them passes a softmax."""


class FunctionMode(TorchFunctionMode):
    """While it is active, `call` takes the place of every function of torch that is called."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return self.call(func, args, kwargs or {})

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of `func(*args, **kwargs)`, or what stands for it."""
        return func(*args, **kwargs)


class CallWatcher(FunctionMode):
    """Sees the calls that a model makes: one that is replaced is seen once, by its own name."""

    _active: ClassVar[ContextVar[tuple[CallWatcher, ...]]] = ContextVar("_active", default=())

    def __init__(self) -> None:
        super().__init__()
        self._hidden = 0

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """What to do with a call of the model and its result."""

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make the call and show it to `saw`."""
        out = func(*args, **kwargs)
        if not self._hidden:
            self.saw(func, args, kwargs, out)
        return out

    def __enter__(self) -> CallWatcher:
        self._active.set((*self._active.get(), self))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._active.set(tuple(w for w in self._active.get() if w is not self))

    @classmethod
    @contextlib.contextmanager
    def hidden(cls) -> Iterator[None]:
        """Show no watcher the calls that are made meanwhile."""
        watchers = cls._active.get()
        for one in watchers:
            one._hidden += 1
        try:
            yield
        finally:
            for one in watchers:
                one._hidden -= 1

    @classmethod
    def show(cls, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Show every watcher a call that was replaced by hidden ones, and its result `out`."""
        watchers = [one for one in cls._active.get() if not one._hidden]
        with cls.hidden():  # what they do with it is no call of the model
            for one in watchers:
                one.saw(func, args, kwargs, out)


@contextlib.contextmanager
def running_layers(
    root: nn.Module,
    stack: list[tuple[str, nn.Module]],
    *,
    root_name: str = "",
    keep_failed: bool = False,
) -> Iterator[None]:
    """Keep the names and layers of `root` whose forward is running on `stack`, the innermost last.

    With `keep_failed` the layers in which an error occurs stay there.
    """
    # Two hooks for all layers: hooks on each would take longer than a pass on `meta`.
    names = {layer: name or root_name for name, layer in root.named_modules()}

    def enter(layer: nn.Module, _args: Any) -> None:
        if layer in names:
            stack.append((names[layer], layer))

    def leave(layer: nn.Module, _args: Any, _out: Any) -> None:
        if layer in names:
            stack.pop()

    handles = [
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave, always_call=not keep_failed),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True, eq=False)
class Convolution:
    """A call of `F.conv1d`, `F.conv2d` or `F.conv3d`."""

    input: Any
    weight: Any
    bias: Any = None
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1


@dataclass(frozen=True, eq=False)
class TransposedConvolution:
    """A call of `F.conv_transpose1d`, `F.conv_transpose2d` or `F.conv_transpose3d`."""

    input: Any
    weight: Any
    bias: Any = None
    stride: Any = 1
    padding: Any = 0
    output_padding: Any = 0
    groups: int = 1
    dilation: Any = 1


@dataclass(frozen=True, eq=False)
class MaxPool:
    """A call of `F.max_pool2d`."""

    input: Any
    kernel_size: Any
    stride: Any = None
    padding: Any = 0
    dilation: Any = 1
    ceil_mode: bool = False
    return_indices: bool = False


@dataclass(frozen=True, eq=False)
class NormPool:
    """A call of `F.lp_pool2d`, which pads nothing; only that of an ONNX file has a `dilation`."""

    input: Any
    norm_type: float
    kernel_size: Any
    stride: Any = None
    ceil_mode: bool = False
    padding: ClassVar[int] = 0
    dilation: Any = field(default=1, kw_only=True)


@dataclass(frozen=True, eq=False)
class MeanPool:
    """A call of `F.avg_pool1d` or `F.avg_pool2d`; only that of an ONNX file has a `dilation`."""

    input: Any
    kernel_size: Any
    stride: Any = None
    padding: Any = 0
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None
    dilation: Any = field(default=1, kw_only=True)


@dataclass(frozen=True, eq=False)
class Interpolation:
    """A call of `F.interpolate`."""

    input: Any
    size: Any = None
    scale_factor: Any = None
    mode: str = "nearest"
    align_corners: bool | None = None
    recompute_scale_factor: bool | None = None
    antialias: bool = False


@dataclass(frozen=True, eq=False)
class Padding:
    """A call of `F.pad`."""

    input: Any
    pad: Any
    mode: str = "constant"
    value: Any = None


@dataclass(frozen=True, eq=False)
class Attention:
    """A call of `F.scaled_dot_product_attention`, of (..., tokens, features) each."""

    query: Any
    key: Any
    value: Any
    attn_mask: Any = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = field(default=None, kw_only=True)
    enable_gqa: bool = field(default=False, kw_only=True)


def each_axis(value: Any, axes: int) -> tuple[Any, ...]:
    """Read torch's "one value, or one for each axis" as one for each of `axes`."""
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    return values * axes if len(values) == 1 else values


def pair(value: Any) -> tuple[int, int]:
    """The same of two axes, as (rows, columns)."""
    rows, columns = each_axis(value, 2)
    return rows, columns
