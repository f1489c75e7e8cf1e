"""Quantisation of graphs: one node at a time in eight bits, and the real values of integer maps.

A float ONNX file has one node at a time in eight bits, to see what each costs. The weights of the
node are rounded to int8, symmetric with a scale for each output channel; its input is rounded to
uint8, with one scale over the range that it has for the given image. All other nodes stay as they
are. This is what static quantisation does to a node (QuantizeLinear and DequantizeLinear around
it), with the best range for this image.

A feature map between two operators such as QLinearConv has only integer levels. Each such tensor is
therefore dequantised and quantised again behind its operator, which changes no level; the tensor
between the two steps has real values.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from ..errors import NotApplicableError
from .files.protos import attribute, output_names, rename_reads, set_items, standard_opset, store
from .graph import operator_of
from .operators.quantised import zero_place
from .session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
FIRST_OPSET = 10
"""The first opset with QuantizeLinear and DequantizeLinear."""


def each_quantised(
    proto: onnx.ModelProto, image: str, x: Tensor, device: torch.device
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The first output of every layer with stored float weights, and the outputs of the file.

    The outputs are those for `x`, as the file takes it, if this layer alone is in eight bits.
    Raises `NotApplicableError` for a file without such layers.
    """
    stored = {i.name: i for i in proto.graph.initializer if i.data_type == onnx.TensorProto.FLOAT}
    places = [
        (place, weight)
        for place, node in enumerate(proto.graph.node)
        if operator_of(node) in LAYERS
        and (weight := _weight(node, stored)) is not None
        and node.input[1 - weight] not in stored
    ]
    if not places or standard_opset(proto) < FIRST_OPSET:
        raise NotApplicableError(
            "the file has no layers with float32 weights that can be quantised one at a time; give "
            "a float32 file of opset 10 or later"
        )
    names = list(dict.fromkeys(proto.graph.node[p].input[1 - w] for p, w in places))
    inner = [name for name in names if name != image]
    values = Session(proto, inner, device=device).run_tensors({image: x}) if inner else {}
    ranges = {name: _range(value.float().cpu().numpy()) for name, value in values.items()}
    ranges[image] = _range(x.float().numpy())
    outputs = output_names(proto)
    for place, weight in places:
        node = proto.graph.node[place]
        made = _quantised(proto, place, weight, stored, ranges[node.input[1 - weight]])
        found = Session(made, outputs, device=device).run_tensors({image: x})
        yield node.output[0], {n: v.cpu() for n, v in found.items()}


def _weight(node: onnx.NodeProto, stored: dict[str, Any]) -> int | None:
    """The place of the stored matrix or kernel among a node's inputs."""
    places = (1, 0) if node.op_type == "MatMul" else (1,)
    return next((p for p in places if len(node.input) > p and node.input[p] in stored), None)


def _range(values: np.ndarray) -> tuple[float, float]:
    """The range of values, with 0 in it."""
    return min(0.0, float(values.min())), max(0.0, float(values.max()))


def _quantised(
    proto: onnx.ModelProto,
    place: int,
    weight: int,
    stored: dict[str, onnx.TensorProto],
    ends: tuple[float, float],
) -> onnx.ModelProto:
    """A copy of the file with one layer in eight bits."""
    made = deepcopy(proto)
    node = made.graph.node[place]
    name = f"{node.output[0]}/eight bits"
    kernel = numpy_helper.to_array(stored[node.input[weight]])
    store(made.graph, f"{name}/weight", round_weights(kernel, _axis(node, weight)))
    scale = np.asarray(max(ends[1] - ends[0], 1e-30) / 255, np.float32)
    zero = np.asarray(np.clip(np.round(-ends[0] / scale), 0, 255), np.uint8)
    constants = [
        store(made.graph, f"{name}/scale", scale),
        store(made.graph, f"{name}/zero", zero),
    ]
    steps = [
        onnx.helper.make_node(
            "QuantizeLinear", [node.input[1 - weight], *constants], [f"{name}/levels"]
        ),
        onnx.helper.make_node("DequantizeLinear", [f"{name}/levels", *constants], [f"{name}/in"]),
    ]
    node.input[weight], node.input[1 - weight] = f"{name}/weight", f"{name}/in"
    nodes = [*made.graph.node[:place], *steps, *made.graph.node[place:]]
    set_items(made.graph.node, nodes)
    return made


def _axis(node: onnx.NodeProto, weight: int) -> int:
    """The axis of the output channels in a layer's weights."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB") else 1
    return -1 if weight == 1 else -2


def round_weights(kernel: np.ndarray, axis: int) -> np.ndarray:
    """Weights rounded to int8, symmetric, with a scale for each channel along `axis`."""
    axis %= kernel.ndim
    others = tuple(a for a in range(kernel.ndim) if a != axis)
    largest = np.abs(kernel).max(axis=others, keepdims=True) if others else np.abs(kernel)
    scale = np.where(largest > 0, largest, 1.0) / 127
    rounded: np.ndarray = (np.round(kernel / scale) * scale).astype(np.float32)
    return rounded


MAPPING = frozenset({"MaxPool", "DepthToSpace", "SpaceToDepth"})
"""Operators with another map of the levels of their input."""

MOVING = MAPPING | {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Pad", "Slice"}
"""Operators whose results have the levels of their input."""


def expose_levels(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return `proto` with added tensors for the real values of quantised ones; a copy if any."""
    steps = _steps(proto)
    if not steps or standard_opset(proto) < FIRST_OPSET:
        return proto
    exposed = deepcopy(proto)
    nodes: list[onnx.NodeProto] = []
    for node in exposed.graph.node:
        rename_reads(node, {name: again.output[0] for name, (_, again) in steps.items()})
        nodes += [node, *steps.get(node.output[0], ())]
    set_items(exposed.graph.node, nodes)
    return exposed


def _steps(proto: onnx.ModelProto) -> dict[str, tuple[onnx.NodeProto, onnx.NodeProto]]:
    """The two nodes to add behind the operators that give quantised maps, by the output's name."""
    levels: dict[str, tuple[str, str]] = {}  # scale and zero point of a quantised tensor
    turned: set[str] = set()  # transposed maps, in any shape: they may be space to depth
    found = {}
    for node in proto.graph.node:
        operator, own, name = operator_of(node), _levels(node), node.output[0]
        if own is None and operator in MOVING:
            own = levels.get(node.input[0])
        if own is None:
            continue
        levels[name] = own
        shaped = operator in MOVING - MAPPING and node.input[0] in turned
        if shaped or operator == "Transpose":
            turned.add(name)
        if shaped or operator in MAPPING or zero_place(operator) is not None:
            found[name] = _there_and_back(name, *own)
    return found


def _levels(node: onnx.NodeProto) -> tuple[str, str] | None:
    """The scale and the zero point of the result of an operator that rounds; else None."""
    place = 2 if node.op_type == "QuantizeLinear" else zero_place(operator_of(node))
    if place is None or len(node.input) <= place:
        return None
    return node.input[place - 1], node.input[place]


def _there_and_back(name: str, scale: str, zero: str) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    """Nodes that dequantise the tensor `name`, and quantise it."""
    real, again = f"{name}/real", f"{name}/again"
    return (
        onnx.helper.make_node("DequantizeLinear", [name, scale, zero], [real], real),
        onnx.helper.make_node("QuantizeLinear", [real, scale, zero], [again], again),
    )
