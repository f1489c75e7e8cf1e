"""A comparison as plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .decision import decision
from .node_report import node_cells
from .text import one_matrix

if TYPE_CHECKING:
    from .result import ComparisonResult, ComparisonRow


def to_data(comparison: ComparisonResult) -> dict[str, Any]:
    """What it decides in sentences, all models side by side, and every metric of every pair."""
    matrix = one_matrix(comparison)
    nodes = [
        {
            "first": pair.first.name,
            "second": pair.second.name,
            **(
                {"reason": pair.nodes}
                if isinstance(pair.nodes, str)
                else {"nodes": node_cells(pair.nodes)}
            ),
        }
        for pair in comparison.pairs
        if pair.nodes is not None
    ]
    data: dict[str, Any] = {"metrics": to_cells(comparison), "nodes": nodes}
    if matrix is None:
        return data
    columns = [{"name": s.name, "model": s.reference, "fill": s.fill} for s in matrix.sides]
    sentences = [{"topic": o.topic, "text": o.text} for o in decision(comparison, matrix)]
    rows = [{"row": r.name, "cells": r.cells, "letters": r.letters} for r in matrix.rows]
    return {"models": columns, "decision": sentences, "side_by_side": rows, **data}


def to_cells(comparison: ComparisonResult) -> list[dict[str, Any]]:
    """A flat dict for each metric of each pair; None where there is no number."""
    return [
        {
            "first": pair.first.name,
            "second": pair.second.name,
            "metric": row.column,
            "first.value": row.first.value if row.first else None,
            "second.value": row.second.value if row.second else None,
            **_numbers(row),
            "shown": row.shown,
            "verdict": row.verdict.value,
            "reason": row.reason,
        }
        for pair in comparison.pairs
        for row in pair.rows
    ]


def _numbers(row: ComparisonRow) -> dict[str, Any]:
    found = row.evidence
    gap = found.difference if found else None
    return {
        "difference": gap.value if gap else None,
        "low": found.low if found else None,
        "high": found.high if found else None,
        "method": gap.method if gap else None,
        "effect": found.effect if found else None,
        "p": found.p if found else None,
        "p.corrected": found.adjusted if found else None,
    }
