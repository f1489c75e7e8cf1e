"""Rescale the kernel-padded layers of a graph on unlabelled images.

A padded kernel is smoother, so its outputs are smaller than those that the next layers were trained
for. In execution order, weights and biases of every convolution that grew are scaled by one affine
map per channel, so that its outputs have the means and standard deviations, over images and units,
of the original's outputs. This replaces new statistics of norms, which exporters fold into
convolutions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import numpy_helper

from ..analysis.node_facts import Facts
from ..files.protos import store
from ..graph import operator_of
from ..session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx


DEAD = 1e-6
"""A channel below this share of the layer's largest standard deviation is not scaled."""


def match_moments(
    before: onnx.ModelProto, after: onnx.ModelProto, feeds: Sequence[Mapping[str, Any]]
) -> int:
    """Rescale the grown convolutions of `after` in place and return their number.

    `feeds` are batches of images by input name. Convolutions with a fused activation or a computed
    bias are not scaled: their outputs are not an affine function of their constants.
    """
    constants, count = Facts(after).constants, 0
    for node in after.graph.node:
        grown = len(node.input) > 1 and node.input[1] == f"{node.output[0]}/padded_weight"
        bias = node.input[2] if len(node.input) > 2 else ""
        if not grown or operator_of(node) != "Conv" or (bias and bias not in constants):
            continue
        name = node.output[0]
        old, new = (_moments(Session(p, [name]), feeds, name) for p in (before, after))
        known = constants[bias].double().numpy() if bias else np.zeros(len(old[0]))
        _correct(after.graph, node, known, old, new)
        count += 1
    return count


def _moments(session: Session, feeds: Sequence[Mapping[str, Any]], name: str) -> tuple[Any, Any]:
    """Mean and standard deviation of each channel of a tensor (batch, channels, rows, columns)."""
    values = [np.asarray(session.run(dict(f))[name], dtype=np.float64) for f in feeds]
    numbers = np.concatenate(values)
    return numbers.mean((0, 2, 3)), numbers.std((0, 2, 3))


def _correct(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    bias: Any,
    old: tuple[Any, Any],
    new: tuple[Any, Any],
) -> None:
    """Scale `node` so that moments `new` become `old`; each is (mean, deviation) a channel."""
    weight = next(i for i in graph.initializer if i.name == node.input[1])
    taps = numpy_helper.to_array(weight)
    alive = (new[1] > DEAD * new[1].max()) & (old[1] > 0)
    scale = np.divide(old[1], new[1], out=np.ones_like(old[1]), where=alive)
    scaled = (taps * scale.reshape(-1, *[1] * (taps.ndim - 1))).astype(taps.dtype)
    weight.CopyFrom(numpy_helper.from_array(scaled, weight.name))
    name = f"{node.output[0]}/padded_bias"
    shift = ((bias - new[0]) * scale + old[0]).astype(taps.dtype)
    del node.input[2:]
    node.input.append(store(graph, name, shift))
