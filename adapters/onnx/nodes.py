"""A pass of an ONNX graph node by node: every tensor, and every node by itself.

`node_outputs` gives the tensors of one pass. `fed_outputs` gives what every node makes of given
inputs: what reads a tensor reads a new input of the graph instead, so one run has the output of all
nodes by themselves. The graph is run without fusions. `random_nodes` are those that may give
something else in every pass.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import onnx
import torch

from ..model import NodeOutput
from .analysis.steps import FLOATS
from .files.protos import all_nodes, attribute, node_label, printable, reads, rename_reads
from .graph import operator_of
from .interpreter import RANDOM
from .paths import image_edges
from .session import Session, tensor_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from .session import Shapes

TYPES = {
    "float": onnx.TensorProto.FLOAT,
    "double": onnx.TensorProto.DOUBLE,
    "float16": onnx.TensorProto.FLOAT16,
}
"""Element types of tensors that can be compared and fed."""

TORCH_TYPES = {"float": torch.float32, "double": torch.float64, "float16": torch.float16}

FED = "/fed"
"""The end of the names of new inputs."""


def float_tensors(proto: onnx.ModelProto, image: str, x: Tensor) -> Shapes:
    """Shapes and types of the tensors of floats that depend on the image, in execution order."""
    names = [name for name in image_edges(proto, image) if name != image]
    shapes = tensor_shapes(proto, names, {image: x.numpy()}) if names else {}
    return {name: shapes[name] for name in names if name in shapes and shapes[name][1] in FLOATS}


def node_outputs(
    proto: onnx.ModelProto, image: str, x: Tensor, device: torch.device
) -> dict[str, NodeOutput]:
    """Every tensor of floats of a pass over `x`, as the file takes it, in execution order."""
    names = [name for name, (_, kind) in float_tensors(proto, image, x).items() if kind in TYPES]
    if not names:
        return {}
    values = Session(proto, names, device=device, optimise=False).run_tensors({image: x})
    operators = {name: node for node in proto.graph.node for name in node.output}
    return {
        name: NodeOutput(printable(operator_of(operators[name])), values[name].cpu().float())
        for name in names
    }


def fed_outputs(
    proto: onnx.ModelProto,
    image: str,
    x: Tensor,
    values: Mapping[str, Tensor],
    device: torch.device,
) -> dict[str, Tensor]:
    """The tensors `values`, if what reads one of them reads its value there instead."""
    shapes = float_tensors(proto, image, x)
    names = [n for n in values if n in shapes and shapes[n][1] in TYPES]
    fed = deepcopy(proto)
    new = {name: f"{name}{FED}" for name in names}
    for node in fed.graph.node:
        rename_reads(node, new)
    feeds = {image: x}
    read: set[str] = set().union(*(reads(node) for node in fed.graph.node))
    for name in (n for n in names if new[n] in read):
        shape, kind = shapes[name]
        fed.graph.input.append(
            onnx.helper.make_tensor_value_info(new[name], TYPES[kind], list(shape))
        )
        feeds[new[name]] = values[name].reshape(shape).to(TORCH_TYPES[kind])
    found = Session(fed, names, device=device, optimise=False).run_tensors(feeds)
    return {name: found[name].cpu().float() for name in names}


def random_nodes(graph: onnx.GraphProto) -> list[str]:
    """Nodes that may give something else in every pass, those of subgraphs included."""
    return [node_label(n) for n in all_nodes(graph) if n.op_type in RANDOM or _trains(n)]


def _trains(node: onnx.NodeProto) -> bool:
    """Whether a node is in training mode; onnxruntime leaves parts of such norms undefined."""
    if node.op_type == "Dropout":
        return len(node.input) > 2 and bool(node.input[2])
    norm = node.op_type == "BatchNormalization"
    return norm and bool(attribute(node, "training_mode"))


def steps(proto: onnx.ModelProto) -> dict[str, str]:
    """The first output of every node at the top of the graph, with the node's label."""
    return {node.output[0]: node_label(node) for node in proto.graph.node if node.output[0]}
