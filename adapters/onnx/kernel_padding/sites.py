"""The convolutions and pools of an ONNX graph as kernel padding sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
import torch

from ...kernel_padding.call import StridedCall
from ..analysis.node_facts import KINDS, QUANTISED
from ..files.protos import attribute, node_name
from ..graph import operator_of
from ..operators.convolution import same_padding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...kernel_padding.arithmetic import Pair
    from ..analysis.node_facts import Facts


@dataclass(frozen=True)
class StridedNode:
    """One convolution or pool of the graph; pairs are (rows, columns).

    `pads` is (before rows, before columns, after rows, after columns), None if `auto_pad`
    determines it and the input's size is open. `by_hand` is the padding of a Pad node just before
    it.
    """

    node: onnx.NodeProto
    call: StridedCall
    auto: str
    pads: list[int] | None
    by_hand: tuple[Pair, Pair]
    size: tuple[int | None, int | None]

    @property
    def name(self) -> str:
        """The node's name, or its output's."""
        return node_name(self.node)


def read_site(node: onnx.NodeProto, facts: Facts) -> StridedNode | None:
    """Describe a convolution or pool, or return None when it is not two-dimensional."""
    weight = facts.constants.get(node.input[1]) if len(node.input) > 1 else None
    kernel: list[int] = list(attribute(node, "kernel_shape", []))
    if not kernel and weight is not None:
        kernel = list(weight.shape[2:])
    stride, dilation = (list(attribute(node, k, [1, 1])) for k in ("strides", "dilations"))
    if any(len(pair) != 2 for pair in (kernel, stride, dilation)):
        return None
    size = facts.shape(node.input[0])[2:]
    auto = attribute(node, "auto_pad", "NOTSET")
    pads: list[int] | None = list(attribute(node, "pads", [0] * 4))
    if auto.startswith("SAME"):
        lower = auto == "SAME_LOWER"
        known = None not in size
        pads = same_padding(size, kernel, stride, dilation, lower=lower) if known else None  # type: ignore[arg-type]
    call = StridedCall(
        KINDS[operator_of(node)],  # type: ignore[arg-type]
        torch.empty(0, device="meta"),
        (int(kernel[0]), int(kernel[1])),
        (stride[0], stride[1]),
        (0, 0),
        (dilation[0], dilation[1]),
        ceil_mode=bool(attribute(node, "ceil_mode")),
        weight=weight,
        groups=attribute(node, "group", 1),
        indices=len(node.output) > 1 and bool(node.output[1]),
        include_pad=bool(attribute(node, "count_include_pad")),
    )
    return StridedNode(node, call, auto, pads, _padded_by_hand(node, facts), (size[0], size[1]))


def _padded_by_hand(node: onnx.NodeProto, facts: Facts) -> tuple[Pair, Pair]:
    """Return the zeros that a Pad node just before `node` adds: rows (before, after), columns."""
    writer = facts.writers.get(node.input[0])
    if writer is None or writer.op_type != "Pad":
        return (0, 0), (0, 0)
    pads = attribute(writer, "pads")
    if len(writer.input) > 1 and writer.input[1] in facts.constants:
        pads = facts.constants[writer.input[1]].tolist()
    elif len(writer.input) > 1:
        pads = facts.by_hand.get(writer.input[1])
    if attribute(writer, "mode", "constant") != "constant" or pads is None or len(pads) != 8:
        return (0, 0), (0, 0)
    return (pads[2], pads[6]), (pads[3], pads[7])


def why_not_read(node: onnx.NodeProto, op: str, facts: Facts) -> str | None:
    """Return why a strided layer that is not a two-dimensional float layer is not padded."""
    strides = attribute(node, "strides", [1])
    if max(strides) == 1:
        return None
    if op in QUANTISED:
        return "its weights are stored as whole numbers, which the new taps need not be"
    if op in KINDS and _is_uneven(node, strides, facts):
        return "kernel padding grows 2-D kernels only"
    return None


def _is_uneven(node: onnx.NodeProto, strides: Sequence[int], facts: Facts) -> bool:
    kernel = attribute(node, "kernel_shape")
    if kernel is None and len(node.input) > 1 and node.input[1] in facts.constants:
        kernel = list(facts.constants[node.input[1]].shape[2:])
    return kernel is None or any(k % s for k, s in zip(kernel, strides, strict=False))
