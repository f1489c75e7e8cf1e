"""Pack both sets and write their numbers into README.md, between its markers.

    python results/trained/publish.py WORKING_FOLDER

WORKING_FOLDER is what run.sh was given. The words of README.md are written by hand.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoints import ARCHITECTURES, CHECKPOINTS
from tabulate import tabulate

from perimetry.bench.output.numbers import column_number
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.tables import render_board
from perimetry.bench.records.archive import RecordArchive, pack_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from perimetry.bench.records.record import Record

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from publishing import run_records  # noqa: E402

SETS = ("as-is", "recalibrated")
COMPARED = {
    "deadpixel.imbalance": "imbalance",
    "deadpixel.weakest": "weakest",
    "deadpixel.by_period_2": "of imbalance², period 2",
    "deadpixel.by_period_4": "period 4",
    "fidelity.top1_agreement": "agreement with the untreated model",
    "fidelity.feature_cosine": "feature cosine",
    "erf.luo_size": "ERF side, px",
    "erf.radius": "ERF radius, px",
    "erf.r_squared": "ERF, R² of a Gaussian",
    "padding.border_ratio": "border over centre, photographs",
    "padding.constant_border_ratio": "the same, plain image",
    "padding.border_drop": "border drop",
    "padding.exchange_circular": "what circular padding adds to it",
    "perturbation.leverage": "attack leverage",
    "perturbation.detect_ratio": "detectability ratio",
    "perturbation.shift_consistency": "shift consistency",
    "perturbation.agreement_structure": "differences against structure",
    "perturbation.agreement_gradient_z": "differences against gradients, standard errors",
    "perturbation.agreement_direction": "the same along directions, relative",
    "perturbation.comb_error": "error of the step, relative",
}
"""Rows of the comparison, by column of the board."""

SHIPPED = {
    "structure.imbalance": "expected imbalance",
    "deadpixel.imbalance": "imbalance",
    "deadpixel.weakest": "weakest",
    "perturbation.comb_imbalance": "comb imbalance",
    "perturbation.comb_error": "error of the step",
    "perturbation.leverage": "leverage",
    "padding.border_drop": "border drop",
    "fidelity.feature_cosine": "cosine",
    "fidelity.top1_agreement": "agreement",
}
"""Columns of the table of ONNX files."""

Cells = dict[tuple[str, str, str, str], "Record"]
"""Records by set, reference, fill and suite."""


def publish(folder: Path) -> None:
    """Write the packed sets and the generated parts of the README."""
    stores = {name: run_records(folder / name) for name in SETS}
    for name, store in stores.items():
        pack_records(store, HERE / f"{name}.jsonl.gz")
    path = HERE / "README.md"
    path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


def filled(text: str) -> str:
    """The README `text` with every part between markers generated again from the packed sets."""
    found = {name: RecordArchive(HERE / f"{name}.jsonl.gz").records() for name in SETS}
    cells = {(name, r.model.reference, r.fill, r.suite): r for name in SETS for r in found[name]}
    parts = {
        "comparison": comparison(cells),
        "held-out": held_out(),
        "rolled": rolled(),
        "files": shipped(cells),
        "checkpoints": provenance(),
        "made": made(found[SETS[0]] + found[SETS[1]]),
        **{name: render_board(Board(records), "md") for name, records in found.items()},
    }
    for name, content in parts.items():
        text = between(text, name, content)
    return text


def comparison(cells: Mapping[tuple[str, str, str, str], Record]) -> str:
    """Every metric of `COMPARED` for every architecture: untrained, trained, treated."""
    rows = []
    for column, label in COMPARED.items():
        suite, _, metric = column.partition(".")
        for name, file in ARCHITECTURES.items():
            sources = (
                ("as-is", f"timm:{name}@init", "none"),
                ("as-is", f"timm:{name}@init", "box"),
                ("as-is", f"timm:{name}@{file}", "none"),
                ("as-is", f"timm:{name}@{file}", "box"),
                ("recalibrated", f"timm:{name}@{file}", "box"),
            )
            found = [cell(cells.get((*source, suite)), metric) for source in sources]
            rows.append([label, name, *found])
            label = ""
    heads = ("untrained", "untrained, `box`", "trained", "`box`", "`box`, recalibrated")
    return table(("", "architecture", *heads), rows)


def shipped(cells: Mapping[tuple[str, str, str, str], Record]) -> str:
    """Every metric of `SHIPPED` for every ONNX file, as it is and with `box`."""
    rows = []
    for name in (name for name in CHECKPOINTS if name.endswith(".onnx")):
        for fill in ("none", "box"):
            found = [column.partition(".") for column in SHIPPED]
            values = [cell(cells.get(("as-is", name, fill, s)), m) for s, _, m in found]
            rows.append([f"`{name}`", fill, *values])
    return table(("file", "fill", *SHIPPED.values()), rows)


def held_out() -> str:
    """What `held_out.py` found: one row per variant, one column per architecture."""
    with (HERE / "held-out.csv").open(encoding="utf-8", newline="") as stream:
        found = {(r["variant"], r["architecture"]): r for r in csv.DictReader(stream)}
    variants = dict.fromkeys(variant for variant, _ in found)
    rows = [
        [
            variant,
            *(
                f"{float(found[variant, name]['agreement']):.2f}, "
                f"{found[variant, name]['right']} right"
                for name in ARCHITECTURES
            ),
        ]
        for variant in variants
    ]
    return table(("", *ARCHITECTURES), rows)


def rolled() -> str:
    """What `rolled.py` found."""
    with (HERE / "rolled.csv").open(encoding="utf-8", newline="") as stream:
        heads, *rows = csv.reader(stream)
    return table(heads, rows)


def provenance() -> str:
    """Package, licence and sha256 of every checkpoint."""
    rows = [
        [f"`{name}`", c.what, c.package, c.licence, f"`{c.sha256}`"]
        for name, c in CHECKPOINTS.items()
    ]
    return table(("file", "what it is", "package", "licence", "sha256 in the package"), rows)


def made(records: Sequence[Record]) -> str:
    """One sentence on commits, versions and machine. Raises `ValueError` for a changed checkout."""
    commits = {
        (r.environment.git.commit, r.environment.git.dirty) for r in records if r.environment.git
    }
    if any(dirty for _, dirty in commits):
        raise ValueError(f"the records come from {commits}; expected clean commits")
    names = " and ".join(f"`{commit[:12]}`" for commit, _ in sorted(commits))
    first = records[0].environment
    libraries = ", ".join(
        f"{name} {first.libraries[name]}"
        for name in ("torch", "timm", "onnxruntime", "onnxruntime-gpu", "numpy")
        if name in first.libraries
    )
    return (
        f"{len(records)} records of {names}, {libraries}, "
        f"{min(r.created for r in records)[:10]}, one thread of a shared CPU."
    )


def cell(record: Record | None, metric: str) -> str:
    """A metric with its interval, or nothing."""
    held = record.metrics.get(metric) if record else None
    if held is None or held.value is None:
        return ""
    if held.low is None or held.high is None:
        return column_number(held.value)
    return f"{column_number(held.value)} [{column_number(held.low)}, {column_number(held.high)}]"


def table(heads: Iterable[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    text: str = tabulate(rows, list(heads), "pipe", disable_numparse=True)
    return text


def between(text: str, name: str, content: str) -> str:
    """Replace what stands between the markers of `name`. Raises `ValueError` without markers."""
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not marks.search(text):
        raise ValueError(f"README.md has no place for {name!r}; expected <!-- {name} -->")
    return marks.sub(lambda found: f"{found[1]}\n{content.strip()}\n\n{found[2]}", text)


if __name__ == "__main__":
    publish(Path(sys.argv[1]))
