"""The suites that are chosen by name: coverage of their intervals, on networks with planted truths.

Each plant is a network and a law of random images on which the metric has a closed form. The suite
measures it seed by seed; the coverage is the share of seeds whose 95 % interval holds that number.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.model import Model
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.base import Context, Suite
from perimetry.suites.frequency import Frequency
from perimetry.suites.halo.suite import Halo
from perimetry.suites.objects.suite import Objects
from perimetry.suites.output.suite import Output
from perimetry.suites.position.suite import Position
from perimetry.suites.shift.suite import Shift

from .check import ReferenceCheck
from .estimates import BAND, GOAL, SOURCE

GROUP = "Coverage of the suites that are chosen by name"

SEEDS, IMAGES = 200, 8


def checks(*, quick: bool) -> Iterator[ReferenceCheck]:
    """Compare the coverage of each suite's interval with the goal; `quick` takes two suites."""
    yield halo_coverage()
    yield frequency_coverage()
    if not quick:
        yield from output_coverage()
        yield from shift_coverage()
        yield from position_coverage()
        yield from objects_coverage()
        yield from cutouts_coverage()


def covered(
    suite: Suite,
    model: Model,
    metric: str,
    truth: float,
    *,
    images: Callable[..., torch.Tensor],
    share: bool = False,
    protocol: str | None = None,
) -> ReferenceCheck:
    """The share of seeds whose interval of `metric` holds `truth`, as a check.

    `images(rng, count)` draws the images of a seed (count, 3, height, width). The interval of a
    `share`, by Clopper and Pearson, may cover more often than it says. `protocol` is the suite's
    first one by default.
    """
    name = suite.name if protocol is None else f"{suite.name}:{protocol}"
    protocol = protocol or next(iter(suite.protocols))
    hits = []
    for seed in range(SEEDS):
        drawn = images(np.random.default_rng([seed, SEEDS]), IMAGES)
        context = Context(drawn, seed=seed, batch=IMAGES)
        found = suite.measure(model, protocol, _maps(suite, model, protocol, context), context)
        one = found.metrics[metric]
        assert one.low is not None, f"{metric}: {one.reason}"
        hits.append(one.low <= truth and (one.high is None or truth <= one.high))
    ours = float(np.mean(hits))
    return ReferenceCheck(
        GROUP,
        f"{name}.{metric} ({IMAGES} images, {SEEDS} seeds), true value {truth:.4g}",
        SOURCE,
        GOAL,
        ours,
        f"{suite.name.upper()}.measure(...)",
        tolerance=BAND + 2 * float(np.sqrt(GOAL * (1 - GOAL) / SEEDS)),
        relation=">=" if share else "=",
    )


def _maps(suite: Suite, model: Model, protocol: str, context: Context) -> Mapping[str, np.ndarray]:
    from perimetry.suites.measuring.gradients import gradient_maps

    probes = suite.probes(model, protocol, context.seed)
    if not probes:
        return {}
    return gradient_maps(model, context.images, probes, batch=context.batch).maps


def grey(module: nn.Module, height: int, width: int | None = None) -> Model:
    """A model of one channel whose input is the image itself, in double precision."""
    spec = InputSpec(height, width or height, channels=1, mean=(0.0,), std=(1.0,))
    return wrap(module.eval(), spec=spec, device="cpu", precision="float64")


def white_noise(side: int) -> Callable[..., torch.Tensor]:
    """Independent normal pixels, the same in all channels."""

    def draw(rng: np.random.Generator, count: int) -> torch.Tensor:
        pixels = torch.from_numpy(rng.standard_normal((count, 1, side, side)))
        return pixels.expand(-1, 3, -1, -1)

    return draw


def halo_coverage() -> ReferenceCheck:
    """The seam error of a 3 x 3 sum of white noise: by roots of the number of taps cut off."""
    side, tile = 12, 6
    taps = nn.Conv2d(1, 1, 3, 1, 1, bias=False)
    nn.init.ones_(taps.weight)

    def inside(place: int, first: int, end: int) -> int:
        return min(end, place + 2) - max(first, place - 1)

    lost = kept = 0.0
    for i in range(tile):  # the tile at the upper left; the others are its mirror images
        for j in range(tile):
            if max(i, j) == tile - 1:
                whole = inside(i, 0, side) * inside(j, 0, side)
                lost += (whole - inside(i, 0, tile) * inside(j, 0, tile)) ** 0.5
                kept += whole**0.5
    return covered(
        Halo(overlaps=(0, 1)),
        grey(taps, side),
        "edge_error",
        lost / kept,
        images=white_noise(side),
    )


