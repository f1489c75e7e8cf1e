"""Gather timm's accuracy tables into accuracy.csv: `python results/accuracy/gather.py FOLDER`.

FOLDER is `results` of a checkout of huggingface/pytorch-image-models (Apache 2.0). A row of
accuracy.csv is a set of weights: its name, the input size at which its ImageNet
accuracy is highest, millions of parameters, and
top-1 accuracy on each of the test sets, in percent.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent
TEST_SETS = {
    "imagenet": "results-imagenet.csv",
    "real": "results-imagenet-real.csv",
    "v2": "results-imagenetv2-matched-frequency.csv",
    "sketch": "results-sketch.csv",
    "a": "results-imagenet-a.csv",
    "r": "results-imagenet-r.csv",
}
"""Columns of accuracy.csv, and the table that each is taken from."""


def gathered(folder: Path) -> pd.DataFrame:
    """One row a set of weights, from timm's tables in `folder`."""
    tables = {name: _table(folder / file) for name, file in TEST_SETS.items()}
    frame = tables["imagenet"][["param_count"]].rename(columns={"param_count": "params"})
    for name, table in tables.items():
        frame[name] = table["top1"].reindex(frame.index)
    frame = frame.reset_index().sort_values(["model", "imagenet"], ascending=[True, False])
    return frame.drop_duplicates("model")


def _table(path: Path) -> pd.DataFrame:
    """One of timm's tables, a line for each set of weights and input size."""
    return pd.read_csv(path, thousands=",").set_index(["model", "img_size"])


if __name__ == "__main__":
    gathered(Path(sys.argv[1])).to_csv(HERE / "accuracy.csv", index=False)
