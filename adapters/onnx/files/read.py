"""Reading an ONNX file without trusting it.

Nothing outside the file's folder is opened, every declared size is compared with the bytes in the
file before memory is allocated, and text from the file is cleaned before it is shown.
"""

from __future__ import annotations

import hashlib
import math
from itertools import chain
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from ...errors import NOT_FINITE, ModelFileError
from .order import CyclicError, IncompleteError, sort_nodes
from .protos import node_label, printable, stored_names, subgraphs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


LIMIT = 2**31 - 1
"""Maximum size of an ONNX message in bytes, including weights: a limit of the format."""


def read_model(path: str | Path) -> tuple[onnx.ModelProto, str]:
    """Read `path` with its external data inlined; return it and the sha256 of all bytes read.

    Local functions are expanded and nodes sorted. Raises `ModelFileError` when the file is missing,
    empty, truncated, not ONNX, or refers to data outside its folder.
    """
    path = Path(path)
    data = _read_bytes(path)
    digest = hashlib.sha256(data)
    proto = _parse(data, path)
    of_functions = (attribute_tensors(function.node) for function in proto.functions)
    room = LIMIT
    for tensor in chain(all_tensors(proto.graph), *of_functions):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            room -= _inline(tensor, path, digest, room)
        _check_size(tensor, path)
    if proto.functions:
        proto = _expand_functions(proto, path)
    _sort(proto.graph, path)
    _check_graph(proto.graph, path)
    return proto, digest.hexdigest()


def graph_tensors_digest(proto: onnx.ModelProto) -> str:
    """Return the sha256 of names, types, shapes and bytes of all tensors, in order of the names."""
    digest = hashlib.sha256()
    for tensor in sorted(all_tensors(proto.graph), key=lambda t: t.name):
        digest.update(f"{tensor.name}:{tensor.data_type}:{tuple(tensor.dims)};".encode())
        digest.update(tensor.raw_data or tensor.SerializeToString(deterministic=True))
    return digest.hexdigest()


def not_finite_tensors(proto: onnx.ModelProto) -> list[str]:
    """A note that names the weights with values that are NaN or infinite, or none.

    Single numbers do not count: graphs clip and mask by infinity.
    """
    found = []
    for tensor in proto.graph.initializer:
        if tensor.data_type not in FLOATS or math.prod(tensor.dims) < 2:
            continue
        values = numpy_helper.to_array(tensor)
        bad = int((~np.isfinite(values)).sum())
        if np.isnan(values).any() or 0 < bad < values.size:
            found.append(f"{bad} of {values.size} values of {printable(tensor.name)}")
    return [f"{NOT_FINITE}{', '.join(found[:MOST_NAMES])}"] if found else []


MOST_NAMES = 4

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)


