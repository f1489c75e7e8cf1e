"""Parts of ONNX messages: text that is safe to show, attributes, subgraphs, changed lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STANDARD = ("", "ai.onnx")
"""The two spellings of the standard operator domain."""


def printable(text: str | bytes, limit: int = 80) -> str:
    """Make `text` from a file safe to show: printable characters only, at most `limit`.

    Damaged text, which is not UTF-8, is passed as bytes.
    """
    text = text.decode(errors="replace") if isinstance(text, bytes) else text
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def standard_opset(proto: onnx.ModelProto) -> int:
    """The version of the standard operator set that the file imports, or 1."""
    return next((o.version for o in proto.opset_import if o.domain in STANDARD), 1)


def metadata(proto: onnx.ModelProto) -> dict[str, str]:
    """Return the metadata of the file: its free key-value pairs."""
    return {p.key: p.value for p in proto.metadata_props}


def output_names(proto: onnx.ModelProto) -> list[str]:
    """The names of the outputs, in the file's order."""
    return [o.name for o in proto.graph.output]


def node_name(node: onnx.NodeProto) -> str:
    """The name of a node, or else of its first output, safe to print."""
    return printable(node.name or next(iter(node.output), ""))


def node_label(node: onnx.NodeProto) -> str:
    """Operator and name of a node, safe to print."""
    return f"{printable(node.op_type)} node {node_name(node)!r}"


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The attribute `name` of a node: a number, a list, text, a tensor or a graph."""
    for one in node.attribute:
        if one.name == name and one.type:  # damaged files have attributes without a type
            value = onnx.helper.get_attribute_value(one)
            return value.decode(errors="replace") if isinstance(value, bytes) else value
    return default


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs among the attributes of `node`, such as the branches of an If."""
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of `graph` and of its subgraphs, each before those of its own graphs."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from all_nodes(inner)


def stored_names(graph: onnx.GraphProto) -> frozenset[str]:
    """The tensors that `graph` has before any node runs: inputs and initialisers."""
    names = {"", *(i.name for i in graph.input), *(i.name for i in graph.initializer)}
    return frozenset(names.union(i.values.name for i in graph.sparse_initializer))


def reads(node: onnx.NodeProto) -> set[str]:
    """The tensors that `node` reads, those included that its subgraphs take from outside."""
    names = set(node.input) - {""}
    for graph in subgraphs(node):
        own = stored_names(graph).union(*(inner.output for inner in graph.node))
        taken = {o.name for o in graph.output}.union(*(reads(n) for n in graph.node))
        names |= taken - own
    return names


def rename_reads(node: onnx.NodeProto, names: dict[str, str]) -> None:
    """Rename the tensors that `node` and its subgraphs read."""
    for i, name in enumerate(node.input):
        node.input[i] = names.get(name, name)
    for inner in subgraphs(node):
        for one in inner.node:
            rename_reads(one, names)


def set_items(field: Any, items: Iterable[Any]) -> None:
    """Replace the items of a repeated field, such as the nodes of a graph, by `items`."""
    kept = list(items)
    del field[:]
    field.extend(kept)


def store(graph: onnx.GraphProto, name: str, values: Any) -> str:
    """Add the array `values` as the constant `name`; return the name."""
    graph.initializer.append(numpy_helper.from_array(values, name))
    return name
