"""Shapes, constants and kinds of the nodes of an ONNX graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import torch

from ..files.protos import standard_opset
from ..graph import Mode, operator_of, read_graph
from ..inputs.head import stored_constants
from ..inputs.size import fit_size
from ..inputs.spec import image_input, read_spec
from ..interpreter import fold_constants
from ..session import Session, feed

if TYPE_CHECKING:
    from collections.abc import Sequence


KINDS = {
    "Conv": "conv2d",
    "com.microsoft:FusedConv": "conv2d",
    "MaxPool": "max_pool2d",
    "AveragePool": "avg_pool2d",
}
"""ONNX operators that kernel padding supports, with torch's names of the calls."""

QUANTISED = {"QLinearConv", "ConvInteger", "com.microsoft:QLinearAveragePool"}
"""Their integer counterparts, which kernel padding does not support."""


class Facts:
    """Facts about the tensors of a file: constants, shapes, types, and nodes that write them."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        mode = Mode()
        self.constants = fold_constants(read_graph(proto, mode), mode, keep=True).constants
        self.stored = stored_constants(proto)
        self.writers = {o: n for n in proto.graph.node for o in n.output}
        self.opset = standard_opset(proto)
        inferred = _inferred(proto).graph
        values = (*inferred.value_info, *inferred.input, *inferred.output)
        self.shapes = {v.name: _dims(v) for v in values}
        self.types = {v.name: v.type.tensor_type.elem_type for v in values}
        self.by_hand = self._evaluate(proto, self._open_pads(proto))

    def _open_pads(self, proto: onnx.ModelProto) -> list[str]:
        """Return the amounts of Pad nodes before a layer that the graph computes from sizes."""
        sources = {n.input[0] for n in proto.graph.node if operator_of(n) in KINDS}
        pads = [n for n in proto.graph.node if n.op_type == "Pad" and n.output[0] in sources]
        names = {n.input[1] for n in pads if len(n.input) > 1}
        return sorted(names - self.constants.keys())

    @staticmethod
    def _evaluate(proto: onnx.ModelProto, names: Sequence[str]) -> dict[str, list[int]]:
        """Evaluate `names` at the input size of the file, or at the default size."""
        if not names:
            return {}
        image = image_input(proto)
        spec = fit_size(proto, image, read_spec(proto, image))
        blank = torch.zeros(image.dims[0] or 1, *spec.shape)
        values = Session(proto, names).run({image.name: feed(blank, spec)})
        return {name: value.tolist() for name, value in values.items()}

    def kind(self, name: str) -> int:
        """The element type of a tensor, float32 when the file does not say."""
        stored = self.stored.get(name)
        return (stored.data_type if stored else self.types.get(name)) or onnx.TensorProto.FLOAT

    def shape(self, name: str) -> list[int | None]:
        """Return the four sizes of an image-like tensor, with None for open ones."""
        dims = self.shapes.get(name, [])
        return dims if len(dims) == 4 else [None] * 4


def _inferred(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return `proto` with inferred shapes, or unchanged where ONNX cannot infer any."""
    try:
        return onnx.shape_inference.infer_shapes(proto)
    except Exception:  # its own error has no common base across releases of onnx
        return proto


def _dims(value: onnx.ValueInfoProto) -> list[int | None]:
    dims = value.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims]
