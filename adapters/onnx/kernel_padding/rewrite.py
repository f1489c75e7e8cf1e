"""Kernel padding of an ONNX graph; the result is a plain ONNX graph.

The rules are those of `pytorch.kernel_padding.calls`; `transposed` has those of transposed
convolutions. A layer whose kernel grows by g taps gets g *
dilation more rows of padding at its end: it then has as many outputs as before at every input size,
and rows that no window needs are never read. Max-pools pad with minus infinity. Mean-pools become a
fixed convolution of each channel, divided by the share of the window that counts. Names, opset and
metadata are not changed.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx
import torch
from torch import Tensor

from ...errors import InputError, ModelFileError
from ...kernel_padding.arithmetic import Pair, end_padding, grown_kernel, pad_weight, tap_energy
from ...kernel_padding.call import StridedCall, settled_fill, why_not_padded
from ...treatment import FILLS, Fill, PaddedLayer, Treatment
from ..analysis.node_facts import KINDS, Facts
from ..files.protos import node_name, printable, reads, set_items, store
from ..graph import operator_of
from .mean_pool import mean_pool_nodes
from .sites import (
    StridedNode,
    grow_transposed,
    read_site,
    read_transposed,
    why_not_read,
    why_not_transposed,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


PAD_INPUTS = 11
"""First opset in which the amounts of Pad are inputs."""


@dataclass(frozen=True)
class PaddedGraph:
    """A padded graph; `energy` maps weight names to the second moments of the padded taps."""

    proto: onnx.ModelProto
    treatment: Treatment
    energy: Mapping[str, Tensor]


def pad_graph(proto: onnx.ModelProto, fill: Fill, *, seed: int = 0) -> PaddedGraph:
    """Pad a copy of `proto`, with the same output shapes. `seed` draws the weights of `fresh`.

    Raises `InputError` for an unknown fill, `ModelFileError` when the padded graph is not valid.
    """
    if fill not in FILLS:
        raise InputError(f"unknown fill {fill!r}; expected one of {', '.join(FILLS)}")
    if fill == "fit":
        raise InputError(
            "kernel padding 'fit' moves the weights of torch models and was given an ONNX graph; "
            "give the torch model, or use box or zero"
        )
    if fill == "kim2023":
        raise InputError(
            "kernel padding 'kim2023' changes the sizes of maps, which an ONNX graph states, and "
            "was given one; give the torch model, or use box or zero, which keep all sizes"
        )
    padded = deepcopy(proto)
    if fill == "none":
        return PaddedGraph(padded, Treatment(fill), {})
    editor = _Editor(padded, Facts(proto), fill, torch.Generator().manual_seed(seed))
    editor.run()
    fault = _fault(padded)
    if fault is not None and _fault(proto) is None:
        raise ModelFileError(f"the padded graph is not valid: {printable(fault, 300)}")
    return PaddedGraph(padded, Treatment(fill, tuple(editor.layers), editor.left), editor.energy)


def _fault(proto: onnx.ModelProto) -> str | None:
    """Return the ONNX checker's complaint, or None; some files were never valid."""
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        return str(error)
    return None


