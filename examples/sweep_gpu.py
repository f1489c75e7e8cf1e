"""Measure every pretrained model of timm on a GPU, for a person with a GPU and a network.

    python examples/sweep_gpu.py --out zoo                     # everything that fits, resumable
    python examples/sweep_gpu.py --out zoo --dry-run           # the plan and its commands alone
    python examples/sweep_gpu.py --out zoo -- --count 128      # further options of `perimetry run`

The plan: each architecture with its default weights. A gradient pass keeps what the layers give,
so the bytes of all layers' outputs for one image, found on the meta device without weights, times
`KEPT`, plus the weights, must fit into a worker's share of the memory. The batch is the largest
power of two that does, at most `LARGEST`; should it be too large all the same, `perimetry run`
halves it. Models that do not fit with one image are left out and listed.

Groups of equal batch size are measured one after another, large batches first: they are the small
models, so that most of the board is there early. Within a group the most expensive model comes
first. Two workers share the GPU; one opens its model and fits intervals while the other computes.
The same command goes on where it was interrupted: records that are in OUT are not measured again.
At the end OUT holds the records, and `perimetry board OUT --html board.html` makes the page.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from perimetry.adapters.meta_forward import ShapesOnly
from perimetry.adapters.names import list_models

KEPT = 1.0
"""Bytes that a gradient pass keeps, over those of the layers' outputs.

A convolution with frozen weights keeps nothing, so this leaves room for functions between layers
and for the gradients on the way back.
"""

LARGEST = 256
SHARE = 0.9
"""The part of a GPU's memory that its workers share."""

WORKERS = 2
SUITES = ["--suite", "structure,erf:all,deadpixel:all"]
"""Left out where other suites are asked for: several `--suite` add up."""

VARIANTS = ["--kernel-padding", "none,box"]

IMAGES = ["--count", "16", "--precision-goal", "0.05"]
"""As many images as each model needs; left out where other suites or images are asked for."""


@dataclass(frozen=True)
class Size:
    """What a model needs, in bytes: `weights`, and `outputs` of all its layers for one image."""

    reference: str
    weights: int
    outputs: int

    def batch(self, memory: float) -> int:
        """The largest power of two that fits into `memory` bytes; 0 if not even one image does."""
        room = (memory - self.weights) / (KEPT * self.outputs)
        return 0 if room < 1 else min(LARGEST, 1 << int(room).bit_length() - 1)


def size_of(reference: str) -> Size:
    """The needs of the timm model `reference`, from one pass that computes shapes only."""
    name = reference.removeprefix("timm:").removesuffix("@init")
    with torch.device("meta"):
        model = timm.create_model(name).eval()
    outputs = 0

    def add(_module: nn.Module, _inputs: object, out: object) -> None:
        nonlocal outputs
        outputs += out.nbytes if isinstance(out, Tensor) else 0

    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(add)
    x = torch.empty(1, *model.pretrained_cfg["input_size"], device="meta")
    with torch.no_grad(), ShapesOnly():
        model(x)
    return Size(reference, sum(p.nbytes for p in model.parameters()), max(outputs, x.nbytes))


def sizes(references: Iterable[str], table: Path) -> list[Size]:
    """The needs of all models; `table` keeps them for the next call."""
    kept: dict[str, Size] = {}
    if table.exists():
        with table.open(newline="") as stream:
            rows = list(csv.reader(stream))[1:]
        kept = {name: Size(name, int(weights), int(out)) for name, weights, out in rows}
    found = []
    for reference in references:
        if reference not in kept:
            try:
                kept[reference] = size_of(reference)
            except Exception as error:  # a model that cannot be traced is measured one at a time
                print(f"{reference}: needs unknown ({type(error).__name__}), batch 1")
                kept[reference] = Size(reference, 0, 1 << 62)
        found.append(kept[reference])
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(field.name for field in fields(Size))
        writer.writerows(astuple(size) for size in kept.values())
    return found


def plan(found: Sequence[Size], memory: float) -> tuple[dict[int, list[str]], list[str]]:
    """References by batch size, largest first, and those that do not fit into `memory` bytes."""
    groups: dict[int, list[str]] = {}
    too_large = []
    for size in found:
        batch = 1 if size.outputs == 1 << 62 else size.batch(memory)
        if batch:
            groups.setdefault(batch, []).append(size.reference)
        else:
            too_large.append(size.reference)
    return dict(sorted(groups.items(), reverse=True)), too_large


def command(references: Sequence[str], batch: int, given: argparse.Namespace) -> list[str]:
    """The command that measures one group."""
    words = ["perimetry", "run", *references, "--out", str(given.out), "--device", given.device]
    words += ["--batch", str(batch), "--workers", str(WORKERS), *VARIANTS]
    if "--suite" not in given.more:
        words += SUITES
        words += [] if "--count" in given.more else IMAGES
    return [*words, *given.more]


def memory_of(device: str) -> float:
    """Bytes of the GPU."""
    if not torch.cuda.is_available():
        sys.exit("no GPU was found; expected one that torch can use: give --memory-gib to plan")
    return float(torch.cuda.get_device_properties(device).total_memory)


def pretrained() -> list[str]:
    """Every architecture that has pretrained weights."""
    known = {name.partition(".")[0] for name in timm.list_pretrained()}
    return [name for name in list_models() if name.removeprefix("timm:") in known]


def arguments() -> argparse.Namespace:
    """What the command line says; what stands after `--` goes to `perimetry run`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="Folder of the records.")
    parser.add_argument("--device", default="cuda", help="As for `perimetry run`.")
    parser.add_argument("--memory-gib", type=float, help="Memory of the GPU, if none is here.")
    parser.add_argument("--models", nargs="+", help="References in place of all pretrained ones.")
    parser.add_argument("--dry-run", action="store_true", help="Print the plan alone.")
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    given = parser.parse_args(words[:cut])
    given.more = words[cut + 1 :]
    return given


def main() -> int:
    """Plan, and run group after group; the exit code of the worst."""
    given = arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    memory = given.memory_gib * 2**30 if given.memory_gib else memory_of(given.device)
    found = sizes(given.models or pretrained(), given.out / "sizes.csv")
    groups, too_large = plan(found, SHARE * memory / WORKERS)
    for name in too_large:
        print(f"{name}: left out, one image does not fit into {SHARE * memory / WORKERS:.3g} bytes")
    worst = 0
    for batch, references in groups.items():
        words = command(references, batch, given)
        print(f"batch {batch}: {len(references)} models", flush=True)
        if given.dry_run:
            print(" ".join(words))
        else:
            worst = max(worst, subprocess.call(words))  # noqa: S603 - no shell
    return worst


if __name__ == "__main__":
    sys.exit(main())
