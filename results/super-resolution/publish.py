"""Write this folder from a finished run: `python results/super-resolution/publish.py RUN_DIR`.

Written: records.jsonl.gz (packed records) and README.md. Without RUN_DIR the README alone is
written again, from the packed records.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from perimetry import load_records

if TYPE_CHECKING:
    from perimetry.bench.records.record import Record

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from publishing import commits, days, filled, publish, reflow, shown, table  # noqa: E402

COLUMNS = {
    "output.expected_weakest": "output, expected weakest phase",
    "output.weakest": "output, weakest phase",
    "output.grid_amplitude": "rms of the repeating pattern",
    "halo.exact_overlap": "exact overlap",
    "halo.smallest_overlap": "smallest overlap measured",
    "halo.edge_error": "error at a seam",
    "erf.luo_size": "ERF",
    "padding.blind_weakest": "least response to a stimulus",
    "position.row_r2": "row by a probe",
    "position.column_r2": "column by a probe",
}


def by_name(records: list[Record]) -> dict[str, dict[str, Record]]:
    """Records by network, and of it by suite."""
    found: dict[str, dict[str, Record]] = {}
    for record in sorted(records, key=lambda r: r.model.reference):
        found.setdefault(Path(record.model.reference).stem, {})[record.suite] = record
    return found


def metrics_table(records: list[Record]) -> str:
    """A row a metric, a column a network."""
    networks = by_name(records)
    rows = []
    for column, title in COLUMNS.items():
        suite, metric = column.split(".")
        cells = [shown(own[suite].metrics[metric]) for own in networks.values()]
        rows.append((title, f"`{column}`", *cells))
    return table(("", "metric", *networks), rows)


def render() -> str:
    """README.md from its template and the packed records."""
    records = load_records(HERE / "records.jsonl.gz")
    first = records[0]
    parts = {
        "table": metrics_table(records),
        "why": next(r.metrics["weakest"].reason or "" for r in records if r.suite == "deadpixel"),
        "torch": first.environment.libraries["torch"],
        "date": f"{days(records)}, {commits(records)}",
    }
    return reflow(filled(HERE, parts))


if __name__ == "__main__":
    publish(HERE, render)
