"""The last spatial feature map of an ONNX graph.

Every path from the image to the output must pass through it: the candidates are the dominators of
the output on the image-dependent part of the graph. Their true shapes come from one run with every
tensor exposed. The last one that reads as a grid of units wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .errors import NotApplicableError, UnknownNameError
from .model import Grid, find_grid
from .onnx_file import plain
from .onnx_session import Session, reads

if TYPE_CHECKING:
    import onnx

_SHAPE_ONLY = {"Shape", "Size", "ConstantOfShape", "EyeLike"}
"""Operators that look at a tensor's shape, not at its values."""


def image_edges(proto: onnx.ModelProto, image: str) -> dict[str, list[str]]:
    """Each image-dependent tensor, in execution order, with the image-dependent ones it reads."""
    edges: dict[str, list[str]] = {image: []}
    for node in proto.graph.node:
        sources = [name for name in reads(node) if name in edges]
        if sources and node.op_type not in _SHAPE_ONLY:
            edges.update({name: sources for name in node.output if name})
    return edges


def bottlenecks(proto: onnx.ModelProto, image: str, output: str) -> list[str]:
    """The tensors that every path from `image` to `output` passes through, in execution order.

    In execution order a tensor is one exactly when no edge between tensors on such paths jumps
    over it.
    """
    edges = image_edges(proto, image)
    if output not in edges:
        return []
    on_path = {output}
    for name in reversed(edges):
        if name in on_path:
            on_path.update(edges[name])
    order = [name for name in edges if name in on_path]
    place = {name: i for i, name in enumerate(order)}
    longest = [0] * len(order)
    for name in order:
        for source in edges[name]:
            longest[place[source]] = max(longest[place[source]], place[name])
    found, reach = [], 0
    for i, name in enumerate(order):
        if reach <= i:
            found.append(name)
        reach = max(reach, longest[i])
    return found


def find_target(
    proto: onnx.ModelProto, image: str, output: str, x: Any, size: tuple[int, int]
) -> Grid | None:
    """The last spatial map before `output`, found by one run on the array `x`, or None."""
    names = [n for n in bottlenecks(proto, image, output) if n != image]
    if not names:
        return None
    values = Session(proto, names, optimise=False).run({image: x})
    prefixed = _joins_stored_tokens(proto, image)
    for name in reversed(names):
        grid = as_grid(name, values[name], size)
        if grid is not None and (prefixed or not grid.prefix):
            return grid
    return None


def _joins_stored_tokens(proto: onnx.ModelProto, image: str) -> bool:
    """Whether some Concat joins what does not depend on the image to what does.

    Class and register tokens come in this way. Without one, a list of boxes from several grids may
    still be as long as a square grid with a few tokens more (28^2 + 14^2 + 7^2 = 32^2 + 5).
    """
    edges = image_edges(proto, image)
    return any(
        len({name in edges for name in node.input}) == 2
        for node in proto.graph.node
        if node.op_type == "Concat"
    )


def named_target(
    proto: onnx.ModelProto, image: str, name: str, x: Any, size: tuple[int, int]
) -> Grid:
    """The grid that the tensor `name`, or the node of that name, gives.

    Raises `UnknownNameError` or, when the tensor is no grid, `NotApplicableError`.
    """
    from .errors import unknown

    nodes = {n.name: n.output[0] for n in proto.graph.node if n.name}
    tensors = {o for n in proto.graph.node for o in n.output if o}
    tensor = name if name in tensors else nodes.get(name)
    if tensor is None:
        raise UnknownNameError(plain(unknown("tensor", name, sorted({*tensors, *nodes})), 400))
    value = Session(proto, [tensor]).run({image: x})[tensor]
    grid = as_grid(tensor, value, size)
    if grid is None:
        raise NotApplicableError(
            f"tensor {plain(tensor)!r} has shape {list(np.shape(value))}, no grid of units "
            f"over a {size[0]} x {size[1]} input; name another tensor as the target"
        )
    return grid


def as_grid(name: str, value: Any, size: tuple[int, int]) -> Grid | None:
    """Read one output as a grid; a lone row of features is none, whatever its length."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.ndim not in (3, 4):
        return None
    if value.ndim == 3 and 1 in value.shape[1:]:
        return None
    return find_grid(name, torch.empty(value.shape, device="meta"), size)
