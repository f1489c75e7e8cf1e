"""Write this folder from a finished run: `python results/more-trained/publish.py RUN_DIR`.

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
sys.path += [str(HERE), str(HERE.parent)]
from networks import NETWORKS  # noqa: E402
from publishing import filled, publish, reflow, shown, table  # noqa: E402

ROWS = {
    "structure.weakest": "weakest phase, expected",
    "deadpixel.weakest": "weakest phase",
    "structure.imbalance": "imbalance, expected",
    "deadpixel.imbalance": "imbalance",
    "deadpixel.by_period_2": "of imbalance², period 2",
    "structure.receptive_field": "receptive field, px",
    "erf.luo_size": "ERF side, px",
    "erf.radius": "ERF radius, px",
    "erf.r_squared": "ERF, R² of a Gaussian",
    "padding.border_ratio": "border over centre, photographs",
    "padding.constant_border_ratio": "the same, plain image",
    "padding.border_drop": "border drop",
    "padding.blind_weakest": "least response to a stimulus",
    "padding.exchange_reflect": "what reflect padding adds to the drop",
    "position.row_r2": "row by a probe, R²",
    "position.column_r2": "column by a probe, R²",
    "position.position_share": "variance that position explains",
    "output.expected_weakest": "output, weakest phase, expected",
    "output.weakest": "output, weakest phase",
    "output.grid_amplitude": "output, rms of the repeating pattern",
    "fidelity.feature_cosine": "feature cosine with the untreated network",
}

NAMES = ("vgg16", "craft", "hed", "isnet-fp16", "isnet-fp16 box", "isnet-int8")

Networks = dict[str, dict[str, "Record"]]
"""Records by network, with its kernel padding, and by suite."""


def by_name(records: list[Record]) -> Networks:
    """Records by network; eight bits take no kernel padding, so that `box` is left out there."""
    found: Networks = {name: {} for name in NAMES}
    for record in records:
        name = Path(record.model.reference).stem
        name = name if record.fill == "none" else f"{name} {record.fill}"
        if name in found:
            found[name][record.suite] = record
    return found


def cell(own: dict[str, Record], column: str) -> str:
    """A metric with its interval; a dash where the suite was not measured or gives no such one."""
    suite, metric = column.split(".")
    value = own[suite].metrics.get(metric) if suite in own else None
    return "—" if value is None or value.value is None else shown(value)


def metrics_table(networks: Networks) -> str:
    """A row a metric, a column a network."""
    rows = [
        (title, f"`{column}`", *(cell(own, column) for own in networks.values()))
        for column, title in ROWS.items()
    ]
    return table(("", "metric", *networks), rows)


def files_table(networks: Networks) -> str:
    """What each file is, whose, and what is measured of it."""
    rows = []
    for file, network in NETWORKS.items():
        model = networks[Path(file).stem]["deadpixel"].model
        target, spec = model.target or {}, model.spec
        rows.append(
            (
                *(f"`{file}`", network.what, network.package, network.licence),
                f"{spec['height']} x {spec['width']}",
                "`{name}`, {channels} x {height} x {width}".format(**target),
                f"`{network.sha256}`",
            )
        )
    heads = ("file", "what it is", "package", "licence", "input", "measured map", "sha256")
    return table(heads, rows)


def share(own: dict[str, Record]) -> str:
    """The ERF's radius as a share of the image's side."""
    radius = own["erf"].metrics["radius"].value or 0.0
    return f"{radius / own['erf'].model.spec['height']:.0%}"


def render() -> str:
    """README.md from its template and the packed records."""
    records = load_records(HERE / "records.jsonl.gz")
    networks, first = by_name(records), records[0].environment
    parts = {
        f"{name} {suite}.{metric}": shown(value)
        for name, own in networks.items()
        for suite, record in own.items()
        for metric, value in record.metrics.items()
    }
    parts |= {f"{name} share": share(own) for name, own in networks.items() if "erf" in own}
    parts |= {
        "table": metrics_table(networks),
        "files": files_table(networks),
        "count": str(len(records)),
        "commit": first.stamp,
        "torch": first.libraries["torch"],
        "date": max(r.created for r in records)[:10],
    }
    return reflow(filled(HERE, parts))


if __name__ == "__main__":
    publish(HERE, render)
