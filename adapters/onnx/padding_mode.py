"""Another padding mode for an ONNX graph: reflect, replicate or circular.

A layer that pads is replaced by a Pad node (`reflect`, `edge`) or joined slices (`circular`, which
Pad has only from opset 19 on), followed by the layer without padding. The amounts are those at one
input size.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from ..padding_mode import MEAN, check_padding_mode, notes, too_small
from .analysis.node_facts import KINDS, QUANTISED, Facts
from .files.protos import attribute, node_name, set_items, standard_opset, store
from .graph import operator_of
from .inputs.batch_axis import SLICE_INPUTS
from .kernel_padding.rewrite import PAD_INPUTS, set_attribute
from .kernel_padding.sites import StridedNode, read_site
from .operators.convolution import same_padding
from .session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..padding_mode import PaddingMode


MODES = {"reflect": "reflect", "replicate": "edge"}
"""The padding modes by the names of ONNX's Pad."""

MEAN_WEIGHTS = ("/taps", "/one_tap")
"""Suffix of the weights of a kernel-padded mean-pool."""

LAST = 2**31 - 1
"""An index beyond the end of every axis."""


@dataclass(frozen=True)
class _Continued:
    """A layer whose input `source`, of `size` (rows, columns), is padded by `pads`.

    `pads` are (before rows, before columns, after rows, after columns).
    """

    node: onnx.NodeProto
    source: str
    size: tuple[int, int]
    pads: tuple[int, int, int, int]

    @property
    def name(self) -> str:
        return node_name(self.node)


def exchange(
    proto: onnx.ModelProto, border: PaddingMode, feeds: Mapping[str, Any]
) -> tuple[onnx.ModelProto, list[str]]:
    """Return a copy of `proto` whose layers pad by the mode `border`, and notes on it.

    `feeds` is an input by name, which determines all sizes. Raises `InputError` for an unknown
    mode, `NotApplicableError` when no layer can be changed.
    """
    check_padding_mode(border)
    changed = deepcopy(proto)
    layers, left = _padding_layers(proto, border, feeds)
    nodes: list[onnx.NodeProto] = []
    for node in changed.graph.node:
        layer = layers.get(node.output[0])
        nodes += [node] if layer is None else _continue(changed, layer, border)
    set_items(changed.graph.node, nodes)
    return changed, notes(border, [layer.name for layer in layers.values()], left)


def _padding_layers(
    proto: onnx.ModelProto, border: PaddingMode, feeds: Mapping[str, Any]
) -> tuple[dict[str, _Continued], dict[str, str]]:
    """Return the layers to change by output, and the reasons for the other layers by name."""
    facts = Facts(proto)
    sizes = _measure(proto, facts, feeds)
    layers, left = {}, {}
    for node in proto.graph.node:
        op = operator_of(node)
        site = read_site(node, facts) if op in KINDS else None
        if op in QUANTISED and any(attribute(node, "pads", [])):
            left[node_name(node)] = "its zeros are whole numbers of its own"
        layer = None if site is None else _layer(site, facts, sizes)
        if site is None or layer is None:
            continue
        reason = _refusal(site, layer, border)
        if reason is None:
            layers[node.output[0]] = layer
        else:
            left[layer.name] = reason
    return layers, left


