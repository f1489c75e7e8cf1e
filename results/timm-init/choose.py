"""Choose the architectures of this set: `python results/timm-init/choose.py` writes models.txt.

All architectures of timm, but those for its own tests, that take at most 5 GMACs for one image of
their own size, in rounds: the first round has the cheapest of each family, the second the next, so
that a run that is ended early has all families. Those in FIRST, which the set began with, come
first. top1.csv gets the accuracy that timm publishes for the default weights of each.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

import pandas as pd
import timm

import perimetry.bench

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from publishing import families  # noqa: E402

GMACS = 5.0
COSTS = Path(perimetry.bench.__file__).parent / "execution" / "timm_costs.csv"
FIRST = HERE / "first.txt"


def chosen() -> list[str]:
    """The architectures by name, in the order of measuring."""
    with COSTS.open(encoding="utf-8") as stream:
        gmacs = {row["architecture"]: float(row["gflop"]) / 2 for row in csv.DictReader(stream)}
    known = [name for name in families() if not name.startswith("test_")]
    small = sorted((n for n in known if gmacs.get(n, GMACS + 1) <= GMACS), key=gmacs.get)
    by_family = defaultdict(list)
    for name in small:
        by_family[families()[name]].append(name)
    rounds = sorted(small, key=lambda n: (by_family[families()[n]].index(n), gmacs[n]))
    first = FIRST.read_text(encoding="utf-8").split()
    return list(dict.fromkeys([*first, *rounds]))


def accuracies(names: list[str]) -> pd.DataFrame:
    """Name, input size and ImageNet top-1 of the default weights of `names`, where published."""
    known = pd.read_csv(HERE.parent / "accuracy" / "accuracy.csv").set_index("model")
    default = [f"{n}.{tag}" for n in names if (tag := _default_tag(n))]
    found = known.reindex([name for name in default if name in known.index])
    found = found.reset_index()[["model", "img_size", "imagenet"]]
    return found.rename(columns={"img_size": "evaluated_at", "imagenet": "top1"})


def _default_tag(name: str) -> str:
    """The tag of the weights that timm loads for `name` when none is named, or ''."""
    config = timm.get_pretrained_cfg(name)
    return (config.tag if config else "") or ""


if __name__ == "__main__":
    picked = chosen()
    text = "".join(f"timm:{name}@init\n" for name in picked)
    (HERE / "models.txt").write_text(text, encoding="utf-8")
    accuracies(picked).to_csv(HERE / "top1.csv", index=False)
