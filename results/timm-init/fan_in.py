"""Measure where expectation and measurement part once more, with weights of variance 1 / fan_in.

`python results/timm-init/fan_in.py` writes fan_in.csv, a row per architecture of board.csv whose
least sensitive phase is measured at less than half or more than twice its expectation. Everything
is as in the set, but that each weight of a convolution or linear layer is drawn from a normal
distribution of variance 1 / fan_in, as `structure` assumes, and biases are 0.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import timm
import torch
from torch import nn

from perimetry import audit
from perimetry.adapters.created import Created, Opening
from perimetry.adapters.timm import timm_input

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from publishing import read_board  # noqa: E402

MEMBERS = 8
WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def parting(plain: pd.DataFrame) -> pd.Series:
    """Measured over expected least sensitive phase where the two part by more than twofold.

    `plain` is the board without kernel padding, its index the models.
    """
    ratio = plain["deadpixel.weakest"] / plain["structure.weakest"]
    return ratio[(ratio < 1 / 2) | (ratio > 2)]


def drawn(name: str) -> nn.Module:
    """timm's architecture `name`; its weights come from torch's generator."""
    module = timm.create_model(name, pretrained=False)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, WEIGHTED):
                nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
                if layer.bias is not None:
                    layer.bias.zero_()
    return module


def measured(name: str) -> dict[str, Any]:
    """The row of `name`. Raises `ValueError` where it cannot be measured."""
    made = Created(f"{name} of 1 / fan_in", partial(drawn, name), None, timm_input(name), {})
    (record,) = audit(made.open(Opening("cpu", members=MEMBERS)), ("deadpixel",), count=MEMBERS)
    found = record.metrics.get("weakest")
    if found is None or found.value is None:
        raise ValueError(f"{name}: {found.reason if found else record.error}")
    return {
        "model": name,
        "weakest": round(found.value, 6),
        "low": round(found.low, 6),
        "high": round(found.high, 6),
        "members": record.model.members,
        "commit": record.environment.stamp,
    }


def main() -> None:
    """Write fan_in.csv."""
    torch.set_num_threads(1)
    board = read_board(HERE)
    names = parting(board[board.fill == "none"].set_index("model")).index
    pd.DataFrame(map(measured, sorted(names))).to_csv(HERE / "fan_in.csv", index=False)


if __name__ == "__main__":
    main()
