"""Write bench/execution/timm_costs.csv: what each timm architecture costs, from a sweep's records.

    python results/timm-structure/costs.py RUN_DIR

GFLOP are torch's count for one forward pass at the model's own size, a multiply-add being two,
taken on the `meta` device; seconds are those that `structure` took in RUN_DIR, opening included.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from perimetry.adapters.reference import Reference
from perimetry.bench.execution.cost import TABLE
from perimetry.bench.records.store import Store


def gflop(name: str) -> float:
    """GFLOP of one forward pass over one image."""
    with torch.device("meta"):
        module = timm.create_model(name).eval()
        x = torch.zeros(1, *module.default_cfg["input_size"])
    with FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops() / 1e9


def main(folder: str) -> None:
    """Count, look up, write."""
    took: dict[str, dict[str, float]] = defaultdict(dict)
    for record in Store(folder).records():
        name = Reference.parse_any(record.model.reference).tagged_name
        took[name][record.fill] = record.timing.load_s + record.timing.measure_s
    with TABLE.open("w", newline="", encoding="utf-8") as stream:
        out = csv.writer(stream, lineterminator="\n")
        out.writerow(["architecture", "gflop", "structure_s", "twin_s"])
        for name in sorted(took):
            seconds = [took[name][fill] for fill in ("none", "zero")]
            out.writerow([name, *(f"{value:.3g}" for value in (gflop(name), *seconds))])


if __name__ == "__main__":
    main(*sys.argv[1:])
