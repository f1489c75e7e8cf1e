"""The copy of an ONNX graph without weights that `structure` traverses.

Exporters fold batch norms into the convolution before them, and only a bias remains. Torch's
exporters give this bias a special name; in a graph with such names, these convolutions get a norm
again. Otherwise, in a graph without layer or group norms, every convolution with a bias gets one;
in a graph without any norm, every convolution does, as a bias of zeros may have been dropped. This
has no effect in a chain; where branches meet, it keeps their relative scale.

Quantised graphs are replaced by their float graphs (see `dequantise`), and an If of a known
condition by the nodes of its branch.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import NotApplicableError
from ...skeleton_marks import KERNEL_DOUBT
from ...torch_calls import MASKED
from ...zero_taps import count_zero_taps
from ..files.protos import printable
from ..graph import Graph, Mode, Node
from ..interpreter import Interpreter, run_node
from ..paths import SHAPE_ONLY
from ..session import with_outputs
from .activations import activated, activations
from .dequantise import without_quantisation
from .stored_matrices import MATRICES, doubtful_weights, fixed_by_design, with_factors
from .written_activations import GeluReader, SoftplusReader
from .written_out import NORM, GroupNormReader, NormReader

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    import onnx

    from ...feature_grid import Grid


CONVOLUTIONS = {"Conv", "com.microsoft:FusedConv"}
"""Operators into which a batch norm is folded."""

WEIGHTED = {"Conv", "com.microsoft:FusedConv", "ConvTranspose", *MATRICES}
"""Operators whose constant inputs are weights and biases: only their shape matters."""

SCALED = {"Mul", "Div", "Add", "Sub", "PRelu"}
"""Operators whose constant operand is a learned vector, unless it is a single number."""

OPAQUE = {"Erf", "Pow", "Sqrt", "Exp", "Log"}
"""Operators that are parts of a written-out layer: second moments do not pass through them."""

RECURRENT = {"LSTM", "GRU", "RNN"}
"""Operators whose state passes from step to step."""

BRANCHING = {"If", "Loop"}
"""Operators that run graphs of their own; their layers cannot be distinguished from constants."""

COMPLETE = 20
"""First opset that has an operator for every layer that exporters write out before."""

NORMS = {
    "BatchNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "GroupNormalization",
    "RMSNormalization",
    "com.microsoft:SkipLayerNormalization",
    NORM,
}
"""Operators that normalise; only the first is ever folded away."""

GUESSED_NORMS = "batch norms were folded into the convolutions of the file, which names none"
"""What is assumed of a file without norms."""

TRACED, EXPORTED = "onnx::Conv_", "weight_bias"
"""Names of the biases that torch's exporters (tracing, dynamo) make of batch norms."""