def output_coverage() -> Iterator[ReferenceCheck]:
    """White noise behind a transposed 3 x 3 kernel of ones at stride 2, plus a planted pattern.

    A phase has 1, 2, 2 or 4 taps, which are its energy; in the last row and column one tap per
    axis is beyond the image. The pattern of height h adds h^2 to each energy.
    """
    height = 0.5
    taps = nn.ConvTranspose2d(1, 1, 3, 2, 1, 1)
    nn.init.ones_(taps.weight)
    nn.init.zeros_(taps.bias)  # type: ignore[arg-type]

    class Patterned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.taps = taps

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.taps(x)
            sign = (torch.arange(y.shape[2])[:, None] + torch.arange(y.shape[3])) % 2 * 2 - 1
            return y + height * sign

    side, energies = 16, np.array([1.0, 2.0, 2.0, 4.0])
    draw = white_noise(side)
    profile = energies / energies.mean()
    for metric, truth in (("weakest", profile.min()), ("imbalance", profile.std())):
        yield covered(Output(), grey(taps, side), metric, float(truth), images=draw)
    per_axis = (1 * side + 2 * side - 1) / (2 * side)
    truth = height / (per_axis**2 + height**2) ** 0.5
    yield covered(Output(), grey(Patterned(), side), "grid_amplitude", truth, images=draw)


def shift_coverage() -> Iterator[ReferenceCheck]:
    """Classes by the sign of one pixel, which its three neighbours have in 1 of 8 images.

    The map is a sum over 3 rows with zero padding. A circular shift by a row takes one tap from
    the row that comes to one border and gives one to the row that leaves the other; the row that
    goes around loses one and gains another. White noise makes sums normal, with the number of
    their taps for variance.
    """
    cell = nn.Conv2d(1, 1, 2, 2, bias=False)
    with torch.no_grad():
        cell.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))

    class Sign(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = self.cell(x)[:, :, 0, 0]
            return torch.cat([first, -first], 1)

    draw = white_noise(8)
    yield covered(Shift(), grey(Sign(), 8), "worst_circular", 1 / 8, images=draw, share=True)
    rows = nn.Conv2d(1, 1, (3, 1), 1, (1, 0), bias=False)
    nn.init.ones_(rows.weight)
    side = 8
    size = sum(n**0.5 for n in [2, *[3] * (side - 2), 2])
    moved = 2 * (1 + 1 + 2**0.5)  # of the moves (0, 1), (1, 0), (1, 1) two have a row
    yield covered(
        Shift(cell=2), grey(rows, side), "error_circular", moved / (3 * size), images=draw
    )


def frequency_coverage() -> ReferenceCheck:
    """A Laplacian of circular padding reacts to a wave by the square of 4 - 2 cos - 2 cos."""
    side = 16
    laplacian = nn.Conv2d(1, 1, 3, 1, 1, padding_mode="circular", bias=False)
    with torch.no_grad():
        laplacian.weight.copy_(torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]]))
    turns = 2 * np.pi * np.fft.fftfreq(side)
    power = (4 - 2 * np.cos(turns)[:, None] - 2 * np.cos(turns)) ** 2
    size = np.abs(np.fft.fftfreq(side))
    high = np.maximum(size[:, None], size) > 1 / 4 + 1e-9
    truth = float(power[high].sum() / power.sum())
    return covered(
        Frequency(stride=2), grey(laplacian, side), "above_nyquist", truth, images=white_noise(side)
    )


