"""Running an ONNX graph by onnxruntime, with any tensors of it as outputs.

Tensors stay on their device: inputs are bound where they are, and outputs are returned where they
were computed, without a copy to the host.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import onnx
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from ..errors import InputError, ModelFileError
from .files.protos import printable, reads
from .files.read import LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..input_spec import InputSpec


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
    graph.name = printable(proto.graph.name)
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


class Session:
    """One onnxruntime session over `outputs` of a graph.

    `provider` is the execution provider that onnxruntime uses, whatever was requested, and `place`
    is its device. Raises `ModelFileError` when onnxruntime refuses the graph.
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
        self._session = _open(cut.SerializeToString(), device, optimise=optimise)
        self.provider: str = self._session.get_providers()[0]
        self.place = _place(self.provider, device)
        self.outputs = tuple(outputs)

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Run numpy arrays by input name to numpy arrays by output name.

        Raises `InputError` when onnxruntime cannot run them.
        """
        try:
            values = self._session.run(list(self.outputs), feeds)
        except Exception as error:
            raise _cannot_run(feeds, error) from error
        return dict(zip(self.outputs, values, strict=True))

    def shapes(self, feeds: dict[str, Any], asked: Mapping[str, str]) -> Shapes:
        """Shapes of the tensors of `asked`, whose keys are the outputs that give them."""
        types = {o.name: o.type for o in self._session.get_outputs()}
        try:
            values = self._session.run(list(asked), feeds)
        except Exception as error:
            raise _cannot_run(feeds, error) from error
        return {
            name: (tuple(int(n) for n in value), types[name].removeprefix("tensor(").rstrip(")"))
            for name, value in zip(asked.values(), values, strict=True)
        }

    def run_tensors(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run tensors by input name to tensors by output name, on `place`.

        Raises `InputError` when onnxruntime cannot run them.
        """
        inputs = {name: x.detach().to(self.place).contiguous() for name, x in feeds.items()}
        binding = self._session.io_binding()
        try:
            bind(binding, inputs, self.outputs, self.place)
            if self.place.type == "cuda":  # onnxruntime computes on a stream of its own
                torch.cuda.current_stream(self.place).synchronize()
            self._session.run_with_iobinding(binding)
            values = [_tensor(value) for value in binding.get_outputs()]
        except Exception as error:
            raise _cannot_run(inputs, error) from error
        return dict(zip(self.outputs, values, strict=True))


Shapes = dict[str, tuple[tuple[int, ...], str]]
"""Shape and element type (`float`, `int64`, ...) by name of a tensor."""


def tensor_shapes(proto: onnx.ModelProto, names: Sequence[str], feeds: dict[str, Any]) -> Shapes:
    """The shapes and types of the tensors `names` for `feeds`; what is not a tensor is left out.

    Only the shapes are kept in memory, unless the graph has sequences.
    """
    asked = {f"{name}/shape of tensor": name for name in names}
    longer = deepcopy(proto)
    longer.graph.node.extend(
        onnx.helper.make_node("Shape", [name], [shape]) for shape, name in asked.items()
    )
    try:
        session = Session(longer, [*names, *asked], optimise=False)
        return session.shapes(feeds, asked)
    except (InputError, ModelFileError):  # sequences have no shape
        values = Session(proto, names, optimise=False).run(feeds)
        tensors = {n: v for n, v in values.items() if hasattr(v, "dtype")}
        return {
            n: (v.shape, TYPE_NAMES.get(v.dtype.name, v.dtype.name)) for n, v in tensors.items()
        }


TYPE_NAMES = {"float32": "float", "float64": "double"}
"""onnxruntime's names of numpy's types."""


def bind(
    binding: Any, feeds: Mapping[str, Tensor], outputs: Sequence[str], place: torch.device
) -> None:
    """Bind inputs where they are, and outputs on the device `place`, to onnxruntime's `binding`."""
    where = (place.type, place.index or 0)
    for name, x in feeds.items():
        kind = torch.empty(0, dtype=x.dtype).numpy().dtype.type
        binding.bind_input(name, *where, kind, list(x.shape), x.data_ptr())
    for name in outputs:
        binding.bind_output(name, *where)


def _tensor(value: Any) -> Tensor:
    """Convert onnxruntime's `value` without a copy; older releases need one through the host."""
    if hasattr(value, "__dlpack__"):
        return from_dlpack(value)
    return torch.as_tensor(value.numpy())


def _cannot_run(feeds: Mapping[str, Any], error: Exception) -> InputError:
    shapes = {printable(name): list(value.shape) for name, value in feeds.items()}
    return InputError(
        f"onnxruntime cannot run inputs of shape {shapes}: {printable(str(error), 300)}"
    )


def providers(device: torch.device | None) -> list[str]:
    """Return the execution providers to request for `device`."""
    return [CUDA, CPU] if device is not None and device.type == "cuda" else [CPU]


def _place(provider: str, device: torch.device | None) -> torch.device:
    """Return the device of the tensors of `provider`."""
    if provider == CUDA and device is not None:
        return torch.device("cuda", device.index or 0)
    return torch.device("cpu")


def _open(data: bytes, device: torch.device | None, *, optimise: bool) -> Any:
    import onnxruntime as ort

    # The default logger writes to stderr what `provider` and the errors below already say.
    ort.set_default_logger_severity(_QUIET)
    known = [p for p in providers(device) if p in ort.get_available_providers()]
    if CUDA in known and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # CUDA's libraries, as torch brought them
    own = {CUDA: cuda_options(device)}
    try:
        # Falling back from the CPU to the CPU is of no use, and onnxruntime prints that it does so.
        fallback = {} if CUDA in known else {"enable_fallback": 0}
        return ort.InferenceSession(
            data,
            _options(ort, optimise=optimise, repeatable=CUDA in known),
            providers=known,
            provider_options=[own.get(p, {}) for p in known],
            **fallback,
        )
    except Exception as error:
        raise ModelFileError(
            f"onnxruntime refuses the graph: {printable(str(error), 300)}"
        ) from error


def cuda_options(device: torch.device | None) -> dict[str, str]:
    """Options of onnxruntime's CUDA provider, which shares the GPU with torch.

    As in `adapters.device.full_precision` nothing is rounded to TF32, and kernels of convolutions
    are not chosen by timing them, which may end otherwise in the next session. Memory grows by what
    is requested, not to the next power of two.
    """
    return {
        "device_id": str((device and device.index) or 0),
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
    }


def _options(ort: Any, *, optimise: bool, repeatable: bool) -> Any:
    options = ort.SessionOptions()
    options.use_deterministic_compute = repeatable
    options.log_severity_level = _QUIET
    # A worker's share of the cores is what torch was given.
    options.intra_op_num_threads = torch.get_num_threads()
    # Idle threads that spin would take the cores from torch, which runs in between.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def shaped(x: Tensor, spec: InputSpec) -> Tensor:
    """Convert `x` (batch, channels, height, width) to the layout and type of the file's input."""
    x = x.detach().float()
    x = x.permute(0, 2, 3, 1) if spec.layout == "NHWC" else x
    if spec.dtype == "uint8":
        x = x.round().clamp(0, 255)
    return x.contiguous().to(getattr(torch, spec.dtype))


def feed(x: Tensor, spec: InputSpec) -> Any:
    """Convert `x` to an array in the layout and type of the file's input."""
    return shaped(x.cpu(), spec).numpy()