class NodeLayer(nn.Module):
    """One node as a module, for hooks; `folded` says that a batch norm is to follow it.

    An `activation` is a sigmoid or softmax that is not a gate.
    """

    def __init__(self, node: Node, mode: Mode, *, folded: bool) -> None:
        super().__init__()
        self.node = node
        self.mode = mode
        self.folded = folded
        self.activation = False

    def forward(self, scope: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The node's outputs from the tensors in `scope`."""
        if self.activation:
            return (activated(self.node, scope[self.node.inputs[0]]),)
        out = run_node(self.node, scope, self.mode)
        return (_batch_norm(out[0]),) if self.folded else out


def _batch_norm(x: Tensor) -> Tensor:
    """A batch norm of x (batch, channels, height, width) with blank statistics."""
    zeros, ones = (make(x.shape[1], dtype=x.dtype) for make in (torch.zeros, torch.ones))
    return F.batch_norm(x, zeros, ones, ones, zeros, False, 0.0, 1e-5)


def named_norms(nodes: Sequence[Node]) -> set[str]:
    """Return the outputs of the convolutions whose biases an exporter made of batch norms."""
    biases = {node.outputs[0]: _bias(node) for node in nodes if node.op in CONVOLUTIONS}
    return {
        out for out, bias in biases.items() if bias.startswith(TRACED) or bias.endswith(EXPORTED)
    }


def guessed_norms(nodes: Sequence[Node]) -> set[str]:
    """Return the outputs of the convolutions that most likely had a batch norm behind them.

    No bias has a name that an exporter gave it (see `named_norms`).
    """
    if any(node.op in NORMS - {"BatchNormalization"} for node in nodes):
        return set()
    convolutions = [node for node in nodes if node.op in CONVOLUTIONS]
    normed = {node.inputs[0] for node in nodes if node.op == "BatchNormalization"}
    biased = [node for node in convolutions if _bias(node)]
    return {node.outputs[0] for node in (biased if normed else convolutions)} - normed


def _bias(node: Node) -> str:
    """The name of a convolution's bias, empty where it has none."""
    return node.inputs[2] if len(node.inputs) > 2 else ""


class SkeletonBody(Interpreter):
    """The interpreter up to `target`: a module for each node of the float graph, named like it.

    `alias` maps the merged tensors of a quantised graph from their names in the file.
    """

    def __init__(self, proto: onnx.ModelProto, target: str) -> None:
        super().__init__(with_outputs(proto, [target]), Mode(skeleton=True))
        floats, self.alias = without_quantisation(self.graph)
        self.graph = with_factors(without_branches(floats))
        for reader in (NormReader, GeluReader, SoftplusReader, GroupNormReader):
            self.graph = reader.rewrite(self.graph)
        named = named_norms(self.graph.nodes)
        self.guessed = set() if named else guessed_norms(self.graph.nodes)
        self.folded = named | self.guessed
        self.layers = {
            n.outputs[0]: NodeLayer(n, self.mode, folded=n.outputs[0] in self.folded)
            for n in self.graph.nodes
        }

    def named_modules(self, *_: Any, **__: Any) -> Iterator[tuple[str, nn.Module]]:
        """Yield the modules under the names of their nodes, which may have dots and slashes."""
        for layer in self.layers.values():
            yield printable(layer.node.name or layer.node.outputs[0]), layer

    def forward(self, feeds: Mapping[str, Tensor], want: Sequence[str]) -> dict[str, Tensor]:
        """Evaluate the tensors named in `want`, node by node."""
        scope = {**self.graph.constants, **feeds}
        for node, done in self.plan(tuple(want)):
            scope.update(zip(node.outputs, self.layers[node.outputs[0]](scope), strict=False))
            for name in done:
                scope.pop(name, None)
        return {name: scope[name] for name in want}


class OnnxSkeleton(nn.Module):
    """Maps `x` (batch, channels, height, width) to the target; weights are on `meta`.

    `energy` maps padded weights to the second moments (rows, columns) of their taps, which become
    their `tap_energy`. Raises `NotApplicableError` for what `why_opaque` names.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        image: str,
        grid: Grid,
        layout: str,
        energy: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        self.body = SkeletonBody(proto, grid.name)
        self.grid = grid
        self._image = image
        self._layout = layout
        self._target = self.body.alias.get(grid.name, grid.name)
        nodes = [node for node, _ in self.body.plan((self._target,))]
        seen = depending(nodes, image)
        reason = next(filter(None, (why_opaque(n) for n in nodes if n.outputs[0] in seen)), None)
        if reason is not None:
            raise NotApplicableError(f"no structure: {reason}")
        for name in activations(nodes, seen):
            self.body.layers[name].activation = True
        light = light_constants(nodes, self.body.graph.constants)
        for name in energy.keys() & light.keys():
            light[name].tap_energy = energy[name]  # type: ignore[attr-defined]
        self.body.replace_constants(light)

    def alternatives(self) -> dict[str, OnnxSkeleton]:
        """Skeletons without what was guessed of the file, by the guess in words."""
        if not self.body.guessed:
            return {}
        bare = copy.deepcopy(self)
        for name in bare.body.guessed:
            bare.body.layers[name].folded = False
        return {GUESSED_NORMS: bare}

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (batch, channels, height, width) to the target, of the same axes."""
        x = x.permute(0, 2, 3, 1) if self._layout == "NHWC" else x
        return self.grid.read(self.body({self._image: x}, [self._target])[self._target])


def why_opaque(node: Node) -> str | None:
    """Return why second moments do not pass through `node`, which depends on the image, or None."""
    if node.op in RECURRENT:
        return f"{node.label()} is recurrent: its state passes from step to step"
    if node.op in BRANCHING and layers_within(node, WEIGHTED | RECURRENT | OPAQUE):
        return f"{node.label()} runs a graph with layers of its own"
    if node.op in OPAQUE:
        advice = "; opset 20 has operators for such layers" if node.opset < COMPLETE else ""
        return f"{node.label()} is arithmetic that is not read as a layer{advice}"
    return None


def depending(nodes: Iterable[Node], image: str) -> set[str]:
    """The tensors whose values depend on the image; `nodes` are in execution order."""
    seen = {image}
    for node in nodes:
        if node.op not in SHAPE_ONLY and not seen.isdisjoint(node.reads()):
            seen.update(node.outputs)
    return seen


def light_constants(nodes: Iterable[Node], constants: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the skeleton's constants: weights on `meta`, scales one, biases of products zero.

    Integers and single numbers, which are shapes and settings, are kept, and so are filters and
    masks that are no weights (`is_filter`, `excludes`). Scales have their values in the attribute
    `stored`, as they may be masks of the map.
    """
    light: dict[str, Tensor] = {}
    products: set[str] = set()
    for node in nodes:
        spread = node.op == "ConvTranspose"
        filters = node.op in {*CONVOLUTIONS, "ConvTranspose"} and is_filter(
            constants.get(node.inputs[1])
        )
        if node.op in WEIGHTED and node.constant and not filters:
            products.update(node.outputs)
        for name in node.constant:
            value = constants[name]
            if node.op in WEIGHTED:
                if not filters or (spread and name != node.inputs[1]):
                    light[name] = _light_weight(node, name, value)
            elif node.op in SCALED and value.numel() > 1 and value.is_floating_point():
                shift = node.op in {"Add", "Sub"} and products.intersection(node.inputs)
                if node.op == "Add" and excludes(value):
                    continue
                light[name] = torch.zeros_like(value) if shift else torch.ones_like(value)
                light[name].stored = value  # type: ignore[attr-defined]
    return light


def _light_weight(node: Node, name: str, value: Tensor) -> Tensor:
    """A stored weight on `meta`, or its values where they were never learned; with any doubt."""
    looked_at = node.op in MATRICES and name in node.inputs[: 2 if node.op == "Gemm" else None]
    fixed = fixed_by_design(value) if looked_at else None
    found = torch.empty(value.shape, device="meta") if fixed is None else value.clone()
    doubt = fixed or (doubtful_weights(value) if looked_at else None)
    if doubt is not None:
        kind = "random weights" if fixed is None else "fixed"
        found.doubt = f"the stored matrix {printable(name)!r}, {doubt}, is {kind}"  # type: ignore[attr-defined]
    zeros = count_zero_taps(value) if node.op in CONVOLUTIONS else None
    if zeros is not None:
        setattr(found, KERNEL_DOUBT, zeros)
    return found


def is_filter(weight: Tensor | None) -> bool:
    """Whether a stored weight is a fixed filter, as for blurring or bilinear enlarging.

    Its axes are (out, in per group, *taps), or (in, out per group, *taps) if transposed. It is the
    same one for each of several channels, which training never gives.
    """
    fits = weight is not None and weight.shape[0] > 1 == weight.shape[1] < weight[0].numel()
    return fits and weight is not None and bool((weight == weight[:1]).all())


def excludes(value: Tensor) -> bool:
    """Whether a stored term is a mask of attention: 0, and large negative numbers."""
    far = value < MASKED
    return bool(far.any()) and bool((far | (value == 0)).all()) and not bool(far.all())


def without_branches(graph: Graph) -> Graph:
    """Return `graph` with every If of a constant condition replaced by the branch it takes.

    A branch whose tensors have names that are taken stays where it is.
    """
    constants, nodes = dict(graph.constants), list[Node]()
    taken = {*constants, *graph.inputs, *(name for n in graph.nodes for name in n.outputs)}
    for node in graph.nodes:
        value = constants.get(node.inputs[0]) if node.op == "If" else None
        name = "then_branch" if value else "else_branch"
        inner = None if value is None else without_branches(node.attributes[name])
        if inner is None or not taken.isdisjoint(own := _names(inner)):
            nodes.append(node)
            continue
        taken |= own
        constants.update(inner.constants)
        nodes += inner.nodes
        nodes += [
            Node("Identity", node.name, (source,), (name,), {}, node.opset)
            for source, name in zip(inner.outputs, node.outputs, strict=True)
            if name
        ]
    known = constants.keys()
    marked = (replace(n, constant=frozenset(n.inputs) & known) for n in nodes)
    return replace(graph, nodes=tuple(marked), constants=constants)


def _names(graph: Graph) -> set[str]:
    """The tensors that `graph` stores or writes."""
    return {*graph.constants, *(name for node in graph.nodes for name in node.outputs)}


def layers_within(node: Node, layers: Collection[str]) -> bool:
    """Whether a graph among the attributes of `node` has operators of `layers`."""
    graphs = [value for value in node.attributes.values() if isinstance(value, Graph)]
    return any(inner.op in layers for graph in graphs for inner in graph.walk())
