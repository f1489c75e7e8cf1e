"""Make this folder: `python results/fit/publish.py FIT_FOLDER TEST_FOLDER NAME=REF ...`.

FIT_FOLDER holds the photographs that may be fitted on, TEST_FOLDER others, for measuring; README.md
says which. REF is what `perimetry run` takes, such as mobilenetv2=timm:mobilenetv2_100@FILE.
A row goes to frontier.csv as soon as it is there, and rows that are there are not made again; then
frontier.png and the table in README.md are written. `--minutes N` begins no row after N minutes.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from tabulate import tabulate
from torch import Tensor

from perimetry.adapters.load import load
from perimetry.adapters.padding_fit import Fit
from perimetry.adapters.weights import match_norms
from perimetry.suites.deadpixel import DEADPIXEL
from perimetry.suites.gradients import gradient_maps
from perimetry.suites.images import open_images
from perimetry.suites.statistics import bootstrap
from perimetry.suites.suite import Context

HERE = Path(__file__).parent
TABLE = HERE / "frontier.csv"
MARK = "<!-- table -->"
FITTED = 24
"""Photographs, or dead leaves, that a construction may see."""
CROPS = 2
"""Random crops of each test photograph, beside the central one, for agreement."""
LEAVES_SEED = 10_007


@dataclass
class Subject:
    """A trained model, the images to fit on, those to measure on, and what it says of them."""

    name: str
    model: object
    photographs: Tensor
    centres: Tensor
    shown: Tensor
    logits: Tensor
    target: Tensor
    solved: dict[tuple[int, float], object] = field(default_factory=dict)

    @cached_property
    def leaves(self) -> Tensor:
        """Dead leaves to fit on."""
        return open_images("dead-leaves", FITTED, LEAVES_SEED).load(self.model.spec)


def subject(name: str, reference: str, fit: str, test: str) -> Subject:
    """Open a model and its images."""
    model = load(reference, device="cpu")
    spec = model.spec
    centres = open_images(test, 10_000).load(spec)
    shown = torch.cat([centres, *(random_crops(test, spec, seed) for seed in range(CROPS))])
    photographs = open_images(fit, FITTED).load(spec)
    logits, target = forward(model, shown)
    return Subject(name, model, photographs, centres, shown, logits, target)


def random_crops(folder: str, spec, seed: int) -> Tensor:
    """One square of 60 to 95 % of the shorter side of each photograph, half of them mirrored."""
    rng = np.random.default_rng([seed, 1])
    found = []
    for path in open_images(folder, 10_000).files:
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


def measure(case: Subject, twin) -> dict[str, float]:
    """Agreement and cosine on all test crops, dead-pixel metrics on the central ones."""
    logits, target = forward(twin, case.shown)
    same = (logits.argmax(1) == case.logits.argmax(1)).double().view(CROPS + 1, -1).mean(0)
    draws = bootstrap(len(same), 1000, 0)
    agreement = draws.estimate(draws.whole @ same.numpy(), low=0.0, high=1.0)
    cosine = F.cosine_similarity(target.flatten(1), case.target.flatten(1)).mean()
    probes = DEADPIXEL.probes(twin, "energy", 0)
    maps = gradient_maps(twin, case.centres, probes, batch=9).maps
    context = Context(case.centres, 0, 9, 200, None)
    found = DEADPIXEL.measure(twin, "energy", maps, context).metrics
    row = {
        "agreement": agreement.value,
        "agreement_low": agreement.low,
        "agreement_high": agreement.high,
        "cosine": float(cosine),
        "imbalance": found["imbalance"].value,
        "imbalance_low": found["imbalance"].low,
        "imbalance_high": found["imbalance"].high,
        "weakest": found["weakest"].value,
    }
    periods = {f"by_period_{p}": found[f"by_period_{p}"].value for p in (2, 4, 8, 16, 32)}
    return row | periods


def recalibrated(case: Subject, twin):
    """Match the norms of `twin` to the original's on the photographs to fit on."""
    x = case.model.spec.prepare(case.photographs)
    match_norms(twin.module(), case.model.module(), x)
    return twin


def box(case: Subject, layers: int | None = None, share: float = 1.0):
    """`box` on the first `layers`, mixed with the original taps; norms recalibrated."""
    twin = case.model.padded("zero")
    boxed = case.model.padded("box").module()
    for layer in twin.treatment.layers[:layers]:
        taps = boxed.get_submodule(layer.name).weight
        blend(twin.module().get_submodule(layer.name), taps, share)
    return recalibrated(case, twin)


def blend(module, taps: Tensor, share: float) -> None:
    """Mix `taps` of the grown kernel into a module that was padded with zeros at the end."""
    size = module.weight.shape[2]
    with torch.no_grad():
        module.weight.mul_(1 - share).add_(share * taps[:, :, :size, :size])
        module.weight_columns.copy_(share * taps[:, :, :size, size:])
        module.weight_rows.copy_(share * taps[:, :, size:])


def scaled(case: Subject, layers: int | None = None):
    """Taps of each phase scaled to equal energy, kernels not grown; norms recalibrated."""
    twin = case.model.padded("zero")
    for layer in twin.treatment.layers[:layers]:
        weight = twin.module().get_submodule(layer.name).weight
        parts = [weight[:, :, a::2, b::2] for a in (0, 1) for b in (0, 1)]
        energy = torch.stack([part.square().sum() for part in parts])
        for part, own in zip(parts, energy, strict=True):
            part.mul_((energy.mean() / own).sqrt())
    return recalibrated(case, twin)


