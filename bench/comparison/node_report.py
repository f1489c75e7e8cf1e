"""The nodes of a pair as a table, and as node data of Google's Model Explorer.

Node data colour the nodes of a graph that Model Explorer shows: a JSON file with `results`, a value
for each output tensor of a node, and a `gradient` of colours from the smallest value to the largest
one.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from ..output.files import write_text
from ..output.layout import Table
from ..output.text import clean
from .divergence import DIVERGED
from .matrix import share

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..output.layout import Block
    from .nodes import NodeDifference, NodeTable
    from .result import ComparisonResult, Pair

MOST = 15
"""Number of nodes in a table that does not show all."""

GRADIENT = ((0.0, "#ffffff"), (0.5, "#f2b27a"), (1.0, "#b3261e"))
"""Colours of the smallest difference to the largest."""


def node_blocks(pair: Pair, *, every: bool) -> list[Block]:
    """Where the nodes part, and a table of them, the largest own difference first."""
    if pair.nodes is None:
        return []
    if isinstance(pair.nodes, str):
        return [f"Not compared node by node: {pair.nodes}."]
    shown = pair.nodes.worst if every else pair.nodes.worst[:MOST]
    more = len(pair.nodes.nodes) - len(shown)
    caption = "Node by node, the largest own difference first"
    caption += f" ({more} more: --all)" if more else ""
    heads, rows = node_rows(pair.nodes, shown, 38)
    return [*node_sentences(pair.nodes), Table(caption, heads, rows)]


def node_sentences(table: NodeTable) -> list[str]:
    """Where the nodes part first, what has no counterpart, and how to read the numbers."""
    found = table.parting
    text = f"All {len(table.nodes)} nodes agree to {share(DIVERGED)} by themselves."
    if found is not None:
        moved = f": a shift by {found.shift} (rows, columns)" if found.shift else ""
        text = (
            f"The first node that differs by itself is `{clean(found.first, 80)}` "
            f"({clean(found.operator, 40)}), by {share(found.own)}{moved}."
        )
    left = [
        f"{len(names)} of the {which} model ({', '.join(clean(n, 60) for n in names[:3])}"
        f"{', ...' if len(names) > 3 else ''})"
        for names, which in ((table.left_first, "first"), (table.left_second, "second"))
        if names
    ]
    texts = [text]
    texts += [f"Nodes without a counterpart: {' and '.join(left)}."] if left else []
    if any(node.alone is not None for node in table.nodes):
        texts.append(
            "Alone: the largest change of an output if this layer of the first model alone is in "
            "eight bits (weights by channel, input by its range on these images)."
        )
    return texts


def node_rows(
    table: NodeTable, shown: Sequence[NodeDifference], longest: int = 200
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heads, and a row for each of the nodes `shown`; names have at most `longest` characters."""
    alone = any(node.alone is not None for node in table.nodes)
    shifted = any(node.shift is not None for node in table.nodes)
    heads = ["node", "own", "accumulated", *(["alone"] if alone else [])]
    heads += [*(["shift"] if shifted else []), "operator", "in the second"]
    rows = []
    for node in shown:
        cells = [clean(node.first, longest), _amount(node.own), _amount(node.accumulated)]
        cells += ["" if node.alone is None else _amount(node.alone)] if alone else []
        cells += ["" if node.shift is None else f"{node.shift}"] if shifted else []
        rows.append((*cells, clean(node.operator, 30), clean(node.second, longest)))
    return tuple(heads), rows


def _amount(value: float) -> str:
    return share(value) if math.isfinite(value) else "not finite"


def node_cells(table: NodeTable) -> list[dict[str, Any]]:
    """All nodes as plain values, in execution order; None for what is not finite."""
    return [
        {
            "node": node.first,
            "second": node.second,
            "operator": node.operator,
            "shape": list(node.shape),
            "own": _finite(node.own),
            "accumulated": _finite(node.accumulated),
            "shift": None if node.shift is None else list(node.shift),
            "alone": None if node.alone is None else _finite(node.alone),
        }
        for node in table.nodes
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def write_node_data(comparison: ComparisonResult, folder: Path) -> list[Path]:
    """Write node data of every pair that has nodes, a file for each kind of number.

    The keys are the tensors of the first model, or of the second one where only that is an ONNX
    file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for place, pair in enumerate(comparison.pairs, start=1):
        if pair.nodes is None or isinstance(pair.nodes, str):
            continue
        for kind in ("own", "accumulated", "alone"):
            results = _results(pair, pair.nodes, kind)
            if results:
                path = folder / f"{place:02}-{kind}.json"
                gradient = [{"stop": stop, "bgColor": colour} for stop, colour in GRADIENT]
                content = {"results": results, "gradient": gradient}
                write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
                paths.append(path)
    return paths


def _results(pair: Pair, table: NodeTable, kind: str) -> dict[str, dict[str, float]]:
    second = pair.second.reference.endswith(".onnx") and not pair.first.reference.endswith(".onnx")
    values = {(n.second if second else n.first): getattr(n, kind) for n in table.nodes}
    return {
        name: {"value": float(value)}
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    }
