"""The same map by other means, in turns: `openerf` where it is installed, and a plain loop.

The map is Kim et al.'s: gradient of the channel mean of the central unit, averaged over the input's
channels, rectified, summed over the images, which all three decode from the same files.
"""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .measure import turns

if TYPE_CHECKING:
    from torch import nn

    from .measure import Bench


PEER = "openerf"


@dataclass(frozen=True)
class SpeedComparison:
    """How many times as long as ours another way takes for one map."""

    rival: str
    own_s: float
    other_s: float

    @property
    def ratio(self) -> float:
        """Above 1 where ours is faster."""
        return self.other_s / self.own_s


def comparisons(bench: Bench) -> list[SpeedComparison]:
    """Our map against a plain loop of single images, and against `openerf` where there is one."""
    with tempfile.TemporaryDirectory(prefix="perimetry-") as name:
        folder = Path(name)
        write_images(bench, folder)
        jobs: dict[str, Any] = {"ours": partial(_ours, bench, folder)}
        jobs["plain autograd loop"] = partial(plain_loop, bench, folder)
        if find_spec(PEER) is not None:
            module = as_given(bench.model.module())  # type: ignore[attr-defined]
            jobs[f"{PEER} {_version()}"] = partial(_openerf, bench, folder, module)
        own, *others = turns(list(jobs.values()), bench.rounds, bench.device)
    return [
        SpeedComparison(name, own, other)
        for name, other in zip(list(jobs)[1:], others, strict=True)
    ]


def _version() -> str:
    from importlib import metadata

    return metadata.version(PEER)


def write_images(bench: Bench, folder: Path) -> None:
    """Write the images of `bench` as PNG files."""
    from PIL import Image

    for i, image in enumerate(bench.images):
        pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype("uint8")
        Image.fromarray(pixels).save(folder / f"{i:04}.png")


def _ours(bench: Bench, folder: Path) -> Any:
    from ...suites.erf.suite import ERF
    from ...suites.images import open_images
    from ...suites.measuring.gradients import gradient_maps

    images = open_images(str(folder), len(bench.images)).load(bench.model.spec)
    probes = ERF.probes(bench.model, "kim2023", 0)
    maps = gradient_maps(bench.model, images, probes, batch=bench.batch).maps
    return maps[probes[0].name].sum(0)


def plain_loop(bench: Bench, folder: Path) -> Any:
    """What one would write at first: one image after another."""
    import torch

    from ...suites.images import open_images

    images = open_images(str(folder), len(bench.images)).load(bench.model.spec)
    total = torch.zeros(images.shape[2:])
    for image in bench.model.spec.prepare(images):
        x = image[None].to(bench.device).requires_grad_()
        target = bench.model.run(x).target
        if target is None:
            break
        unit = target[0, :, target.shape[2] // 2, target.shape[3] // 2].mean()
        (gradient,) = torch.autograd.grad(unit, x)
        total += gradient[0].mean(0).relu().cpu()
    return total.numpy()


def as_given(module: nn.Module) -> nn.Module:
    """A copy as its library gives it to any program: weights unfrozen, in torch's own order."""
    import torch

    return copy.deepcopy(module).to(memory_format=torch.contiguous_format).requires_grad_(True)


def _openerf(bench: Bench, folder: Path, module: nn.Module) -> Any:
    import openerf

    return openerf.compute_erf(
        module,
        image_dir=folder,
        target_layer="forward_features",
        device=bench.device,
        show_progress=False,
    )
