"""A kernel-padded mean-pool as ONNX nodes: a convolution of each channel and its divisor.

The divisor is the share of each window that falls on counted pixels: the image and, with
`count_include_pad`, the layer's own padding, but not the rows that kernel padding adds. The graph
computes it from the input's size, so that the file is right for every size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from onnx import NodeProto, helper, numpy_helper
from torch import Tensor

from ...kernel_padding.arithmetic import mean_taps

if TYPE_CHECKING:
    from ...kernel_padding.call import StridedCall
    from ...treatment import Fill


Made = tuple[list[NodeProto], dict[str, Tensor], str, Tensor]
"""Nodes, constants by name, the name of the weight, and second moments of its taps."""


def mean_pool_nodes(
    node: NodeProto,
    call: StridedCall,
    pads: list[int] | None,
    own: list[int],
    fill: Fill,
    channels: int,
    opset: int,
) -> Made:
    """Return nodes that replace the AveragePool `node` over `channels`.

    `pads` is the padding of the grown window, `own` that of the old one, both (before rows, before
    columns, after rows, after columns).
    """
    grown = pads or own
    rows, columns = (mean_taps(k, s, fill) for k, s in zip(call.kernel, call.stride, strict=True))
    taps = (rows[:, None] * columns).float()
    base = node.output[0]
    window: dict[str, Any] = {"strides": list(call.stride), "kernel_shape": list(taps.shape)}
    constants = {
        f"{base}/taps": taps.expand(channels, 1, -1, -1).contiguous(),
        f"{base}/one_tap": taps[None, None].contiguous(),
        f"{base}/lead": torch.tensor([1, 1]),
    }
    total = helper.make_node(
        "Conv",
        [node.input[0], f"{base}/taps"],
        [f"{base}/total"],
        name=f"{node.name or base}/total",
        group=channels,
        pads=grown,
        **window,
    )
    mask, extra = _counted(node.input[0], base, call, own, opset)
    constants.update(extra)
    inner = [a - b for a, b in zip(grown, own, strict=True)] if call.include_pad else grown
    share = helper.make_node(
        "Conv", [mask[-1].output[0], f"{base}/one_tap"], [f"{base}/share"], pads=inner, **window
    )
    quotient = helper.make_node(
        "Div", [f"{base}/total", f"{base}/share"], [base], name=node.name or base
    )
    return [total, *mask, share, quotient], constants, f"{base}/taps", taps.double().square()


def _counted(
    source: str, base: str, call: StridedCall, own: list[int], opset: int
) -> tuple[list[NodeProto], dict[str, Tensor]]:
    """Return nodes that make a mask (1, 1, height, width) of ones over the counted pixels."""
    high, wide = (own[0] + own[2], own[1] + own[3]) if call.include_pad else (0, 0)
    constants = {
        f"{base}/places": torch.tensor([2, 3]),
        f"{base}/more": torch.tensor([high, wide]),
    }
    one = numpy_helper.from_array(np.ones(1, dtype=np.float32))
    sizes, image, size, shape = (f"{base}/{step}" for step in ("sizes", "image", "size", "shape"))
    nodes = [
        helper.make_node("Shape", [source], [sizes]),
        helper.make_node("Gather", [sizes, f"{base}/places"], [image]),
        helper.make_node("Add", [image, f"{base}/more"], [size]),
        helper.make_node("Concat", [f"{base}/lead", size], [shape], axis=0),
        helper.make_node("ConstantOfShape", [shape], [f"{base}/ones"], value=one),
        helper.make_node("CastLike", [f"{base}/ones", source], [f"{base}/counted"]),
    ]
    if opset < 15:  # before CastLike: such files are float32 throughout
        nodes[-1] = helper.make_node("Identity", [f"{base}/ones"], [f"{base}/counted"])
    return nodes, constants
