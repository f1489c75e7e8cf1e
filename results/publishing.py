"""What the published sets' scripts share: prose, dates of architectures, rank correlation."""

from __future__ import annotations

import importlib
import inspect
import re
from functools import cache
from textwrap import fill

import numpy as np
import timm
from scipy.stats import spearmanr

DRAWS = 2000


def reflow(text: str) -> str:
    """Fill paragraphs and list items; tables, headings and commands stay."""
    blocks = []
    for block in text.split("\n\n"):
        if block.startswith(("|", "#", "    ", "<!--")):
            blocks.append(block)
            continue
        items = re.split(r"\n(?=- )", block)
        filled = []
        for item in items:
            indent = "  " if item.startswith("- ") else ""
            filled.append(fill(" ".join(item.split()), 108, subsequent_indent=indent))
        blocks.append("\n".join(filled))
    return "\n\n".join(blocks).rstrip("\n") + "\n"


@cache
def families() -> dict[str, str]:
    """The module of timm that defines each architecture."""
    return {
        name: module for module in timm.list_modules() for name in timm.list_models(module=module)
    }


@cache
def year(family: str) -> int | None:
    """Year of the first paper that timm's module names in its docstring, or None."""
    text = inspect.getdoc(importlib.import_module(f"timm.models.{family}")) or ""
    found = re.search(r"arxiv\.org/(?:abs|pdf)/(\d\d)\d\d\.\d+", text)
    return 2000 + int(found[1]) if found else None


def rank_correlation(x, y, seed: int = 0) -> str:
    """Spearman's rank correlation of the pairs (x, y), with its 95 % bootstrap interval and n."""
    pairs = np.array([p for p in zip(x, y, strict=True) if None not in p], dtype=float)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    draws = np.random.default_rng(seed).integers(0, len(pairs), (DRAWS, len(pairs)))
    found = [spearmanr(*pairs[draw].T).statistic for draw in draws]
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return f"{spearmanr(*pairs.T).statistic:.2f} ({low:.2f} to {high:.2f}, n = {len(pairs)})"
