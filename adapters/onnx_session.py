"""Running an ONNX graph by onnxruntime, with any tensors of it as outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import torch
from torch import Tensor

from .errors import InputError, ModelFileError
from .onnx_file import LIMIT, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .model import InputSpec

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

_QUIET = 4


def with_outputs(proto: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy of `proto` that gives the tensors `names`, and only the nodes they need."""
    needed = set(names)
    nodes = []
    for node in reversed(proto.graph.node):
        if needed.intersection(node.output):
            needed |= reads(node)
            nodes.append(node)
    cut = onnx.ModelProto()
    cut.ir_version = proto.ir_version
    cut.opset_import.extend(proto.opset_import)
    graph = cut.graph
    graph.name = proto.graph.name
    graph.node.extend(reversed(nodes))
    unread = {i.name for i in proto.graph.initializer} - needed
    graph.input.extend(i for i in proto.graph.input if i.name not in unread)
    graph.initializer.extend(i for i in proto.graph.initializer if i.name in needed)
    graph.sparse_initializer.extend(proto.graph.sparse_initializer)
    declared = {o.name: o for o in proto.graph.output}
    for name in names:
        value = declared.get(name) or onnx.helper.make_empty_tensor_value_info(name)
        graph.output.append(value)
    return cut


def reads(node: onnx.NodeProto) -> set[str]:
    """All tensors `node` needs; names inside its subgraphs are counted as if they were outside."""
    names = set(node.input) - {""}
    for attribute in node.attribute:
        for graph in (*attribute.graphs, attribute.g):
            names.update(o.name for o in graph.output)
            for inner in graph.node:
                names |= reads(inner)
    return names


class Session:
    """One onnxruntime session over `outputs` of a graph.

    `provider` is what onnxruntime really runs on, whatever was asked for. Raises `ModelFileError`
    when onnxruntime refuses the graph.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        outputs: Sequence[str],
        *,
        device: torch.device | None = None,
        optimise: bool = True,
    ) -> None:
        cut = with_outputs(proto, outputs)
        if cut.ByteSize() > LIMIT:
            raise ModelFileError(f"the graph has more than {LIMIT} bytes, too many for one message")
        wanted = providers(device)
        self._session = _open(cut.SerializeToString(), wanted, optimise=optimise)
        self.provider: str = self._session.get_providers()[0]
        self.outputs = tuple(outputs)

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Run numpy arrays by input name to numpy arrays by output name.

        Raises `InputError` when onnxruntime cannot run them.
        """
        try:
            values = self._session.run(list(self.outputs), feeds)
        except Exception as error:
            shapes = {plain(name): list(value.shape) for name, value in feeds.items()}
            raise InputError(
                f"onnxruntime cannot run inputs of shape {shapes}: {plain(str(error), 300)}"
            ) from error
        return dict(zip(self.outputs, values, strict=True))


def providers(device: torch.device | None) -> list[str]:
    """The execution providers to ask for on `device`."""
    return [CUDA, CPU] if device is not None and device.type == "cuda" else [CPU]


def _open(data: bytes, wanted: Iterable[str], *, optimise: bool) -> Any:
    import onnxruntime as ort

    # The default logger writes to stderr what `provider` and the errors below already say.
    ort.set_default_logger_severity(_QUIET)
    wanted = list(wanted)
    if CUDA in wanted and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    options = ort.SessionOptions()
    options.log_severity_level = _QUIET
    # Idle threads that spin would take the cores from torch, which runs in between.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    known = [p for p in wanted if p in ort.get_available_providers()]
    try:
        # Falling back from the CPU to the CPU is of no use, and is told on standard output.
        fallback = {} if CUDA in known else {"enable_fallback": 0}
        return ort.InferenceSession(data, options, providers=known, **fallback)
    except Exception as error:
        raise ModelFileError(f"onnxruntime refuses the graph: {plain(str(error), 300)}") from error


def feed(x: Tensor, spec: InputSpec) -> Any:
    """`x` (batch, channels, height, width) as the array the file wants: layout and type."""
    x = x.detach().to("cpu", torch.float32)
    x = x.permute(0, 2, 3, 1) if spec.layout == "NHWC" else x
    if spec.dtype == "uint8":
        x = x.round().clamp(0, 255)
    return x.contiguous().to(getattr(torch, spec.dtype)).numpy()