def _measure(
    proto: onnx.ModelProto, facts: Facts, feeds: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Measure the shapes of layer inputs in one run; amounts of open Pad nodes go into `facts`."""
    inputs = {n.input[0] for n in proto.graph.node if operator_of(n) in KINDS}
    before = [facts.writers[n] for n in inputs if n in facts.writers]
    inputs |= {node.input[0] for node in before if node.op_type == "Pad"}
    names = sorted((inputs - feeds.keys()) | facts.by_hand.keys())
    values = Session(proto, names, optimise=False).run(dict(feeds)) if names else {}
    for name in facts.by_hand:
        facts.by_hand[name] = values[name].tolist()
    return {name: np.shape(value) for name, value in {**values, **feeds}.items()}


def _layer(
    site: StridedNode, facts: Facts, sizes: Mapping[str, tuple[int, ...]]
) -> _Continued | None:
    """Return the layer with its own padding and that of a Pad node; None when it does not pad."""
    call, source = site.call, site.node.input[0]
    pads = site.pads
    if site.auto.startswith("SAME"):
        lower = site.auto == "SAME_LOWER"
        size = sizes[source][2:]
        pads = same_padding(size, call.kernel, call.stride, call.dilation, lower=lower)
    elif site.auto == "VALID" or pads is None:
        pads = [0] * 4
    (top, bottom), (left, right) = site.by_hand
    if any((top, bottom, left, right)):
        source = facts.writers[source].input[0]
    total = (pads[0] + top, pads[1] + left, pads[2] + bottom, pads[3] + right)
    rows, columns = sizes[source][2:]
    return _Continued(site.node, source, (rows, columns), total) if any(total) else None


def _refusal(site: StridedNode, layer: _Continued, border: PaddingMode) -> str | None:
    """Why a layer keeps its padding, or None."""
    if site.call.ceil_mode:
        return "it rounds its number of windows up, which padding of its own would change"
    if site.call.indices:
        return "a max-pool that returns indices, which a padded input would shift"
    if site.call.kind == "conv2d" and site.node.input[1].endswith(MEAN_WEIGHTS):
        return MEAN
    top, left, bottom, right = layer.pads
    return too_small(border, (max(top, bottom), max(left, right)), layer.size)


def _continue(
    proto: onnx.ModelProto, layer: _Continued, border: PaddingMode
) -> list[onnx.NodeProto]:
    """Return nodes that replace `layer`: one pads its input, then the layer without padding."""
    build = _Builder(proto.graph, f"{layer.node.output[0]}/border", standard_opset(proto))
    if border == "circular":
        source = layer.source
        for axis in (0, 1):
            source = build.wrapped(source, axis + 2, layer.pads[axis], layer.pads[axis + 2])
    else:
        source = build.padded(layer.source, layer.pads, MODES[border])
    node = deepcopy(layer.node)
    node.input[0] = source
    set_attribute(node, "auto_pad", "NOTSET")
    set_attribute(node, "pads", [0] * 4)
    return [*build.nodes, node]


class _Builder:
    """Writes nodes and their constants, all named after `base`."""

    def __init__(self, graph: onnx.GraphProto, base: str, opset: int) -> None:
        self.graph = graph
        self.base = base
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []

    def _store(self, values: Sequence[int]) -> str:
        name = f"{self.base}/{len(self.graph.initializer)}"
        return store(self.graph, name, np.array(values, np.int64))

    def _node(self, op: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{self.base}/{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def padded(self, source: str, pads: Sequence[int], mode: str) -> str:
        """Pad `source` by a Pad node."""
        amounts = [0, 0, *pads[:2], 0, 0, *pads[2:]]
        if self.opset >= PAD_INPUTS:
            return self._node("Pad", [source, self._store(amounts)], mode=mode)
        return self._node("Pad", [source], mode=mode, pads=amounts)

    def wrapped(self, source: str, axis: int, before: int, after: int) -> str:
        """Pad `source` along `axis` by the values at its opposite end."""
        parts = [self._slice(source, axis, -before, LAST)] if before else []
        parts.append(source)
        parts += [self._slice(source, axis, 0, after)] if after else []
        return self._node("Concat", parts, axis=axis) if len(parts) > 1 else source

    def _slice(self, source: str, axis: int, start: int, end: int) -> str:
        if self.opset >= SLICE_INPUTS:
            limits = [self._store([n]) for n in (start, end, axis)]
            return self._node("Slice", [source, *limits])
        return self._node("Slice", [source], starts=[start], ends=[end], axes=[axis])
