"""Find the tensors of an ONNX graph that lie between the image and its outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .files.protos import reads

if TYPE_CHECKING:
    import onnx


SHAPE_ONLY = {"Shape", "Size", "ConstantOfShape", "EyeLike"}
"""Operators that read a tensor's shape, not its values."""


def image_edges(proto: onnx.ModelProto, image: str) -> dict[str, list[str]]:
    """Return image-dependent tensors, in execution order, with those that each of them reads."""
    edges: dict[str, list[str]] = {image: []}
    for node in proto.graph.node:
        sources = [name for name in reads(node) if name in edges]
        if sources and node.op_type not in SHAPE_ONLY:
            edges.update({name: sources for name in node.output if name})
    return edges


def on_the_way(proto: onnx.ModelProto, image: str, output: str) -> list[str]:
    """The tensors on paths from `image` to `output`, both included, in execution order."""
    edges = image_edges(proto, image)
    if output not in edges:
        return []
    on_path = {output}
    for name in reversed(edges):
        if name in on_path:
            on_path.update(edges[name])
    return [name for name in edges if name in on_path]


def bottlenecks(proto: onnx.ModelProto, image: str, output: str) -> list[str]:
    """The tensors that every path from `image` to `output` passes through, in execution order.

    In execution order, a tensor is one exactly when no edge between tensors on such paths skips it.
    """
    edges = image_edges(proto, image)
    order = on_the_way(proto, image, output)
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
