"""Which sigmoids and softmaxes of a graph are activations, and which are gates.

A gate is multiplied with another activation, on its own way or behind whatever moves, resamples or
shifts it: squeeze-and-excite, attention weights, a SiLU written out. Second moments take it for a
constant. What is not multiplied with anything that depends on the image, such as the sigmoid of a
heat map or the softmax of a segmentation, is an activation like any other: its slope is a factor
that is the same for every unit.

A layer ends the way of a sigmoid; softmaxes are followed through layers too, as attention may mix
its heads before it weighs anything.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from torch import Tensor

    from ..graph import Node


SIGMOIDS = {"Sigmoid", "HardSigmoid"}


SOFTMAXES = {"Softmax", "LogSoftmax"}


PRODUCTS = {"Mul", "Div", "MatMul", "Einsum", "Attention", "com.microsoft:FusedMatMul", "Pow"}


LAYERS = {"Conv", "com.microsoft:FusedConv", "ConvTranspose", "Gemm", "MatMul"}


def activations(nodes: Sequence[Node], depends: Collection[str]) -> set[str]:
    """Outputs of the sigmoids and softmaxes among `nodes` that gate nothing.

    `depends` are the tensors that depend on the image; `nodes` are in execution order, as far as
    the target.
    """
    found: set[str] = set()
    for kinds, ends in ((SIGMOIDS, LAYERS), (SOFTMAXES, set())):
        gates = _multiplied(nodes, depends, ends)
        found.update(n.outputs[0] for n in nodes if n.op in kinds and n.outputs[0] not in gates)
    return found


def _multiplied(nodes: Sequence[Node], depends: Collection[str], ends: Collection[str]) -> set[str]:
    """The tensors that are multiplied with another one on some way, none through `ends`."""
    found: set[str] = set()
    for node in reversed(nodes):
        own = [name for name in node.inputs if name in depends]
        product = node.op in PRODUCTS and len(own) > 1
        if product or (node.op not in ends and found.intersection(node.outputs)):
            found.update(own)
    return found


def activated(node: Node, x: Tensor) -> Tensor:
    """An activation written so that every unit has the same slope where it starts.

    A sigmoid is (1 + tanh(x / 2)) / 2; a softmax over n entries has the slope 1 / n.
    """
    return _WRITTEN[node.op](node, x)


def _sigmoid(_node: Node, x: Tensor) -> Tensor:
    return (1 + torch.tanh(x / 2)) / 2


def _softmax(node: Node, x: Tensor) -> Tensor:
    """Before opset 13 a softmax is over all axes from the given one on."""
    if node.opset < 13:
        return x / math.prod(x.shape[node.attributes.get("axis", 1) :])
    axis: int = node.attributes.get("axis", -1)
    return x / x.shape[axis]


_WRITTEN: dict[str, Callable[[Node, Tensor], Tensor]] = {
    "Sigmoid": _sigmoid,
    "HardSigmoid": _sigmoid,
    "Softmax": _softmax,
    "LogSoftmax": lambda _node, x: x,
}
