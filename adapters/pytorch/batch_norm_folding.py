"""Folding batch norms into the convolutions before them: the same function in fewer passes.

In evaluation a batch norm is a fixed scale and shift per channel, so a convolution followed by one
equals another convolution. One traced pass finds which norm follows which convolution. A comparison
of outputs then checks that nothing else reads the convolution.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .tensors import copy_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


Pairs = dict[str, str]
"""Name of a convolution by the name of the norm that follows it."""


def find_pairs(module: nn.Module, run: Callable[[nn.Module], Sequence[Tensor]]) -> Pairs:
    """Return the norms that can be folded without changing the result of `run(module)`.

    `module` is in evaluation mode; `run` is called on it and on a folded copy.
    """
    pairs: Pairs = {}
    with torch.no_grad(), _watch(module, pairs):
        expected = run(module)
    if not pairs or len(set(pairs.values())) < len(pairs):
        return {}
    with torch.no_grad():
        found = run(folded(module, pairs))
    return pairs if all(map(_equal, found, expected)) else {}


def _equal(found: Tensor, expected: Tensor) -> bool:
    """Whether two outputs differ by rounding at most, relative to the largest value."""
    tolerance = torch.finfo(expected.dtype).eps ** 0.5
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())


def folded(module: nn.Module, pairs: Pairs) -> nn.Module:
    """Copy `module` with the norms of `pairs` folded; all other tensors are shared with it."""
    memo: dict[int, Any] = {id(t): t for t in (*module.parameters(), *module.buffers())}
    folded = copy_module(module, memo)
    for norm_name, conv_name in pairs.items():
        norm: Any = folded.get_submodule(norm_name)
        conv: Any = folded.get_submodule(conv_name)
        statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
        weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics)
        conv.weight, conv.bias = weight.requires_grad_(False), bias.requires_grad_(False)
        rest = list(norm.children())  # an activation, in timm's norms
        folded.set_submodule(norm_name, nn.Sequential(*rest) if rest else nn.Identity())
    return folded


@contextlib.contextmanager
def _watch(module: nn.Module, pairs: Pairs) -> Iterator[None]:
    """Fill `pairs` with the norms that read a convolution's output while the context is active."""
    made: dict[int, tuple[str, Tensor]] = {}  # the tensor is kept, so that its id stays its own
    handles = []

    def convolved(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, out: Tensor) -> None:
            made[id(out)] = (name, out)

        return hook

    def normed(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: Any) -> None:
            if args and id(args[0]) in made:
                pairs[name] = made[id(args[0])][0]

        return hook

    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d):
            handles.append(layer.register_forward_hook(convolved(name)))
        elif isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
            handles.append(layer.register_forward_pre_hook(normed(name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
