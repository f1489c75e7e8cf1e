"""Kernel padding of the transposed convolutions of an ONNX graph.

What more taps add to the output is cropped again by larger `pads`; `auto_pad` and `output_shape`
become the `pads` that they stand for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
import torch

from ...kernel_padding.call import StridedCall, cropped_growth
from ..files.protos import attribute
from ..operators.convolution import transposed_pads

if TYPE_CHECKING:
    from ...kernel_padding.arithmetic import Pair
    from ...treatment import Fill
    from ..analysis.node_facts import Facts


@dataclass(frozen=True)
class TransposedNode:
    """One ConvTranspose: its call, and what is cropped of its output, None where it is not known.

    `pads` are per axis of the node, first all before, then all after.
    """

    node: onnx.NodeProto
    call: StridedCall
    pads: list[int] | None


def read_transposed(node: onnx.NodeProto, facts: Facts) -> TransposedNode | None:
    """Describe a ConvTranspose over one or two axes, or return None."""
    weight = facts.constants.get(node.input[1])
    kernel = list(attribute(node, "kernel_shape", [] if weight is None else weight.shape[2:]))
    rank = len(kernel)
    if rank not in (1, 2):
        return None
    stride, dilation = (
        list(attribute(node, name, [1] * rank)) for name in ("strides", "dilations")
    )
    call = StridedCall(
        "conv_transpose1d" if rank == 1 else "conv_transpose2d",
        torch.empty(0, device="meta"),
        _pair(kernel),
        _pair(stride),
        (0, 0),
        _pair(dilation),
        weight=weight,
        groups=attribute(node, "group", 1),
    )
    size = facts.shapes.get(node.input[0], [])[2:]
    return TransposedNode(node, call, _pads(node, kernel, stride, dilation, size))


def _pair(values: list[int]) -> Pair:
    return (values[-2], values[-1]) if len(values) > 1 else (1, values[0])


def _pads(
    node: onnx.NodeProto,
    kernel: list[int],
    stride: list[int],
    dilation: list[int],
    size: list[int | None],
) -> list[int] | None:
    rank = len(kernel)
    mode = attribute(node, "auto_pad", "NOTSET")
    wanted = list(attribute(node, "output_shape", []))
    if wanted and (len(size) != rank or None in size):
        return None
    known = [n or 0 for n in size] if wanted else [0] * rank
    extra = list(attribute(node, "output_padding", [0] * rank))
    own = list(attribute(node, "pads", [0] * 2 * rank))
    return transposed_pads(known, kernel, stride, dilation, extra, own, mode, wanted)


def grow_transposed(site: TransposedNode, kernel: Pair, fill: Fill) -> dict[str, list[int]]:
    """The attributes `kernel_shape` and `pads` of the grown node, whose output keeps its size."""
    rank = 1 if site.call.kind == "conv_transpose1d" else 2
    grown = cropped_growth(site.call, kernel, fill)
    crops = [*grown.front[-rank:], *grown.end[-rank:]]
    pads = [own + more for own, more in zip(site.pads or [], crops, strict=True)]
    return {"kernel_shape": list(kernel[-rank:]), "pads": pads}


def why_not_transposed(site: TransposedNode) -> str | None:
    """Return why a node cannot grow, or None."""
    if site.call.weight is None:
        return "its weight is computed from the image"
    if site.pads is None:
        return "its padding follows the input's size, which the file leaves open"
    if min(site.pads) < 0:
        return "its output is larger than what its taps reach"
    return None
