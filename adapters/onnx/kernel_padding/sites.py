"""The convolutions and pools of an ONNX graph as kernel padding sees them.

What more taps add to the output of a transposed convolution is cropped again by larger `pads`;
`auto_pad` and `output_shape` become the `pads` that they stand for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
import torch
from torch import Tensor

from ...kernel_padding.call import StridedCall, cropped_growth
from ..analysis.node_facts import KINDS, QUANTISED
from ..files.protos import attribute, node_name
from ..graph import operator_of
from ..operators.convolution import same_padding, transposed_pads

if TYPE_CHECKING:
    from ...kernel_padding.arithmetic import Pair
    from ...treatment import Fill
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
    weight, (kernel, stride, dilation) = _read_window(node, facts)
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
        _pair(kernel),
        _pair(stride),
        (0, 0),
        _pair(dilation),
        ceil_mode=bool(attribute(node, "ceil_mode")),
        weight=weight,
        groups=attribute(node, "group", 1),
        indices=len(node.output) > 1 and bool(node.output[1]),
        include_pad=bool(attribute(node, "count_include_pad")),
    )
    return StridedNode(node, call, auto, pads, _padded_by_hand(node, facts), (size[0], size[1]))


def _read_window(node: onnx.NodeProto, facts: Facts) -> tuple[Tensor | None, list[list[int]]]:
    """The stored weight, and along each axis kernel (empty if unknown), strides and dilations."""
    weight = facts.constants.get(node.input[1]) if len(node.input) > 1 else None
    kernel = attribute(node, "kernel_shape") or ([] if weight is None else weight.shape[2:])
    steps = (attribute(node, name, [1] * len(kernel)) for name in ("strides", "dilations"))
    return weight, [list(values) for values in (kernel, *steps)]


def _pair(values: list[int]) -> Pair:
    """Numbers along two axes, or along the columns of a single row."""
    return (values[-2], values[-1]) if len(values) > 1 else (1, values[0])


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
    kernel = _read_window(node, facts)[1][0]
    uneven = not kernel or any(k % s for k, s in zip(kernel, strides, strict=False))
    return "kernel padding grows 2-D kernels only" if op in KINDS and uneven else None


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
    weight, (kernel, stride, dilation) = _read_window(node, facts)
    rank = len(kernel)
    if rank not in (1, 2):
        return None
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
