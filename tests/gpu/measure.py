"""The measuring part of `run.py`: `perimetry bench` and one map against `openerf`, step by step.

The state after each step is in OUT/bench.json, so that nothing is lost with this process. The step
that runs is named in OUT/step.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from dataclasses import asdict, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from perimetry.adapters.device import full_precision
from perimetry.bench.output.files import write_text
from perimetry.bench.speed.goals import MapComparison
from perimetry.bench.speed.measure import BenchmarkSetup, open_bench
from perimetry.bench.speed.report import MODELS, SUITES, BenchmarkPlan, measure
from perimetry.bench.speed.stopwatch import interleaved_times
from perimetry.bench.speed.tables import render_speed
from perimetry.suites.erf.suite import ERF
from perimetry.suites.images import open_images
from perimetry.suites.measuring.gradients import gradient_maps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perimetry.bench.speed.report import SpeedReport, Step

SMALL_MODEL = "timm:test_resnet@init"


def main() -> None:
    """Measure, and keep the state after each step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    plan = plan_of(given.device, small=given.small)
    skipped: dict[str, str] = {}

    def keep(report: SpeedReport) -> None:
        tables = render_speed(report) if tabulate_is_here() else ""
        notes = "".join(f"\n{name}: {reason}\n" for name, reason in skipped.items())
        goals = [asdict(goal) for goal in report.goals]
        state = {**asdict(report), "environment": report.environment.model_dump()}
        found = {"figures": state, "goals": goals, "skipped": skipped, "page": tables + notes}
        write_text(given.out / "bench.json", json.dumps(found, indent=1, default=str))

    measure(
        plan,
        log=lambda name: write_text(given.out / "step", name),
        keep=keep,
        more=partial(openerf_steps, plan, skipped),
    )


def plan_of(device: str, *, small: bool) -> BenchmarkPlan:
    """Everything in the tables of docs/performance.md; with `small` one model, in seconds."""
    if small:
        references, suites = (SMALL_MODEL,), ("structure", "deadpixel")
        return BenchmarkPlan(references, suites, device, 4, 4, 1, device_use=True)
    kind = device.partition(":")[0]
    count, batch = (64, 64) if kind == "cuda" else (12, 8)
    return BenchmarkPlan(MODELS, SUITES, device, count, batch, 2, device_use=True)


def tabulate_is_here() -> bool:
    """Whether tables can be laid out; the figures are in the JSON all the same."""
    try:
        metadata.version("tabulate")
    except metadata.PackageNotFoundError:
        return False
    return True


def openerf_steps(
    plan: BenchmarkPlan, skipped: dict[str, str], report: SpeedReport
) -> Iterator[Step]:
    """One map by `perimetry` and by `openerf`, in alternating runs."""
    try:
        import openerf  # noqa: F401
    except ImportError as error:
        skipped["one map against openerf"] = f"openerf cannot be imported ({error})"
        return
    name = plan.used or plan.references[0]

    def keep_comparison() -> None:
        report.comparisons.append(against_openerf(name, plan))

    yield f"{name}: one map against openerf", keep_comparison


def against_openerf(name: str, plan: BenchmarkPlan) -> MapComparison:
    """Both read the same files, and compute in float32."""
    bench = open_bench(
        name, device=plan.device, count=plan.count, batch=plan.batch, rounds=plan.rounds
    )
    with tempfile.TemporaryDirectory() as folder, full_precision(plan.device):
        save_images(bench, Path(folder))
        bench.model.spec = replace(bench.model.spec, crop_pct=1.0)  # they have the model's size
        ours = partial(our_map, bench, folder)
        first = ours()  # calibrates the norms on these images; the copy has them
        # The module as timm creates it: weights unfrozen, in torch's own memory order.
        module = copy.deepcopy(bench.model.module()).to(memory_format=torch.contiguous_format)
        module.pretrained_cfg = {**module.pretrained_cfg, "crop_pct": 1.0}
        theirs = partial(their_map, bench, folder, module.requires_grad_(True))
        second = theirs()
        seconds, other = interleaved_times([ours, theirs], plan.rounds, plan.device)
    gap = float(np.linalg.norm(first - second) / np.linalg.norm(second))
    version = f"openerf {metadata.version('openerf')}"
    return MapComparison(name, version, len(bench.images), seconds, other, gap)


def save_images(bench: BenchmarkSetup, folder: Path) -> None:
    """The images of `bench` as PNG files."""
    for i, image in enumerate(bench.images):
        pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:04}.png")


def our_map(bench: BenchmarkSetup, folder: str) -> np.ndarray:
    """The map of Kim et al., scaled to sum 1."""
    images = open_images(folder, len(bench.images)).load(bench.model.spec)
    probes = ERF.probes(bench.model, "kim2023", 0)
    maps = gradient_maps(bench.model, images, probes, batch=bench.batch).maps
    total = maps[probes[0].name].sum(0)
    return total / total.sum()


def their_map(bench: BenchmarkSetup, folder: str, module: torch.nn.Module) -> np.ndarray:
    """The same map by `openerf`."""
    import openerf

    found = openerf.compute_erf(
        module,
        image_dir=folder,
        target_layer="forward_features",
        device=bench.device,
        show_progress=False,
    )
    total = np.asarray(found.erf_map, np.float64)
    return total / total.sum()


if __name__ == "__main__":
    main()
