"""The convolutions and pools of an ONNX graph as kernel padding sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
import torch

from .onnx_file import plain, standard_opset
from .onnx_graph import Mode, read_graph
from .onnx_interpreter import fold_constants
from .onnx_ops_nn import same_padding
from .onnx_session import Session, feed
from .onnx_size import fit_size
from .onnx_spec import image_input, read_spec, stored_constants
from .padding_calls import Call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .padding_kernels import Pair

KINDS = {
    "Conv": "conv2d",
    "com.microsoft:FusedConv": "conv2d",
    "MaxPool": "max_pool2d",
    "AveragePool": "avg_pool2d",
}
"""ONNX operators that take the treatment, and torch's name of the call they are."""

QUANTISED = {"QLinearConv", "ConvInteger", "com.microsoft:QLinearAveragePool"}
"""Operators that would, but store whole numbers only."""


@dataclass(frozen=True)
class Site:
    """One convolution or pool of the graph; pairs are (rows, columns).

    `pads` is (before rows, before columns, after rows, after columns), None where the file leaves
    it to `auto_pad` and the input's size is open. `by_hand` is what a Pad node just before adds.
    """

    node: onnx.NodeProto
    call: Call
    auto: str
    pads: list[int] | None
    by_hand: tuple[Pair, Pair]
    size: tuple[int | None, int | None]

    @property
    def name(self) -> str:
        """The node's name, or its output's."""
        return plain(self.node.name or self.node.output[0])


class Facts:
    """What the file states about its tensors: constants, shapes, types, and who writes them."""

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
        """The amounts of Pad nodes before a layer that the graph computes from its sizes."""
        sources = {n.input[0] for n in proto.graph.node if operator_of(n) in KINDS}
        pads = [n for n in proto.graph.node if n.op_type == "Pad" and n.output[0] in sources]
        names = {n.input[1] for n in pads if len(n.input) > 1}
        return sorted(names - self.constants.keys())

    @staticmethod
    def _evaluate(proto: onnx.ModelProto, names: Sequence[str]) -> dict[str, list[int]]:
        """Values of `names` at the input size of the file, or at the default size."""
        if not names:
            return {}
        image = image_input(proto)
        spec = fit_size(proto, image, read_spec(proto, image))
        blank = torch.zeros(image.dims[0] or 1, spec.channels, spec.height, spec.width)
        values = Session(proto, names).run({image.name: feed(blank, spec)})
        return {name: value.tolist() for name, value in values.items()}

    def kind(self, name: str) -> int:
        """The element type of a tensor, float32 when the file does not say."""
        stored = self.stored.get(name)
        return (stored.data_type if stored else self.types.get(name)) or onnx.TensorProto.FLOAT

    def shape(self, name: str) -> list[int | None]:
        """The four sizes of an image-like tensor, None for open ones."""
        dims = self.shapes.get(name, [])
        return dims if len(dims) == 4 else [None] * 4


def _inferred(proto: onnx.ModelProto) -> onnx.ModelProto:
    """`proto` with inferred shapes, or as it is where the rules of ONNX cannot infer any."""
    try:
        return onnx.shape_inference.infer_shapes(proto)
    except Exception:  # its own error has no common base across releases of onnx
        return proto


def read_site(node: onnx.NodeProto, facts: Facts) -> Site | None:
    """What a convolution or pool does, None when it is not two-dimensional."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    weight = facts.constants.get(node.input[1]) if len(node.input) > 1 else None
    kernel: list[int] = list(attributes.get("kernel_shape", []))
    if not kernel and weight is not None:
        kernel = list(weight.shape[2:])
    stride, dilation = (list(attributes.get(k, [1, 1])) for k in ("strides", "dilations"))
    if any(len(pair) != 2 for pair in (kernel, stride, dilation)):
        return None
    size = facts.shape(node.input[0])[2:]
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    pads: list[int] | None = list(attributes.get("pads", [0] * 4))
    if auto.startswith("SAME"):
        lower = auto == "SAME_LOWER"
        known = None not in size
        pads = same_padding(size, kernel, stride, dilation, lower=lower) if known else None  # type: ignore[arg-type]
    call = Call(
        KINDS[operator_of(node)],  # type: ignore[arg-type]
        torch.empty(0, device="meta"),
        (int(kernel[0]), int(kernel[1])),
        (stride[0], stride[1]),
        (0, 0),
        (dilation[0], dilation[1]),
        ceil_mode=bool(attributes.get("ceil_mode", 0)),
        weight=weight,
        groups=attributes.get("group", 1),
        indices=len(node.output) > 1 and bool(node.output[1]),
        include_pad=bool(attributes.get("count_include_pad", 0)),
    )
    return Site(node, call, auto, pads, _padded_by_hand(node, facts), (size[0], size[1]))


def _padded_by_hand(node: onnx.NodeProto, facts: Facts) -> tuple[Pair, Pair]:
    """What a Pad node with zeros just before `node` adds: rows (before, after), columns."""
    writer = facts.writers.get(node.input[0])
    if writer is None or writer.op_type != "Pad":
        return (0, 0), (0, 0)
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in writer.attribute}
    pads = attributes.get("pads")
    if len(writer.input) > 1 and writer.input[1] in facts.constants:
        pads = facts.constants[writer.input[1]].tolist()
    elif len(writer.input) > 1:
        pads = facts.by_hand.get(writer.input[1])
    if attributes.get("mode", b"constant") != b"constant" or pads is None or len(pads) != 8:
        return (0, 0), (0, 0)
    return (pads[2], pads[6]), (pads[3], pads[7])


def operator_of(node: onnx.NodeProto) -> str:
    """The operator, with its domain where that is not the standard one."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}:{node.op_type}"


def why_not_read(node: onnx.NodeProto, op: str, facts: Facts) -> str | None:
    """The reason to report for strided layers that are no two-dimensional float layers."""
    strides = next((list(a.ints) for a in node.attribute if a.name == "strides"), [1])
    if max(strides) == 1:
        return None
    if op in QUANTISED:
        return "its weights are stored as whole numbers, which the new taps need not be"
    if op in KINDS and _is_uneven(node, strides, facts):
        return "kernel padding grows 2-D kernels only"
    return None


def _is_uneven(node: onnx.NodeProto, strides: Sequence[int], facts: Facts) -> bool:
    kernel = next((list(a.ints) for a in node.attribute if a.name == "kernel_shape"), None)
    if kernel is None and len(node.input) > 1 and node.input[1] in facts.constants:
        kernel = list(facts.constants[node.input[1]].shape[2:])
    return kernel is None or any(k % s for k, s in zip(kernel, strides, strict=False))


def _dims(value: onnx.ValueInfoProto) -> list[int | None]:
    dims = value.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims]