class _Editor:
    """Visits the nodes of `proto` and pads those that are uneven."""

    def __init__(
        self, proto: onnx.ModelProto, facts: Facts, fill: Fill, generator: torch.Generator
    ) -> None:
        self.graph = proto.graph
        self.facts = facts
        self.fill = fill
        self.generator = generator
        self.layers: list[PaddedLayer] = []
        self.left: dict[str, str] = {}
        self.energy: dict[str, Tensor] = {}

    def run(self) -> None:
        """Pad every uneven node, then drop the weights that no node reads any more."""
        nodes: list[onnx.NodeProto] = []
        for node in self.graph.node:
            op = operator_of(node)
            if op == "ConvTranspose":
                nodes.append(self._transposed(node))
                continue
            site = read_site(node, self.facts) if op in KINDS else None
            reason = self._reason(node, op, site)
            if reason is not None:
                self.left[node_name(node)] = reason
            if site is None or reason is not None or not site.call.uneven:
                nodes.append(node)
            else:
                nodes += self._treat(site)
        set_items(self.graph.node, nodes)
        drop_unread(self.graph)

    def _transposed(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Return a transposed convolution as it is, or grown."""
        site, name = read_transposed(node, self.facts), node_name(node)
        if site is None or not site.call.uneven:
            return node
        call, fixed = site.call, is_fixed(site.call)
        fill = settled_fill(call, self.fill, not fixed)
        kernel = grown_kernel(call.kernel, call.stride, fill, call.dilation)
        reason = why_not_padded(call, self.fill, not fixed) or why_not_transposed(site)
        if reason is not None:
            self.left[name] = reason
            return node
        grown = deepcopy(node)
        self._grow_weight(grown, call, fill)
        own = (a for a in node.attribute if a.name not in ("auto_pad", "output_shape"))
        set_items(grown.attribute, own)
        for key, value in grow_transposed(site, kernel, fill).items():
            set_attribute(grown, key, value)
        self.layers.append(PaddedLayer(name, call.kind, call.stride, call.kernel, kernel))
        return grown

    def _reason(self, node: onnx.NodeProto, op: str, site: StridedNode | None) -> str | None:
        """Return why an uneven layer cannot be padded, or None."""
        if site is None:
            return why_not_read(node, op, self.facts)
        if not site.call.uneven:
            return None
        if site.call.kind == "conv2d" and site.call.weight is None:
            return "its weight is computed from the image"
        sized = self.fill == "zero" or site.call.kind == "avg_pool2d"
        rounds_up = site.call.kind == "avg_pool2d" and site.call.ceil_mode
        if (site.pads is None and sized) or (rounds_up and None in site.size):
            return "its padding follows the input's size, which the file leaves open"
        channels = self.facts.shape(node.input[0])[1]
        if site.call.kind == "avg_pool2d" and channels is None:
            return "the number of its channels is not stated in the file"
        return why_not_padded(site.call, self.fill, not is_fixed(site.call))

    def _treat(self, site: StridedNode) -> list[onnx.NodeProto]:
        call = site.call
        fill = settled_fill(call, self.fill, not is_fixed(call))
        rule: Fill = "fresh" if call.kind == "max_pool2d" else fill
        kernel = grown_kernel(call.kernel, call.stride, rule, call.dilation)
        self.layers.append(PaddedLayer(site.name, call.kind, call.stride, call.kernel, kernel))
        node = deepcopy(site.node)
        pads = grown_pads(site, kernel, fill)
        if call.kind == "avg_pool2d":
            channels = self.facts.shape(node.input[0])[1] or 1
            nodes, constants, weight, energy = mean_pool_nodes(
                node, call, pads, site.pads or [0] * 4, fill, channels, self.facts.opset
            )
            kind = self.facts.kind(node.input[0])
            for name, value in constants.items():
                self._store(name, value, kind)
            self.energy[weight] = energy
            return nodes
        if call.kind == "conv2d":
            self._grow_weight(node, call, fill)
        set_attribute(node, "kernel_shape", list(kernel))
        if call.kind == "max_pool2d" and any(n >= min(kernel) for n in pads or ()):
            return self._padded_before(node, pads or [])
        if pads is not None:
            set_attribute(node, "auto_pad", "NOTSET")
            set_attribute(node, "pads", pads)
        return [node]

    def _padded_before(self, node: onnx.NodeProto, pads: list[int]) -> list[onnx.NodeProto]:
        """Add a Pad node: onnxruntime's max-pool refuses padding as large as its kernel."""
        base = node.output[0]
        before = onnx.helper.make_node("Pad", [node.input[0]], [f"{base}/padded"])
        amounts = [0, 0, *pads[:2], 0, 0, *pads[2:]]
        if self.facts.opset >= PAD_INPUTS:
            self._store(f"{base}/amounts", torch.tensor(amounts), onnx.TensorProto.INT64)
            lowest = torch.tensor(float("-inf"))
            self._store(f"{base}/lowest", lowest, self.facts.kind(node.input[0]))
            before.input.extend([f"{base}/amounts", f"{base}/lowest"])
        else:
            set_attribute(before, "pads", amounts)
            set_attribute(before, "value", float("-inf"))
        node.input[0] = before.output[0]
        set_attribute(node, "auto_pad", "NOTSET")
        set_attribute(node, "pads", [0] * 4)
        return [before, node]

    def _grow_weight(self, node: onnx.NodeProto, call: StridedCall, fill: Fill) -> None:
        """Give `node` a new weight; other nodes may read the old one."""
        assert call.weight is not None  # noqa: S101 - a convolution without one is left
        kind = self.facts.kind(node.input[1])
        line = call.kind == "conv_transpose1d"
        plane = call.weight.unsqueeze(2) if line else call.weight
        weight = pad_weight(plane, call.stride, fill, self.generator, dilation=call.dilation)
        name = f"{node.output[0]}/padded_weight"
        self._store(name, weight.squeeze(2) if line else weight, kind)
        node.input[1] = name
        if is_fixed(call):
            self.energy[name] = weight.square().mean((0, 1)).double()
        else:
            self.energy[name] = tap_energy(call.kernel, call.stride, fill, call.dilation)

    def _store(self, name: str, value: Tensor, kind: int) -> None:
        """Add a constant; floats become the element type `kind`."""
        array = value.numpy()
        if value.is_floating_point():
            array = array.astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
        store(self.graph, name, array)


def drop_unread(graph: onnx.GraphProto) -> None:
    """Drop the stored tensors of `graph` that no node reads any more."""
    read = {o.name for o in graph.output}.union(*(reads(n) for n in graph.node))
    kept = [i for i in graph.initializer if i.name in read]
    gone = {i.name for i in graph.initializer} - {i.name for i in kept}
    set_items(graph.initializer, kept)
    # Files before IR version 4 list their weights among the inputs too.
    inputs = [i for i in graph.input if i.name not in gone]
    set_items(graph.input, inputs)


def is_fixed(call: StridedCall) -> bool:
    """Whether a convolution is a blur: depthwise, with the same kernel for all channels."""
    weight = call.weight
    if weight is None or weight.shape[1] != 1 or call.groups != weight.shape[0] or call.groups == 1:
        return False
    return bool((weight == weight[:1]).all())


def grown_pads(site: StridedNode, kernel: Pair, fill: Fill) -> list[int] | None:
    """Return the padding of the grown layer, or None if `auto_pad` still computes it.

    A layer with less padding before than after (SAME) gets new rows in front until both sides
    balance, except under `zero`, which keeps the function.
    """
    call = site.call
    follows = site.auto.startswith("SAME") and fill != "zero" and call.kind != "avg_pool2d"
    if follows or site.pads is None:
        return None
    pads = list(site.pads)
    for axis in (0, 1):
        new = call.dilation[axis] * (kernel[axis] - call.kernel[axis])
        own = (pads[axis], pads[axis + 2])
        before, after = (a + b for a, b in zip(own, site.by_hand[axis], strict=True))
        front = 0
        if fill != "zero" and before < after:
            front = min(new, (before + after + new) // 2 - before)
        if call.kind == "avg_pool2d" and call.ceil_mode:
            size = site.size[axis] or 0
            new = front + end_padding(
                size, call.kernel[axis], kernel[axis], call.stride[axis], *own, 1, ceil_mode=True
            )
        pads[axis] += front
        pads[axis + 2] += max(0, new - front)
    return pads


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Set or replace an attribute; an absent `auto_pad` stays absent."""
    kept = [a for a in node.attribute if a.name != name]
    new = [] if value == "NOTSET" else [onnx.helper.make_attribute(name, value)]
    set_items(node.attribute, [*kept, *new])
