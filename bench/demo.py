"""`perimetry demo`: nine architectures of nine kinds, one of them twice, and no data.

Each is audited from its seeded initial state, with and without kernel padding; one is exported to
ONNX first and audited again from that file. The last two rows are a small network trained with and
without kernel padding, which ships with the package as ONNX files.

Sample files are ONNX files of a few hundred kilobytes for 40 x 40 images, trained for
results/training: `tiny-resnet` (0.08 million parameters) with and without kernel padding, trained
to distinguish a red box of 3 x 3 pixels from a black one (`micro-object`, two classes) or to name
articles of clothing (`classification`, ten classes).
"""

from __future__ import annotations

import os
import shutil
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .execution.settings import Settings
from .output.files import explain

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .records.store import Store


ARCHITECTURES = (
    "resnet18",
    "resnet10t",
    "regnety_002",
    "mobilenetv3_small_100",
    "efficientnet_lite0",
    "densenet121",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "test_resnet",
)

EXPORTED = "resnet18"
"""The architecture that is audited again through an ONNX file."""

SAMPLES = tuple(f"tiny-resnet-micro-object-{fill}-seed0" for fill in ("none", "zero"))
"""Trained sample networks, without and with kernel padding (see `copy_samples`)."""

SUITES = ["structure", "erf", "deadpixel", "perturbation", "padding"]

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "padding": {"grid": 4, "exchange": (), "weight_sets": 4},
    "perturbation": {"comb_draws": 4, "noise_draws": 2, "block": 4},
}
"""Coarser than the defaults, for speed."""

FILLS = ["none", "box"]

TIME_LIMIT_S = 600.0

PICTURES = ("deadpixel", "erf", "structure")


def settings(seed: int) -> Settings:
    """Few images and weight sets: the results of the demo are not meant for publication."""
    return Settings(count=8, seed=seed, members=8, options=OPTIONS)


CORE_SECONDS = 200
"""About the time that the demo takes one core of a 2024 server."""


def forecast() -> str:
    """What the demo is about to do, and about how long it takes here."""
    from .execution.cost import duration

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    spent = duration(CORE_SECONDS / min(cores or 1, 4))
    models = len(ARCHITECTURES) + 1 + len(SAMPLES)
    return f"{models} models with and without kernel padding, about {spent} on this machine's CPU"


def references(out: Path, *, seed: int) -> list[str]:
    """The models of the demo; exports the ONNX file if it does not exist yet."""
    path = out / "models" / f"{EXPORTED}-seed{seed}.onnx"
    if not path.exists():
        export(EXPORTED, path, seed=seed)
    vendors = [str(file) for file in copy_samples(path.parent, SAMPLES)]
    return [*(f"timm:{name}@init" for name in ARCHITECTURES), str(path), *vendors]


def export(name: str, path: Path, *, seed: int) -> None:
    """Write the initial state of seed `seed` of a timm architecture as an ONNX file."""
    from ..adapters.export import export_model
    from ..adapters.load import load
    from ..suites.images import open_images

    model = load(f"timm:{name}@init", device="cpu", seed=seed, members=1)
    x = model.spec.prepare(open_images("dead-leaves", 4, seed).load(model.spec))
    model.select(0, x)
    path.parent.mkdir(parents=True, exist_ok=True)
    export_model(model, path)


def write_board(store: Store) -> list[Path]:
    """Write the leaderboard as page, Markdown, CSV and JSON, and maps of `PICTURES` as PNG."""
    from .figures.maps import Pictures, draw_variants
    from .output.files import write_text
    from .ranking.board import Board
    from .ranking.page.page import write_page
    from .ranking.tables import render_board

    records = store.records()
    board = Board(records)
    written = []
    for form in ("md", "csv", "json"):
        path = store.root / f"board.{form}"
        write_text(path, render_board(board, form))
        written.append(path)
    page = store.root / "board.html"
    write_page(board, page, title="Demo")
    written.append(page)
    maps = store.root / "maps"
    maps.mkdir(exist_ok=True)
    draw_variants([r for r in records if r.suite in PICTURES], Pictures(maps))
    return [*written, maps]


FOLDER = "sample_models"


def sample_files() -> Mapping[str, Path]:
    """Paths of the sample files by name without suffix."""
    folder = Path(str(resources.files(__package__) / FOLDER))
    return {path.stem: path for path in sorted(folder.glob("*.onnx"))}


def copy_samples(folder: Path, names: Collection[str] | None = None) -> list[Path]:
    """Copy the sample files, or those of `names`, into `folder`; their paths there.

    Raises `StoreError` where they cannot be written.
    """
    wanted = [path for name, path in sample_files().items() if names is None or name in names]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy(path, folder)) for path in wanted]
    except OSError as error:
        raise explain(error, folder) from error