def fitted(case: Subject, images: Tensor, strength: float = 1.0, *, norms: bool = False):
    """The fill `fit` on `images`; each is solved once."""
    key = (images.data_ptr(), strength)
    if key not in case.solved:
        twin = case.model.padded("zero")

        def run(chunk: Tensor) -> Tensor:
            return twin.run(twin.spec.prepare(chunk)).target

        names = [layer.name for layer in twin.treatment.layers]
        Fit(twin.module(), names, run, images, strength=strength).solve()
        case.solved[key] = twin
    twin = copy.deepcopy(case.solved[key])
    return recalibrated(case, twin) if norms else twin


CONSTRUCTIONS: dict[str, Callable[[Subject], object]] = {
    "original": lambda case: case.model,
    "fit, photographs": lambda case: fitted(case, case.photographs),
    "box, norms": lambda case: recalibrated(case, case.model.padded("box")),
    "box on two layers, norms": lambda case: box(case, 2),
    "taps scaled on two layers, norms": lambda case: scaled(case, 2),
    "box 0.5 on two layers, norms": lambda case: box(case, 2, 0.5),
    "box": lambda case: case.model.padded("box"),
    "fit, dead leaves": lambda case: fitted(case, case.leaves),
    "fit 0.75, photographs": lambda case: fitted(case, case.photographs, 0.75),
    "fit, photographs, norms": lambda case: fitted(case, case.photographs, norms=True),
}


def rows_of(case: Subject, done: pd.DataFrame, until: float) -> None:
    """Measure what is not in the table yet, appending row by row."""
    held = set(zip(done.get("model", []), done.get("construction", []), strict=True))
    for label, construct in CONSTRUCTIONS.items():
        if (case.name, label) in held or time.monotonic() > until:
            continue
        begun = time.monotonic()
        twin = construct(case)
        made = time.monotonic() - begun
        row = {"model": case.name, "construction": label, **measure(case, twin)}
        row |= {"fit_s": round(made, 1), "photographs": len(case.centres)}
        pd.DataFrame([row]).round(5).to_csv(TABLE, mode="a", header=not TABLE.exists(), index=False)


def read_table() -> pd.DataFrame:
    """The rows that are there."""
    return pd.read_csv(TABLE) if TABLE.exists() else pd.DataFrame()


def draw(table: pd.DataFrame) -> None:
    """Imbalance against agreement, a panel for each model; the goal is the shaded corner."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(table["model"]))
    figure, axes = plt.subplots(1, len(names), figsize=(5.2 * len(names), 4.6), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        rows = table[table["model"] == name]
        whole = rows[rows["construction"] == "original"]["imbalance"].iloc[0]
        axis.axvspan(0, whole / 2, ymin=0, color="0.93")
        axis.axhline(0.95, color="0.6", lw=0.8, ls="--")
        for number, row in enumerate(rows.itertuples(), 1):
            fit = row.construction.startswith("fit")
            shade = "tab:red" if fit else "tab:blue"
            x, y = row.imbalance, row.agreement
            spread_x = [[x - row.imbalance_low], [row.imbalance_high - x]]
            spread_y = [[max(0, y - row.agreement_low)], [max(0, row.agreement_high - y)]]
            axis.errorbar(x, y, spread_y, spread_x, fmt="o", color=shade, ms=4, lw=0.8)
            axis.annotate(str(number), (x, y), xytext=(4, 4), textcoords="offset points", size=8)
        axis.set(title=name, xlabel="imbalance", ylim=(None, 1.02), xlim=(0, None))
    axes[0][0].set_ylabel("top-1 agreement with the original")
    figure.tight_layout()
    figure.savefig(HERE / "frontier.png", dpi=110)


def write(table: pd.DataFrame) -> None:
    """Put the table between the marks of README.md."""
    rows = []
    for _, own in table.groupby("model", sort=False):
        whole = own[own["construction"] == "original"]["imbalance"].iloc[0]
        for number, row in enumerate(own.itertuples(), 1):
            agreement = f"{row.agreement:.3f} [{row.agreement_low:.3f}, {row.agreement_high:.3f}]"
            imbalance = f"{row.imbalance:.3f} [{row.imbalance_low:.3f}, {row.imbalance_high:.3f}]"
            reached = row.imbalance <= whole / 2 and row.agreement >= 0.95
            rows.append(
                (
                    *(row.model, number, row.construction, imbalance),
                    *(f"{row.imbalance / whole:.2f}", f"{row.weakest:.2f}", agreement),
                    *(f"{row.cosine:.3f}", "yes" if reached else ""),
                )
            )
    heads = ("model", "no.", "construction", "imbalance", "of original", "weakest")
    heads += ("agreement", "cosine", "goal")
    text = tabulate(rows, heads, tablefmt="github", disable_numparse=True)
    readme = HERE / "README.md"
    before, _, after = readme.read_text().split(MARK)
    readme.write_text(f"{before}{MARK}\n\n{text}\n\n{MARK}{after}")


def main() -> None:
    """Measure, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fit")
    parser.add_argument("test")
    parser.add_argument("models", nargs="*", metavar="NAME=REF")
    parser.add_argument("--minutes", type=float, default=1e9)
    given = parser.parse_args()
    until = time.monotonic() + 60 * given.minutes
    for text in given.models:
        name, _, reference = text.partition("=")
        rows_of(subject(name, reference, given.fit, given.test), read_table(), until)
    table = read_table()
    order = {label: place for place, label in enumerate(CONSTRUCTIONS)}
    table = table.sort_values("construction", key=lambda c: c.map(order), kind="stable")
    draw(table)
    write(table)


if __name__ == "__main__":
    main()
