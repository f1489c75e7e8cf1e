"""Write the tables of the root README from the published sets: `python results/readme.py`."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from tabulate import tabulate

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
SHOWN = (
    *("mobilenetv3_small_100", "convformer_s18", "levit_128s", "regnety_008", "efficientnet_lite0"),
    *("mobilenetv2_100", "resnet50d", "resnet50", "resnet18", "densenet121", "swin_tiny"),
    *("vgg11_bn", "convnext_atto", "vit_tiny"),
)
"""Architectures by the first letters of their names."""


def board() -> str:
    """Some rows of results/timm-init, the least even first, without and with `box`."""
    frame = pd.read_csv(HERE / "timm-init" / "board.csv")
    frame = frame[frame.model.str.startswith(SHOWN)]
    plain = frame[frame.fill == "none"].set_index("model").sort_values("deadpixel.weakest")
    boxed = frame[frame.fill == "box"].set_index("model")
    rows = [
        (
            name,
            interval(row, "deadpixel.weakest"),
            treated(row, boxed.loc[name]),
            f"{row['structure.weakest']:.3f}",
            f"{row['deadpixel.imbalance']:.3f}",
            f"{row['erf.luo_size']:.0f}",
            f"{row['erf.r_squared']:.2f}",
        )
        for name, row in plain.iterrows()
    ]
    heads = ("architecture", "weakest", "with `box`", "`structure`", "imbalance", "ERF px", "R²")
    align = ("left", *["right"] * (len(heads) - 1))
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True, colalign=align)


def treated(plain: pd.Series, boxed: pd.Series) -> str:
    """The value with `box`, or a word if padding changes no layer."""
    name = "deadpixel.weakest"
    return "unchanged" if boxed[name] == plain[name] else interval(boxed, name)


def interval(row: pd.Series, metric: str) -> str:
    """A value with its interval."""
    return f"{row[metric]:.2f} ({row[f'{metric}.low']:.2f} to {row[f'{metric}.high']:.2f})"


def counts() -> dict[str, str]:
    """The figures that the README names, as sentences."""
    frame = pd.read_csv(HERE / "timm-structure" / "board.csv")
    known = frame[frame.weakest.notna()]
    plain = known[known.fill == "none"].set_index("model").weakest
    treated = known[known.fill == "zero"].set_index("model").weakest
    uneven = plain[plain < 0.95].index
    healed = int((treated.reindex(uneven) >= 0.95).sum())
    return {
        "structure": f"{(plain >= 0.95).sum()} are even, {len(uneven)} are not; padding makes "
        f"{healed} of these even; {frame.model.nunique() - len(plain)} have no phases to compare."
    }


def render(text: str) -> str:
    """The README `text` with the current tables between `<!-- NAME -->` and `<!-- / -->`."""
    parts = {"board": f"\n{board()}\n"} | counts()
    for name, made in parts.items():
        marked = rf"(<!-- {name} -->).*?(<!-- / -->)"
        text, found = re.subn(marked, lambda m, made=made: m[1] + made + m[2], text, flags=re.S)
        if found != 1:
            raise ValueError(f"README.md marks {name!r} {found} times; expected once")
    return text


if __name__ == "__main__":
    README.write_text(render(README.read_text(encoding="utf-8")), encoding="utf-8")