def _read_bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size == 0:
            raise ModelFileError(f"{path} is empty; expected an ONNX file")
        if size > LIMIT:
            raise ModelFileError(
                f"{path} has {size} bytes; an ONNX file has at most {LIMIT}, so it is damaged or "
                "not an ONNX file"
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error


def _parse(data: bytes, path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load_model_from_string(data)
    except Exception as error:
        raise ModelFileError(
            f"{path} is not a readable ONNX file (truncated, damaged or of another format): "
            f"{printable(str(error))}"
        ) from error
    if not proto.ir_version or not proto.graph.node or not proto.opset_import:
        raise ModelFileError(f"{path} contains no ONNX graph; expected a file written by `onnx`")
    return proto


def all_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Initialisers and constant attributes of `graph` and of its subgraphs."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from attribute_tensors(graph.node)


def attribute_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """Constant attributes of `nodes`, and all tensors of their subgraphs."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (*attribute.sparse_tensors, attribute.sparse_tensor):
                if sparse.HasField("values"):
                    yield from (sparse.values, sparse.indices)
        for inner in subgraphs(node):
            yield from all_tensors(inner)


def _inline(tensor: onnx.TensorProto, path: Path, digest: Any, room: int) -> int:
    """Read the external bytes of `tensor`, at most `room`, and return their number.

    Only files in the folder of `path` are opened.
    """
    entry = {e.key: e.value for e in tensor.external_data}
    source = _inside(entry.get("location", ""), path)
    try:
        offset = int(entry.get("offset", 0))
        length = int(entry.get("length", source.stat().st_size - offset))
        if offset < 0 or length < 0 or offset + length > source.stat().st_size:
            raise ModelFileError(
                f"{path}: tensor {printable(tensor.name)!r} refers to bytes {offset} to "
                f"{offset + length} "
                f"of {source.name}, which has {source.stat().st_size}"
            )
        if length > room:
            raise ModelFileError(
                f"{path}: with tensor {printable(tensor.name)!r}, of {length} bytes, its weights "
                "are "
                f"more than {LIMIT} bytes, too many for one graph"
            )
        with source.open("rb") as file:
            file.seek(offset)
            tensor.raw_data = file.read(length)
    except (OSError, ValueError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{path}: cannot read external data: {error}") from error
    digest.update(tensor.raw_data)
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]
    return len(tensor.raw_data)


def _inside(location: str, path: Path) -> Path:
    """Return the real path of `location`, which must be in the folder of `path`."""
    folder = path.resolve().parent
    parts = (*PurePosixPath(location).parts, *PureWindowsPath(location).parts)
    absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).drive
    source = (folder / location).resolve()
    if absolute or ".." in parts or not source.is_relative_to(folder):
        raise ModelFileError(
            f"{path} refers to external data outside its folder ({printable(location)!r}); "
            "it is not opened"
        )
    if not source.is_file():
        raise ModelFileError(
            f"{path} keeps its weights in {printable(location)!r}, which is not in its folder; "
            "copy both files together"
        )
    return source


def _check_size(tensor: onnx.TensorProto, path: Path) -> None:
    """Compare the declared shape with the number of bytes."""
    if any(d < 0 for d in tensor.dims):
        raise ModelFileError(
            f"{path}: tensor {printable(tensor.name)!r} has shape {list(tensor.dims)}; expected no "
            "negative sizes"
        )
    if tensor.data_type == onnx.TensorProto.STRING:
        if math.prod(tensor.dims) != len(tensor.string_data):
            raise _truncated(tensor, len(tensor.string_data), path)
        return
    try:
        width = _bits(tensor.data_type)
    except (KeyError, ValueError) as error:
        raise ModelFileError(
            f"{path}: tensor {printable(tensor.name)!r} has the unknown type {tensor.data_type}"
        ) from error
    count = math.prod(tensor.dims)
    stored = len(tensor.raw_data) * 8 // width if tensor.raw_data else _typed_count(tensor)
    # Several 4-bit numbers, or two halves of a complex one, may share one typed entry.
    if (tensor.raw_data and -(-count * width // 8) != len(tensor.raw_data)) or count > 2 * stored:
        raise _truncated(tensor, stored, path)


def _truncated(tensor: onnx.TensorProto, stored: int, path: Path) -> ModelFileError:
    return ModelFileError(
        f"{path}: tensor {printable(tensor.name)!r} declares shape {list(tensor.dims)}, which is "
        f"{math.prod(tensor.dims)} entries, but contains {stored}; the file is truncated or damaged"
    )


def _bits(data_type: int) -> int:
    small = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
    name = onnx.TensorProto.DataType.Name(data_type) if data_type else ""
    if name in small:
        return small[name]
    return int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize * 8)


def _typed_count(tensor: onnx.TensorProto) -> int:
    fields = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
    return max(len(getattr(tensor, name)) for name in fields)


WINDOWS = {"strides": 1, "dilations": 1, "kernel_shape": 1, "pads": -(2**14)}
"""Attributes of windows with their smallest valid value; the largest is `WIDEST`."""

WIDEST = 2**14


def _check_windows(node: onnx.NodeProto, path: Path) -> None:
    """Refuse strides, kernels and padding larger than any image: such a file is damaged."""
    for attribute in node.attribute:
        least = WINDOWS.get(attribute.name, -math.inf)
        if attribute.name in WINDOWS and any(not least <= n <= WIDEST for n in attribute.ints):
            raise ModelFileError(
                f"{path}: node {printable(node.name)!r} ({printable(node.op_type)}) has "
                f"{attribute.name} "
                f"{list(attribute.ints)[:8]}; expected {least} to {WIDEST}"
            )


def _expand_functions(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    from onnx import inliner

    try:
        return inliner.inline_local_functions(proto)
    except (RuntimeError, ValueError) as error:
        raise ModelFileError(f"{path}: its local functions cannot be expanded: {error}") from error


def _sort(graph: onnx.GraphProto, path: Path) -> None:
    """Sort the nodes of `graph`. Raises `ModelFileError` when they have no order."""
    try:
        sort_nodes(graph)
    except IncompleteError as error:
        raise ModelFileError(
            f"{path}: {node_label(error.node)} reads {printable(error.tensor)!r}, which nothing "
            "writes; the graph is incomplete"
        ) from error
    except CyclicError as error:
        raise ModelFileError(
            f"{path}: {node_label(error.node)} reads what follows from it; the graph is cyclic"
        ) from error


def _check_graph(graph: onnx.GraphProto, path: Path) -> None:
    """Check the windows of all nodes, and that every output is written."""
    known = set(stored_names(graph)).union(*(node.output for node in graph.node))
    for node in graph.node:
        _check_windows(node, path)
    if not graph.output or any(o.name not in known for o in graph.output):
        raise ModelFileError(f"{path}: the graph has no output; expected at least one")
