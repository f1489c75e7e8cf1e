"""The last spatial feature map of an ONNX graph.

Every path from the image to the output must pass through it: the candidates are the dominators of
the output on the image-dependent part of the graph. One run with every tensor as an output gives
their shapes. The target is the last one that is a grid of units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...errors import NotApplicableError, UnknownNameError
from ...feature_grid import Grid, find_grid
from ..files.read import printable
from ..paths import bottlenecks, image_edges, on_the_way
from ..session import Session
from .layout import FIRST, layouts

if TYPE_CHECKING:
    import onnx


def find_graph_target(
    proto: onnx.ModelProto, image: str, output: str, x: Any, size: tuple[int, int]
) -> Grid | None:
    """Find the last spatial map before `output` by one run on the array `x`, or None."""
    names = [n for n in bottlenecks(proto, image, output) if n != image]
    if not names:
        return None
    values = Session(proto, names, optimise=False).run({image: x})
    prefixed, known = _joins_stored_tokens(proto, image), layouts(proto)
    for name in reversed(names):
        grid = as_grid(name, values[name], size, known.get(name))
        if grid is not None and (prefixed or not grid.prefix):
            fine = (grid.height, grid.width) == size
            return (coarsest_map(proto, image, name, x, size) if fine else None) or grid
    return None


def coarsest_map(
    proto: onnx.ModelProto, image: str, output: str, x: Any, size: tuple[int, int]
) -> Grid | None:
    """Return the last of the coarsest maps before `output`, or None if none is coarser than x.

    If the last map is as fine as the image, as in encoder-decoder networks, every pixel has units
    of its own; the effect of strides shows in the coarsest map.
    """
    known = layouts(proto)
    names = [n for n in on_the_way(proto, image, output) if n in known]
    values = Session(proto, names, optimise=False).run({image: x}) if names else {}
    grids = [as_grid(name, values[name], size, known[name]) for name in names]
    coarse = [g for g in grids if g is not None and min(g.height, g.width) > 1]
    best = min((g.height * g.width for g in coarse), default=size[0] * size[1])
    if best == size[0] * size[1]:
        return None
    return next(g for g in reversed(coarse) if g.height * g.width == best)


def _joins_stored_tokens(proto: onnx.ModelProto, image: str) -> bool:
    """Whether a Concat joins constants to tensors that depend on the image.

    Class and register tokens come in this way. Without one, a list of boxes from several grids may
    still be as long as a square grid with a few tokens more (28^2 + 14^2 + 7^2 = 32^2 + 5).
    """
    edges = image_edges(proto, image)
    return any(
        len({name in edges for name in node.input}) == 2
        for node in proto.graph.node
        if node.op_type == "Concat"
    )


def named_graph_target(
    proto: onnx.ModelProto, image: str, name: str, x: Any, size: tuple[int, int]
) -> Grid:
    """Return the grid of the tensor `name`, or of the output of the node `name`.

    Raises `UnknownNameError`, or `NotApplicableError` when the tensor is not a grid.
    """
    from ...errors import unknown

    nodes = {n.name: n.output[0] for n in proto.graph.node if n.name}
    tensors = {o for n in proto.graph.node for o in n.output if o}
    tensor = name if name in tensors else nodes.get(name)
    if tensor is None:
        raise UnknownNameError(printable(unknown("tensor", name, sorted({*tensors, *nodes})), 400))
    value = Session(proto, [tensor]).run({image: x})[tensor]
    grid = as_grid(tensor, value, size, layouts(proto).get(tensor))
    if grid is None:
        raise NotApplicableError(
            f"tensor {printable(tensor)!r} has shape {list(np.shape(value))}, not a grid of units "
            f"over a {size[0]} x {size[1]} input; name another tensor as the target"
        )
    return grid


def as_grid(name: str, value: Any, size: tuple[int, int], layout: str | None = None) -> Grid | None:
    """Return the grid of an output, or None; a single row of features is not a grid.

    If the `layout` is known, the strides along rows and columns may differ by any factor, as they
    do in networks that read lines of text.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.ndim not in (3, 4):
        return None
    if value.ndim == 3 and 1 in value.shape[1:]:
        return None
    found = find_grid(name, torch.empty(value.shape, device="meta"), size)
    if layout is None or value.ndim == 3 or (found is not None and found.kind == layout):
        return found
    order = (1, 2, 3) if layout == FIRST else (3, 1, 2)
    channels, height, width = (value.shape[i] for i in order)
    if min(height, width) < 2 or height > size[0] or width > size[1]:
        return None
    return Grid(name, "NCHW" if layout == FIRST else "NHWC", channels, height, width)
