"""Kernel padding of every timm model: `python results/kernel-padding/zoo.py FOLDER [--only PART]`.

Writes FOLDER/zoo.csv (part `shapes`): builds each model without weights on the `meta` device (on
the CPU where that fails), pads copies of it with `zero`, `box` and `fresh`, and compares output
shapes before and after at the model's own input size. Then FOLDER/zoo-numbers.csv (part `numbers`):
takes the smallest model of every family, gives it real weights, and runs real numbers: `zero` must
give the same output, the others a finite one of the same shape. One row per model and fill; models
that are in the table are not done again. `--models` takes those whose name fits a pattern.
"""

from __future__ import annotations

import argparse
import copy
import csv
import sys
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from perimetry.adapters.pytorch.kernel_padding.rewrite import pad_module
from perimetry.adapters.pytorch.kernel_padding.trace import trace_uneven

if TYPE_CHECKING:
    from collections.abc import Callable

sys.path.append(str(Path(__file__).parents[1]))
from publishing import families, made

FILLS = ("zero", "box", "fresh")

COLUMNS = [
    *("model", "family", "built", "fill", "uneven", "grown"),
    *("left", "reasons", "difference", "seconds", "status"),
    *("commit", "torch", "timm", "day"),
]


def build(name: str) -> tuple[nn.Module, str]:
    """The model without weights, on meta, or on the CPU where it cannot be made there."""
    try:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False).eval(), "meta"
    except Exception:
        return timm.create_model(name, pretrained=False).eval(), "cpu"


def example(module: nn.Module, *, smallest: bool = False) -> Tensor:
    """One input of the size the model was made for, or of the smallest it takes."""
    cfg = module.pretrained_cfg
    size = cfg.get("min_input_size") if smallest and not cfg.get("fixed_input_size") else None
    device = next(module.parameters()).device
    generator = torch.Generator(device).manual_seed(0) if device.type == "cpu" else None
    return torch.randn(1, *(size or cfg["input_size"]), device=device, generator=generator)


def check_shapes(name: str) -> list[dict[str, Any]]:
    """One row per fill, from passes without numbers."""
    module, built = build(name)
    try:
        uneven = len(trace_uneven(module, example(module)).uneven)
    except Exception:
        if built == "cpu":
            raise
        module, built = timm.create_model(name, pretrained=False).eval(), "cpu"
        uneven = len(trace_uneven(module, example(module)).uneven)
    if not uneven:
        return [row(name, built, "", uneven=0, status="even")]
    return [attempt(name, module, built, fill, uneven) for fill in FILLS]


def attempt(name: str, module: nn.Module, built: str, fill: Any, uneven: int) -> dict[str, Any]:
    """Pad a copy; `pad_module` itself compares the output shapes."""
    start = time.perf_counter()
    try:
        done = pad_module(copy.deepcopy(module), fill, example(module))
    except Exception as error:
        return row(name, built, fill, uneven=uneven, status=f"failed: {error!r:.300}")
    return row(
        name,
        built,
        fill,
        uneven=uneven,
        grown=len(done.layers),
        left=len(done.refused_layers),
        reasons=" | ".join(f"{k}: {v}" for k, v in done.refused_layers.items()),
        seconds=round(time.perf_counter() - start, 2),
        status="padded" if done.layers else "left",
    )


def check_numbers(name: str) -> list[dict[str, Any]]:
    """One row per fill, from passes over real numbers."""
    module = timm.create_model(name, pretrained=False).eval()
    x = example(module, smallest=True)
    rows = []
    with torch.no_grad():
        before = tree_leaves(module(x))
        for fill in FILLS:
            padded = copy.deepcopy(module)
            done = pad_module(padded, fill, x)
            if not done.layers:
                rows.append(
                    row(name, "numbers", fill, left=len(done.refused_layers), status="left")
                )
                continue
            after = tree_leaves(padded(x))
            same = [a.shape for a in after] == [b.shape for b in before]
            scale = max(float(b.abs().max()) for b in before)
            gap = max(float((a - b).abs().max()) for a, b in zip(after, before, strict=True))
            finite = all(bool(a.isfinite().all()) for a in after)
            good = same and finite and (fill != "zero" or gap <= 1e-4 * scale)
            rows.append(
                row(
                    name,
                    "numbers",
                    fill,
                    grown=len(done.layers),
                    difference=f"{gap / scale if scale else gap:.1e}",
                    status="ran" if good else "wrong",
                )
            )
    return rows


def row(name: str, built: str, fill: str, **fields: Any) -> dict[str, Any]:
    """One line of the table."""
    subject = {"model": name, "family": families()[name], "built": built, "fill": fill}
    return {**subject, **fields, **made()}


def smallest_per_family() -> list[str]:
    """The model with the fewest parameters of each family."""
    best: dict[str, tuple[int, str]] = {}
    for name, family in families().items():
        size = sum(p.numel() for p in build(name)[0].parameters())
        if family not in best or size < best[family][0]:
            best[family] = (size, name)
    return sorted(name for _, name in best.values())


def extend(path: Path, names: list[str], check: Callable[[str], list[dict[str, Any]]]) -> None:
    """Add to the table at `path` the rows of those of `names` that it has not."""
    done = set()
    if path.exists():
        with path.open(newline="") as file:
            done = {line["model"] for line in csv.DictReader(file)}
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not done:
            writer.writeheader()
        for name in names:
            if name in done:
                continue
            try:
                rows = check(name)
            except Exception as error:
                rows = [row(name, "", "", status=f"failed: {error!r:.300}")]
            writer.writerows(rows)
            file.flush()


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=("shapes", "numbers"))
    parser.add_argument("--models", default="*")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.only != "numbers":
        extend(options.folder / "zoo.csv", timm.list_models(options.models), check_shapes)
    if options.only != "shapes":
        names = [n for n in smallest_per_family() if fnmatch(n, options.models)]
        extend(options.folder / "zoo-numbers.csv", names, check_numbers)


if __name__ == "__main__":
    main()
