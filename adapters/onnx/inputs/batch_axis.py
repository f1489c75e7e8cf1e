"""Open the batch axis of a graph that was exported for a fixed number of images.

Exporters write the batch size into the target shapes of reshapes and into constants (class tokens)
that are concatenated. Both are rewritten. The result is not proven to be right but compared, image
by image, with the original before it is used.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...errors import PerimetryError
from ..files.protos import attribute, set_items, standard_opset, store
from ..paths import image_edges
from ..session import Session
from .head import stored_constants

if TYPE_CHECKING:
    from collections.abc import Sequence


SLICE_INPUTS = 10
"""First opset in which the limits of Slice are inputs."""

TOLERANCE = 1e-3
"""Relative difference allowed between a batch of two and its images one by one."""


def settle_batch(
    proto: onnx.ModelProto, image: str, outputs: Sequence[str], two: Any, batch: int | None
) -> tuple[onnx.ModelProto, int | None]:
    """Return a graph for any batch and None, or the given graph and the batch that it requires.

    `two` (2, ...) are two different images in the layout of the file; `batch` is the size that the
    file declares. Outputs may have the batch on any axis, as those of text readers do.
    """
    first = (True,) if batch is None else (True, False)
    for leading in first:
        free = proto if batch is None else free_batch(proto, image, None if leading else batch)
        if _takes_any(free, proto, image, outputs, two, batch or 1):
            return free, None
    return proto, batch or 1


def _takes_any(
    free: onnx.ModelProto,
    proto: onnx.ModelProto,
    image: str,
    outputs: Sequence[str],
    two: Any,
    batch: int,
) -> bool:
    """Whether `free` gives the same for both images at once as `proto` gives for each."""
    single = Session(proto, outputs)
    each = [single.run({image: np.repeat(two[i : i + 1], batch, 0)}) for i in range(2)]
    try:
        both = Session(free, outputs).run({image: two})
    except PerimetryError:
        return False
    return all(_splits(both[n], [one[n] for one in each], batch) for n in outputs)


def _splits(both: Any, each: Sequence[Any], batch: int) -> bool:
    """Whether `both` has, along one axis, the first entries of `each` of two batches."""
    shape, single = np.shape(both), np.shape(each[0])
    axes = [
        a
        for a in range(len(shape))
        if (*shape[:a], batch, *shape[a + 1 :]) == single and shape[a] == 2
    ]
    return any(
        all(_close(np.take(both, i, a), np.take(each[i], 0, a)) for i in range(2)) for a in axes
    )


def _close(a: Any, b: Any) -> bool:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        return False
    # Files that give NaN give it at any batch; that is found out elsewhere.
    if not np.isfinite(b).all():
        return True
    return bool(np.linalg.norm(a - b) <= TOLERANCE * np.linalg.norm(b))


def free_batch(proto: onnx.ModelProto, image: str, batch: int | None = None) -> onnx.ModelProto:
    """Return a copy of `proto` whose batch axis is open, as far as the graph allows.

    Reshapes are opened at their first axis, or at the first one of the size `batch`, if given.
    """
    free = deepcopy(proto)
    graph = free.graph
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and (value.name == image or value in graph.output):
            dims[0].dim_param = "batch"
    opset = standard_opset(free)
    edges, stored = image_edges(free, image), stored_constants(free)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[0] in edges and node.input[1] in stored:
            _free_reshape(graph, node, numpy_helper.to_array(stored[node.input[1]]), batch)
        if node.op_type == "Concat" and edges.keys() & set(node.input) and opset >= SLICE_INPUTS:
            nodes += _free_concat(graph, node, edges)
        nodes.append(node)
    set_items(graph.node, nodes)
    return free


def _free_reshape(
    graph: onnx.GraphProto, node: onnx.NodeProto, shape: Any, batch: int | None
) -> None:
    """Infer one axis from the others; if another is open already, copy it from the input."""
    sizes = shape.copy()
    axis = next((a for a, n in enumerate(sizes) if n == batch), 0)
    if not sizes.size or sizes[axis] <= 0:
        return
    sizes[axis] = 0 if -1 in sizes else -1
    name = f"{node.output[0]}/free_shape"
    node.input[1] = store(graph, name, sizes)


def _free_concat(
    graph: onnx.GraphProto, node: onnx.NodeProto, edges: dict[str, list[str]]
) -> list[onnx.NodeProto]:
    """Repeat a constant operand for every image before it is concatenated."""
    lead = next(name for name in node.input if name in edges)
    axis = attribute(node, "axis")
    extra: list[onnx.NodeProto] = []
    for i, name in enumerate(node.input):
        if name in edges or axis == 0:
            continue
        base = f"{node.output[0]}/free_{i}"
        for key, value in (("zero", 0), ("one", 1), ("end", 2**31)):
            store(graph, f"{base}/{key}", np.array([value]))
        extra += [
            helper.make_node("Shape", [lead], [f"{base}/sizes"]),
            helper.make_node("Gather", [f"{base}/sizes", f"{base}/zero"], [f"{base}/batch"]),
            helper.make_node("Shape", [name], [f"{base}/own"]),
            helper.make_node(
                "Slice", [f"{base}/own", f"{base}/one", f"{base}/end"], [f"{base}/rest"]
            ),
            helper.make_node("Concat", [f"{base}/batch", f"{base}/rest"], [f"{base}/to"], axis=0),
            helper.make_node("Expand", [name, f"{base}/to"], [base]),
        ]
        node.input[i] = base
    return extra
