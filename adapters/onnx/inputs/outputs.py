"""The outputs of an ONNX file, and random images to evaluate them.

Some outputs cannot be audited: maps, and those behind operators that onnxruntime does not have.
Exported detectors end in plugins of other runtimes (EfficientNMS_TRT), classifiers in a ZipMap. If
no output of floats is left, the tensors that such a node reads become the outputs. A graph with
layers behind the node is not changed: the node is then part of the network.
"""

from __future__ import annotations

import contextlib
from copy import deepcopy
from typing import TYPE_CHECKING

import onnx
import torch
from torch import Tensor

from ...errors import InputError, ModelFileError, unknown
from ..files.protos import node_name, output_names, printable, set_items
from ..graph import operator_of
from ..paths import image_edges
from ..session import with_outputs

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import onnx

    from ...input_spec import InputSpec


def example(spec: InputSpec, count: int) -> Tensor:
    """Return random images as `x` (count, channels, height, width), the same in every call."""
    random = torch.Generator().manual_seed(0)
    return spec.prepare(torch.rand(count, 3, spec.height, spec.width, generator=random))


def logits_output(proto: onnx.ModelProto, name: str | None = None) -> str | None:
    """Return the output with the logits: the named one, else the first of shape (batch, classes).

    Trailing axes of size 1 do not count. None when no output has that form.
    """
    outputs = output_names(proto)
    if name is not None:
        if name not in outputs:
            raise InputError(printable(unknown("output", name, outputs), 400))
        return name
    return next(iter(like_logits(proto)), None)


def like_logits(proto: onnx.ModelProto) -> list[str]:
    """Return the float outputs of shape (batch, classes), with further axes of size 1."""
    return [str(o.name) for o in proto.graph.output if _is_like_logits(o.type.tensor_type)]


def _is_like_logits(kind: onnx.TypeProto.Tensor) -> bool:
    dims = list(kind.shape.dim)
    flat = len(dims) >= 2 and all(d.dim_value == 1 for d in dims[2:])
    return kind.elem_type in FLOATING and flat


FLOATING = (1, 10, 11, 16)
"""ONNX element types float32, float16, float64 and bfloat16."""


def first_output(proto: onnx.ModelProto, image: str) -> str:
    """The first output that depends on the image. Raises `ModelFileError` when there is none."""
    edges = image_edges(proto, image)
    for output in proto.graph.output:
        if output.name in edges and output.type.HasField("tensor_type"):
            return str(output.name)
    raise ModelFileError("no output of the file is a tensor that depends on the image")


def precision_of(proto: onnx.ModelProto) -> str:
    """The narrowest float type of the weights: float32 or float16."""
    half = any(i.data_type in (10, 16) for i in proto.graph.initializer)
    return "float16" if half else "float32"


LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "com.microsoft:FusedConv", "QLinearConv"}
"""Operators that are part of a network, not of its post-processing."""


def without_post_processing(
    proto: onnx.ModelProto, image: str
) -> tuple[onnx.ModelProto, list[str]]:
    """Return a copy of `proto` with outputs that can be audited, and notes; else `proto` itself."""
    first, behind = _unusable(proto)
    lost = [o for o in proto.graph.output if o.name in behind or not o.type.HasField("tensor_type")]
    nodes = [n for n in proto.graph.node if behind.intersection(n.output)]
    if not lost or not first or any(operator_of(n) in LAYERS for n in nodes):
        return proto, []
    kept = [o for o in proto.graph.output if o not in lost]
    edges = image_edges(proto, image)
    if not any(o.name in edges and o.type.tensor_type.elem_type in FLOATING for o in kept):
        kept += _declared(proto, [n for node in first for n in node.input if n in edges])
    copy = deepcopy(proto)
    set_items(copy.graph.output, kept)
    names = ", ".join(f"{printable(operator_of(n))} node {node_name(n)!r}" for n in first[:8])
    ends = ", ".join(repr(printable(o.name)) for o in kept[:8])
    return copy, [f"{names} cannot be audited and is left out: the outputs are {ends}"]


def _unusable(proto: onnx.ModelProto) -> tuple[list[onnx.NodeProto], set[str]]:
    """The first nodes of the post-processing, and all tensors that depend on them."""
    first: list[onnx.NodeProto] = []
    behind: set[str] = set()
    for node in proto.graph.node:
        if behind.intersection(node.input):
            behind.update(node.output)
        elif node.op_type == "ZipMap" or not _is_known(node):
            first.append(node)
            behind.update(node.output)
    return first, behind - {""}


def _is_known(node: onnx.NodeProto) -> bool:
    """Whether onnxruntime may have the operator; its own domains are not looked up."""
    op, domain = printable(node.op_type), printable(node.domain)
    return domain.startswith("com.m") or onnx.defs.has(op, domain)


def _declared(proto: onnx.ModelProto, names: Collection[str]) -> Sequence[onnx.ValueInfoProto]:
    """Outputs for the tensors `names`, with types and shapes as far as they can be inferred."""
    cut = with_outputs(proto, list(dict.fromkeys(names)))
    with contextlib.suppress(Exception):  # onnx's own error has no common base across releases
        cut = onnx.shape_inference.infer_shapes(cut)
    return list(cut.graph.output)
