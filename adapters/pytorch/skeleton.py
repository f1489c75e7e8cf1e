"""Modules without their weights, which describe the architecture alone, for `structure`."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, fx, nn

from ..feature_grid import Grid
from ..skeleton_marks import KERNEL_DOUBT
from ..zero_taps import count_zero_taps
from .checkpointing import without_checkpointing
from .target import run_target
from .tensors import copy_module

if TYPE_CHECKING:
    from collections.abc import Iterator


class Skeleton(nn.Module):
    """A network up to its target, as `structure` traverses it; layer names are those of `body`."""

    def __init__(self, body: nn.Module, grid: Grid) -> None:
        super().__init__()
        self.body = body
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (batch, channels, height, width) to the target, of the same axes."""
        with without_checkpointing():
            return self.grid.read(run_target(self.body, x, self.grid))


def _make_buffers(layer: nn.Module) -> None:
    """Let `layer` recompute its buffers; buffers that have no values then are not replaced."""
    before = dict(layer.named_buffers(recurse=False))
    with contextlib.suppress(NotImplementedError):  # torch's error for weights without numbers
        cast("Any", layer).init_non_persistent_buffers()
    for name, buffer in layer.named_buffers(recurse=False):
        if buffer.is_meta:
            layer._buffers[name] = before[name]


def _forget_matrices(original: nn.Module, layer: nn.Module) -> None:
    """Put on `meta` the buffers of `layer` that are still blank and not statistics."""
    lost = {name for name, b in original.named_buffers(recurse=False) if b.is_meta}
    for name, buffer in list(layer.named_buffers(recurse=False)):
        matrix = buffer.is_floating_point() and buffer.ndim != 1 and not buffer.any()
        if name in lost and matrix and not hasattr(layer, "init_non_persistent_buffers"):
            layer._buffers[name] = buffer.to("meta")


def _is_fixed(parameter: Tensor, *, of_layer: bool) -> bool:
    """Whether the values of a parameter show that it was never learned.

    That is one filter, with unlike taps, for each of several channels; or, if it is not that of a
    convolution or linear layer (`of_layer`), a mask of zeros and ones. Not the identity, from which
    learning may start.
    """
    if parameter.is_meta or not parameter.is_floating_point() or not parameter.numel():
        return False
    if not parameter.ndim:
        return False  # a single number is a learned scale
    first, shape = parameter[:1], parameter.shape
    if len(shape) > 2 and shape[0] > 1 == shape[1] and bool((first != first.max()).any()):
        used = (first != 0).nonzero()
        middle = [n // 2 for n in shape[2:]]
        identity = len(used) == 1 and used[0, 2:].tolist() == middle
        return bool((parameter == first).all()) and not identity
    zero, one = parameter == 0, parameter == 1
    if of_layer or (len(shape) == 2 and bool((one == torch.eye(*shape).to(one)).all())):
        return False
    return bool((zero | one).all()) and bool(zero.any()) and bool(one.any())


_WEIGHED = frozenset(
    {"linear", "convolution", *(f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3))}
)
"""Operators of ATen that take their weights second, and then their biases."""


def _weights_in_program(module: nn.Module) -> Iterator[Tensor]:
    """The weights and biases of the convolutions and linear layers of an exported program."""
    if not isinstance(module, fx.GraphModule):
        return
    parameters = dict(module.named_parameters())
    for node in module.graph.nodes:
        packet = getattr(node.target, "overloadpacket", None)
        if packet is None or packet.__name__ not in _WEIGHED:
            continue
        given = (*node.args[1:3], node.kwargs.get("weight"), node.kwargs.get("bias"))
        names = {str(n.target) for n in given if isinstance(n, fx.Node) and n.op == "get_attr"}
        yield from (parameters[name] for name in names & parameters.keys())


def light_copy(module: nn.Module) -> nn.Module:
    """Copy `module` without its weights: matrices and kernels on `meta`, other tensors filled.

    Parameters with two axes or more that belong to a convolution or a linear layer keep only their
    shape; the other parameters become ones, so that no zero-initialised scale hides a branch. Those
    that were never learned (`_is_fixed`) are kept, with the attribute `fixed`.
    Buffers with values (fixed filters, indices) are kept. Of others, matrices count as weights and
    statistics become zeros, unless a layer can recompute them by `init_non_persistent_buffers`, as
    timm's layers can.
    """
    weights = {
        id(p)
        for layer in module.modules()
        if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear)
        for p in layer.parameters(recurse=False)
    }
    weights |= {id(p) for layer in module.modules() for p in _weights_in_program(layer)}
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        of_layer = id(parameter) in weights
        fixed = _is_fixed(parameter, of_layer=of_layer)
        light = torch.ones(parameter.shape, device="meta" if of_layer and not fixed else "cpu")
        if fixed:
            light = parameter.detach().cpu().clone()
        memo[id(parameter)] = nn.Parameter(light, requires_grad=False)
        if fixed:
            memo[id(parameter)].fixed = True
        elif of_layer:
            doubt = count_zero_taps(parameter)
            if doubt is not None:
                setattr(memo[id(parameter)], KERNEL_DOUBT, doubt)
    for buffer in module.buffers():
        if buffer.is_meta:
            memo[id(buffer)] = torch.zeros(buffer.shape, dtype=buffer.dtype)
        else:
            memo[id(buffer)] = buffer.detach().cpu()
    for layer in module.modules():
        for value in vars(layer).values():  # most are empty tables of hooks, and slow to copy
            if type(value) in (dict, set, OrderedDict) and not value:
                memo[id(value)] = type(value)()
    body = copy_module(module, memo)
    for original, layer in zip(module.modules(), body.modules(), strict=True):
        lost = any(b.is_meta for b in original.buffers(recurse=False))
        if lost and hasattr(layer, "init_non_persistent_buffers"):
            _make_buffers(layer)
    for original, layer in zip(module.modules(), body.modules(), strict=True):
        _forget_matrices(original, layer)
    return body
