"""Write this folder from imported records: `python results/openerf/publish.py RUN_DIR`.

RUN_DIR is what the command in README.md was given as --out. Written: board.csv (one row per model),
records.jsonl.gz (packed records), README.md. Without RUN_DIR the README alone is written again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.view import board_frame
from perimetry.bench.records.archive import pack_records
from perimetry.bench.records.store import Store

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from publishing import rank_correlation, read_board, reflow, run_records  # noqa: E402

COMMAND = "perimetry import openerf CHECKOUT/results_npy --out RUN_DIR"
SUITE = "erf:kim2023"


def table(store: Store) -> pd.DataFrame:
    """One row a map: what was read off it, and the accuracy of the weights."""
    frame = board_frame(Board(store.records()))
    frame["model"] = frame.model.str.removeprefix("timm:")
    accuracy = pd.read_csv(HERE.parent / "accuracy" / "accuracy.csv").set_index("model")
    frame.insert(1, "side", [r.model.spec["height"] for r in store.records()])
    frame.insert(2, "top1", frame.model.map(accuracy.imagenet))
    return frame.dropna(axis=1, how="all").sort_values("model").round(6)


def readme(frame: pd.DataFrame) -> str:
    """The findings, in words and a table, all of them computed."""
    size = frame[f"{SUITE}.radius"] / frame.side
    fit = frame[f"{SUITE}.r_squared"]
    return f"""\
# Effective receptive fields of trained networks: the maps that OpenERF publishes

{len(frame)} maps of pretrained timm models over 1,000 images of ImageNet's validation set, by the
protocol `kim2023`, from OpenERF (github.com/kmbmjn/OpenERF, MIT, commit 196e022, `results_npy`;
Kim et al. 2023). They were imported, not measured here: a map is a mean over images, so there are
no intervals. What OpenERF has withdrawn is not read.

    {COMMAND}
    python results/openerf/publish.py RUN_DIR
    perimetry verify results/openerf --sample 5 --imported CHECKOUT/results_npy

`board.csv` has every number, `records.jsonl.gz` the packed records. Accuracies are those of
`results/accuracy`.

## Findings

- The radius (root of the second moment) takes {size.min():.0%} to {size.max():.0%} of the image's
  side, in the median {size.median():.0%}: a uniform map has 41 %. {int((fit > 0.9).sum())} of
  {len(frame)} maps are close to a Gaussian (R² above 0.9), {int((fit < 0.5).sum())} are none (below
  0.5).
- Rank correlation of the radius, as a share of the side, with the top-1 accuracy of the same
  weights: {rank_correlation(size, frame.top1)}; in pixels
  {rank_correlation(frame[f"{SUITE}.radius"], frame.top1)}. These are
  {len(frame)} weights of few families, with unlike training data: the interval says what can be
  said, and it is not that wider fields go with accuracy.

## Maps, the narrowest first

{rows(frame)}
"""


def rows(frame: pd.DataFrame) -> str:
    """One row a map."""
    columns = ("luo_size", "radius", "sigma_y", "sigma_x", "r_squared")
    ordered = frame.assign(share=frame[f"{SUITE}.radius"] / frame.side).sort_values("share")
    found = [
        (
            row.model,
            row.side,
            *(row[f"{SUITE}.{c}"] for c in columns),
            row.share,
            None if pd.isna(row.top1) else row.top1,
        )
        for _, row in ordered.iterrows()
    ]
    heads = ("weights", "side", "ERF", "radius", "sigma rows", "sigma columns", "R²", "radius/side")
    formats = ("", "", ".0f", ".1f", ".1f", ".1f", ".2f", ".3f", ".1f")
    return tabulate(found, (*heads, "top-1"), tablefmt="github", floatfmt=formats, missingval="")


def render() -> str:
    """The README of what is published here."""
    return reflow(readme(read_board(HERE)))


def main() -> None:
    """Write board.csv and records.jsonl.gz where records are given, and README.md."""
    if len(sys.argv) > 1:
        store = run_records(sys.argv[1])
        table(store).to_csv(HERE / "board.csv", index=False)
        pack_records(store, HERE / "records.jsonl.gz")
    (HERE / "README.md").write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
