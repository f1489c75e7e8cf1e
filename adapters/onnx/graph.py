"""The parts of an ONNX graph as the interpreter sees them: nodes, constants, one call.

Floats of every width become one type (float32 by default), so that half-precision and quantised
files can be differentiated. Integers keep their type, except that unsigned ones become the next
wider signed type.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from ..errors import NotApplicableError
from .files.protos import STANDARD, printable, standard_opset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


TYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.UINT16: torch.int32,
    onnx.TensorProto.UINT32: torch.int64,
    onnx.TensorProto.UINT64: torch.int64,
    onnx.TensorProto.BOOL: torch.bool,
}
"""ONNX element type to the torch type that holds it."""

_WIDER = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64, "bfloat16": np.float32}


@dataclass(frozen=True)
class Node:
    """One operator of a graph. `op` includes the domain when it is not the standard one."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int
    constant: frozenset[str] = frozenset()
    """Those inputs that do not depend on the image."""

    def reads(self) -> set[str]:
        """All tensors that the node reads, including those that its subgraphs capture."""
        names = set(self.inputs) - {""}
        for value in self.attributes.values():
            if isinstance(value, Graph):
                names |= value.captured()
        return names

    def label(self) -> str:
        """Operator and name, safe to print."""
        return f"{printable(self.op)} node {printable(self.name or self.outputs[0])!r}"


@dataclass(frozen=True)
class Graph:
    """Nodes in execution order, constant tensors, names of inputs and outputs."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Constants and nodes left out, by a tensor that they write, with the reason."""

    def captured(self) -> set[str]:
        """Names that are read in this graph but written outside."""
        written = {*self.inputs, *self.constants}
        written.update(name for node in self.nodes for name in node.outputs)
        read = set(self.outputs).union(*(node.reads() for node in self.nodes))
        return read - written

    def walk(self) -> Iterator[Node]:
        """Every node, including those of subgraphs."""
        for node in self.nodes:
            yield node
            for value in node.attributes.values():
                if isinstance(value, Graph):
                    yield from value.walk()


@dataclass(frozen=True)
class Mode:
    """Settings of an evaluation: float type, device, and whether only shapes matter (`skeleton`).

    Without `rounding`, quantised tensors hold the values before rounding.
    """

    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    skeleton: bool = False
    rounding: bool = True

    def place(self, tensor: Tensor) -> Tensor:
        """Convert floats to the mode's type and device; integers are not changed."""
        return tensor.to(self.device, self.dtype) if tensor.is_floating_point() else tensor


@dataclass(frozen=True)
class OperatorCall:
    """The context of an operator besides its input tensors: node, opset and mode."""

    node: Node
    mode: Mode
    scope: Mapping[str, Tensor]
    evaluate: Callable[[Graph, Mapping[str, Tensor]], list[Tensor]]
    """Evaluates a subgraph, which can read the tensors in the scope of this node."""

    def get(self, name: str, default: Any = None) -> Any:
        """The attribute `name` of the node."""
        return self.node.attributes.get(name, default)

    @property
    def opset(self) -> int:
        """Version of the standard operator set."""
        return self.node.opset

    def decline(self, what: str) -> NotApplicableError:
        """Return the error for a variant of the operator that has no gradient route."""
        return NotApplicableError(f"{self.node.label()}: {what} is not implemented")


def integers(values: Tensor | Sequence[int] | None) -> list[int] | None:
    """Return a shape-like tensor or attribute as a list, or None when it is absent."""
    if values is None:
        return None
    return [int(v) for v in (values.flatten().tolist() if isinstance(values, Tensor) else values)]


def to_tensor(proto: onnx.TensorProto) -> Tensor:
    """Convert a stored tensor; types that torch does not have are widened.

    Raises `NotApplicableError` for types that are not numeric or not supported.
    """
    array = numpy_helper.to_array(proto)
    array = array.astype(_WIDER.get(array.dtype.name, array.dtype))
    if array.dtype.name in {"int4", "uint4", "int2", "uint2"}:
        array = array.astype(np.int8)
    if array.dtype.kind not in "biuf":
        raise NotApplicableError(
            f"tensor {printable(proto.name)!r} has type {array.dtype.name}, which has no gradient "
            "route"
        )
    return torch.from_numpy(np.array(array))


def read_graph(proto: onnx.ModelProto, mode: Mode) -> Graph:
    """Turn the file's graph into nodes and constants for `mode`."""
    return _graph(proto.graph, standard_opset(proto), mode)


def operator_of(node: onnx.NodeProto) -> str:
    """The operator, with its domain where that is not the standard one."""
    op, domain = printable(node.op_type), printable(node.domain)  # damaged text comes as bytes
    return op if domain in STANDARD else f"{domain}:{op}"


def _graph(proto: onnx.GraphProto, opset: int, mode: Mode) -> Graph:
    constants: dict[str, Tensor] = {}
    unreadable = {
        i.values.name: "sparse weights have no gradient route" for i in proto.sparse_initializer
    }
    for stored in proto.initializer:
        try:
            constants[stored.name] = mode.place(to_tensor(stored))
        except NotApplicableError as error:
            unreadable[stored.name] = str(error)
    nodes = []
    for raw in proto.node:
        try:
            node = _node(raw, opset, mode)
            if node.op == "Constant":
                constants[node.outputs[0]] = _constant(node, mode)
            else:
                nodes.append(node)
        except NotApplicableError as error:
            unreadable[raw.output[0]] = str(error)
    known = {*constants, *unreadable}
    inputs = tuple(i.name for i in proto.input if i.name not in known)
    outputs = tuple(o.name for o in proto.output)
    return Graph(tuple(nodes), constants, inputs, outputs, unreadable)


def _node(raw: onnx.NodeProto, opset: int, mode: Mode) -> Node:
    attributes = {a.name: _attribute(a, opset, mode) for a in raw.attribute}
    return Node(operator_of(raw), raw.name, tuple(raw.input), tuple(raw.output), attributes, opset)


def _attribute(raw: onnx.AttributeProto, opset: int, mode: Mode) -> Any:
    value = onnx.helper.get_attribute_value(raw)
    if raw.type == onnx.AttributeProto.GRAPH:
        graph = _graph(value, opset, mode)
        for reason in graph.unreadable.values():
            raise NotApplicableError(reason)
        return graph
    if raw.type == onnx.AttributeProto.TENSOR:
        return mode.place(to_tensor(value))
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if raw.type == onnx.AttributeProto.STRINGS:
        return [v.decode(errors="replace") for v in value]
    return value


def _constant(node: Node, mode: Mode) -> Tensor:
    ((key, value),) = node.attributes.items()
    if key.startswith("value_float"):
        return mode.place(torch.tensor(value))
    if key.startswith("value_int"):
        return torch.tensor(value, dtype=torch.int64)
    if key != "value":
        raise NotApplicableError(f"{node.label()} contains a {key}, which has no gradient route")
    return value  # type: ignore[no-any-return]
