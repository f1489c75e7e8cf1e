"""What is tried on a trained model: subjects with their images, and ways to make them more even."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from perimetry.adapters.load import load
from perimetry.adapters.pytorch.kernel_padding.fit import Fit
from perimetry.adapters.pytorch.weights import match_norms
from perimetry.suites.images import ImageSet, open_images

FITTED = 24
"""Photographs, or dead leaves, that a construction may see."""
MANY = 72
"""Photographs that one of them may see."""
MOST = 10_000
"""Photographs that are looked at in a folder: all."""
CROPS = 2
"""Random crops of each test photograph, beside the central one, for agreement."""
LEAVES_SEED = 1_000_003
"""The stream that `perimetry run` with seed 0 takes dead leaves from to fit on."""


@dataclass
class Subject:
    """A trained model, the images to fit on, those to measure on, and what it says of them."""

    name: str
    model: object
    photographs: Tensor
    others: Tensor
    many: Tensor
    centres: Tensor
    shown: Tensor
    logits: Tensor
    target: Tensor
    solved: dict[int, object] = field(default_factory=dict)

    @cached_property
    def leaves(self) -> Tensor:
        """Dead leaves to fit on."""
        return open_images("dead-leaves", FITTED, LEAVES_SEED).load(self.model.spec)


def subject(name: str, reference: str, fit: str, test: str) -> Subject:
    """Open a model and its images."""
    model = load(reference, device="cpu")
    spec = model.spec
    centres = open_images(test, MOST).load(spec)
    shown = torch.cat([centres, *(random_crops(test, spec, seed) for seed in range(CROPS))])
    seen = [choice.load(spec) for choice in choices(fit)]
    logits, target = forward(model, shown)
    return Subject(name, model, *seen, centres, shown, logits, target)


def choices(folder: str) -> tuple[ImageSet, ImageSet, ImageSet]:
    """`FITTED` photographs, those of `perimetry run`; as many others; `MANY` of all."""
    every, first = open_images(folder, MOST), open_images(folder, FITTED)
    rest = [path for path in every.files if path not in first.files]
    return first, some(every, rest, FITTED, 1), some(every, every.files, MANY, 5)


def some(every: ImageSet, paths: Sequence[Path], count: int, seed: int) -> ImageSet:
    """A seeded choice of photographs."""
    picked = np.random.default_rng(seed).choice(len(paths), count, replace=False)
    files = tuple(paths[i] for i in sorted(picked))
    return replace(every, count=count, files=files, _cache={})


def random_crops(folder: str, spec, seed: int) -> Tensor:
    """One square of 60 to 95 % of the shorter side of each photograph, half of them mirrored."""
    rng = np.random.default_rng([seed, 1])
    found = []
    for path in open_images(folder, MOST).files:
        picture = Image.open(path).convert("RGB")
        side = min(picture.size) * rng.uniform(0.6, 0.95)
        left, top = (rng.uniform(0, length - side) for length in picture.size)
        box = (left, top, left + side, top + side)
        picture = picture.resize((spec.width, spec.height), Image.Resampling.BICUBIC, box=box)
        picture = ImageOps.mirror(picture) if rng.random() < 0.5 else picture
        found.append(torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255))
    return torch.stack(found).permute(0, 3, 1, 2)


def forward(model, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and targets."""
    with torch.no_grad():
        parts = [model.run(model.spec.prepare(c), logits=True) for c in images.split(16)]
    return torch.cat([p.logits for p in parts]), torch.cat([p.target for p in parts])


def recalibrated(case: Subject, padded):
    """Match the norms of `padded` to the original's on the photographs to fit on."""
    x = case.model.spec.prepare(case.photographs)
    match_norms(padded.module(), case.model.module(), x)
    return padded


def box(case: Subject, layers: int | None = None, share: float = 1.0):
    """`box` on the first `layers`, mixed with the original taps; norms recalibrated."""
    padded = case.model.padded("zero")
    boxed = case.model.padded("box").module()
    for layer in padded.treatment.layers[:layers]:
        taps = boxed.get_submodule(layer.name).weight
        blend(padded.module().get_submodule(layer.name), taps, share)
    return recalibrated(case, padded)


def blend(module, taps: Tensor, share: float) -> None:
    """Mix `taps` of the grown kernel into a module that was padded with zeros at the end."""
    size = module.weight.shape[2]
    with torch.no_grad():
        module.weight.mul_(1 - share).add_(share * taps[:, :, :size, :size])
        module.weight_columns.copy_(share * taps[:, :, :size, size:])
        module.weight_rows.copy_(share * taps[:, :, size:])


def scaled(case: Subject, layers: int | None = None):
    """Taps of each phase scaled to equal energy, kernels not grown; norms recalibrated."""
    padded = case.model.padded("zero")
    for layer in padded.treatment.layers[:layers]:
        weight = padded.module().get_submodule(layer.name).weight
        parts = [weight[:, :, a::2, b::2] for a in (0, 1) for b in (0, 1)]
        energy = torch.stack([part.square().sum() for part in parts])
        for part, own in zip(parts, energy, strict=True):
            part.mul_((energy.mean() / own).sqrt())
    return recalibrated(case, padded)


def fitted(case: Subject, images: Tensor, *, norms: bool = False):
    """The fill `fit` on `images`; each is solved once."""
    key = images.data_ptr()
    if key not in case.solved:
        padded = case.model.padded("zero")

        def run(chunk: Tensor) -> Tensor:
            return padded.run(padded.spec.prepare(chunk)).target

        names = [layer.name for layer in padded.treatment.layers]
        Fit(padded.module(), names, run, images).solve()
        case.solved[key] = padded
    padded = copy.deepcopy(case.solved[key])
    return recalibrated(case, padded) if norms else padded


CONSTRUCTIONS: dict[str, Callable[[Subject], object]] = {
    "original": lambda case: case.model,
    "fit, photographs": lambda case: fitted(case, case.photographs),
    "fit, photographs, norms": lambda case: fitted(case, case.photographs, norms=True),
    "fit, other photographs": lambda case: fitted(case, case.others),
    "fit, 72 photographs": lambda case: fitted(case, case.many),
    "fit, dead leaves": lambda case: fitted(case, case.leaves),
    "box, norms": lambda case: recalibrated(case, case.model.padded("box")),
    "box on two layers, norms": lambda case: box(case, 2),
    "taps scaled on two layers, norms": lambda case: scaled(case, 2),
    "box 0.5 on two layers, norms": lambda case: box(case, 2, 0.5),
    "box": lambda case: case.model.padded("box"),
}