class Ramp(nn.Module):
    """White noise of variance 1 plus a ramp over the rows, of variance `variance` over the map."""

    def __init__(self, side: int, variance: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.conv.weight)
        ramp = torch.linspace(-1, 1, side, dtype=torch.float64)
        self.register_buffer("ramp", (ramp * (variance / ramp.square().mean()).sqrt())[:, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x) + self.ramp
        return y


def position_coverage() -> Iterator[ReferenceCheck]:
    """A ramp of variance V on noise of variance 1: a probe and position explain V / (1 + V).

    The noise that varies within a map of n units has the variance 1 - 1 / n.
    """
    side, variance = 12, 0.5
    model, draw = grey(Ramp(side, variance), side), white_noise(side)
    truth = variance / (1 + variance)
    yield covered(Position(), model, "row_r2", truth, images=draw)
    truth = variance / (1 - 1 / side**2 + variance)
    yield covered(Position(), model, "position_share", truth, images=draw)
    yield covered(Position(), grey(Ramp(side, 0.0), side), "position_share", 0.0, images=draw)


GAINS = (1.0, 0.4, 1.0, 1.0)
"""Planted sensitivity of the phases of a 2 x 2 cell, row by row."""


SIDE = 16


class Sum(nn.Module):
    """Two logits, plus and minus the sum of pixels times the gain of their phase, less `level`."""

    def __init__(self, level: float = 0.0) -> None:
        super().__init__()
        self.cell = nn.Conv2d(1, 1, 2, 2, bias=False)
        self.level = level
        with torch.no_grad():
            self.cell.weight.copy_(torch.tensor(GAINS).view(1, 1, 2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (batch, 2) of grey images."""
        total = self.cell(x).sum((2, 3)) - self.level
        return torch.cat([total, -total], 1)


def random_greys(rng: np.random.Generator, count: int) -> torch.Tensor:
    """Images of a grey from 0.1 to 0.4 each, with noise of deviation 0.05 on every pixel."""
    level = rng.uniform(0.1, 0.4, (count, 1, 1, 1))
    pixels = level + rng.normal(0, 0.05, (count, 1, SIDE, SIDE))
    return torch.from_numpy(pixels).expand(-1, 3, -1, -1)


def objects_coverage() -> Iterator[ReferenceCheck]:
    """A linear classifier whose logit weighs pixels by their phase, on images of random grey.

    A box of 1 or 2 pixels changes the logit by its contrast times the sum of the gains that it
    covers. The contrast cancels up to the pixels' own noise, of deviation 0.05.
    """
    suite = Objects(sizes=(1, 2), images=IMAGES)
    gains = np.array(GAINS)
    truths = {
        "phase_weakest": gains.min() / gains.mean(),
        "phase_spread": gains.std() / gains.mean(),
        "half_size": 2 ** ((0.5 - 0.25) / (1 - 0.25)),
    }
    for metric, truth in truths.items():
        yield covered(suite, grey(Sum(), SIDE), metric, float(truth), images=random_greys)


def cutouts_coverage() -> Iterator[ReferenceCheck]:
    """White squares on the same images, for the same classifier.

    At 1 pixel, the largest size up to the stride, a square changes the logit by the gain of its
    phase, at 4 by four times the sum of all gains. Its class is the top one where the image is
    lighter than the middle of the greys, which is so of half of them.
    """
    gains, small, large = np.array(GAINS), 1, 4
    start = gains.mean() / (large**2 / 4 * gains.sum())
    cells = (SIDE / 2) ** 2
    whole = large**2 / 4 * gains.sum()
    middle = 0.25 * (cells * gains.sum() - whole) + whole  # with the square on it
    truths = {
        "phase_weakest": gains.min() / gains.mean(),
        "phase_spread": gains.std() / gains.mean(),
        "half_size": large ** ((0.5 - start) / (1 - start)),
        "named_right": 0.5,
    }
    with tempfile.TemporaryDirectory() as folder:
        for number in range(IMAGES):
            picture = Image.new("RGBA", (6, 6))
            picture.paste((255, 255, 255, 255), (1, 1, 5, 5))
            picture.save(Path(folder) / f"square-{number}.png")
        classes = Path(folder) / "classes.csv"
        classes.write_text("square,0\n")
        suite = Objects(
            sizes=(small, large), cutouts=folder, classes=str(classes), cutouts_used=IMAGES
        )
        for metric, truth in truths.items():
            yield covered(
                suite,
                grey(Sum(middle), SIDE),
                metric,
                float(truth),
                images=random_greys,
                share=metric == "named_right",
                protocol="cutouts",
            )
