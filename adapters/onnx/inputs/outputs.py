"""The outputs of an ONNX file, and random images to evaluate them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import InputError, ModelFileError, unknown
from ..files.protos import output_names, printable
from ..paths import image_edges

if TYPE_CHECKING:
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
