"""Which sigmoids and softmaxes of a graph are activations, and which are gates.

A gate is multiplied with another activation, directly or after operators that move, resample or
shift it: squeeze-and-excite, attention weights, a SiLU written out. Second moments treat it as a
constant. A sigmoid or softmax that is not multiplied with a tensor that depends on the image, such
as that of a heat map or a segmentation, is an activation: its slope is the same factor for every
unit.

A sigmoid is followed up to the next layer. A softmax is followed through layers too, as attention
may mix its heads before the product.
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
    """Return the outputs of the sigmoids and softmaxes among `nodes` that are not gates.

    `depends` are the tensors that depend on the image; `nodes` are in execution order, up to the
    target.
    """
    found: set[str] = set()
    for kinds, ends in ((SIGMOIDS, LAYERS), (SOFTMAXES, set())):
        gates = _multiplied(nodes, depends, ends)
        found.update(n.outputs[0] for n in nodes if n.op in kinds and n.outputs[0] not in gates)
    return found


def _multiplied(nodes: Sequence[Node], depends: Collection[str], ends: Collection[str]) -> set[str]:
    """Return the tensors that are multiplied with another one on some path outside `ends`."""
    found: set[str] = set()
    for node in reversed(nodes):
        own = [name for name in node.inputs if name in depends]
        product = node.op in PRODUCTS and len(own) > 1
        if product or (node.op not in ends and found.intersection(node.outputs)):
            found.update(own)
    return found


def activated(node: Node, x: Tensor) -> Tensor:
    """Return an activation in a form that has the same slope for every unit at the origin.

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
