"""Answers that follow from a formula: windows, paths, stacks, single layers, planted truths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.model import Model
from perimetry.adapters.pytorch.model import wrap
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import path_count_map
from perimetry.suites.architecture.receptive_field import receptive_field
from perimetry.suites.architecture.windows import LayerWindow
from perimetry.suites.base import Array, Context, Measurement, Probe
from perimetry.suites.deadpixel.suite import DEADPIXEL
from perimetry.suites.erf.suite import Erf
from perimetry.suites.images import open_images
from perimetry.suites.measuring.gradients import gradient_maps
from perimetry.suites.structure import measure_skeleton

from .check import ReferenceCheck
from .nets import BlindCorner, averaging_stack

PERONE = "Perone 2017, The effective receptive field on CNNs"


ODENA = "Odena et al., Distill 2016; Kim et al. 2023"


LUO = "Luo et al., NIPS 2016, section 2"


CLOSED = "closed form"


PLANTED = "Planted truths"


RANDOM_IMAGES = 64


def checks(*, quick: bool) -> Iterator[ReferenceCheck]:
    """Compare all known answers that need no architecture of the zoo."""
    yield from _windows()
    yield from _paths()
    yield from _stacks((5,) if quick else (1, 5, 9, 20))
    yield from _single_convolutions(quick=quick)
    yield from _planted()


def _windows() -> Iterator[ReferenceCheck]:
    group, how = "Window counts", "Window(kernel, stride).coverage()"
    for kernel, counts in ((1, (0, 1)), (3, (1, 2)), (7, (3, 4)), (2, (1, 1)), (8, (4, 4))):
        ours = tuple(sorted(float(n) for n in LayerWindow(kernel=kernel, stride=2).coverage()))
        yield ReferenceCheck(
            group, f"windows over each phase, k = {kernel}, s = 2", ODENA, counts, ours, how
        )
    uneven = [
        (k, s)
        for k in range(1, 17)
        for s in range(1, 9)
        if (len(set(LayerWindow(kernel=k, stride=s).coverage())) == 1) != (k % s == 0)
    ]
    what = "(k, s) up to (16, 8) whose counts are not equal exactly when s divides k"
    yield ReferenceCheck(group, what, ODENA, 0.0, float(len(uneven)), how)


def _paths() -> Iterator[ReferenceCheck]:
    group, how = "Path counts", "path_count_map(skeleton, size)"
    ours = _root_profile(averaging_stack(1), 5)
    what = "paths from a 5 x 5 image into a 3 x 3 layer, per axis"
    yield ReferenceCheck(group, what, PERONE, (1.0, 2.0, 3.0, 2.0, 1.0), ours, how)
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3), nn.MaxPool2d(3, 2, 1))
    model = wrap(stem, spec=InputSpec(128, 128), device="cpu")
    for title, net, counts in (
        ("convolution 7/2, pool 3/2", model, (5.0, 6.0, 4.0, 6.0)),
        ("the same, kernels padded", model.padded("box"), (8.0, 8.0, 8.0, 8.0)),
    ):
        along = _root_profile(net.skeleton(), 128, channels=3)[60:64]
        turned = (along[i:] + along[:i] for i in range(4))  # any phase may come first
        ours = next((t for t in turned if t == counts), along)
        what = f"stem of a ResNet ({title}): paths per axis over one period"
        yield ReferenceCheck(group, what, "Kim et al. 2023, section 3", counts, ours, how)


def _root_profile(skeleton: nn.Module, side: int, *, channels: int = 1) -> tuple[float, ...]:
    """Paths along one axis: the root of the diagonal of a separable map."""

    counts = path_count_map(skeleton, (channels, side, side))[0].numpy()
    return tuple(float(n) for n in np.sqrt(np.diag(counts)))


def _stacks(depths: tuple[int, ...]) -> Iterator[ReferenceCheck]:
    group = "Stacks of 3 x 3 layers of equal weights"
    for depth in depths:
        found, field = stack_erf(averaging_stack(depth), depth)
        how = "ERF.measure(...), protocol luo2016"
        ones = _power_of_ones(depth)
        row = found.maps["erf"][depth, : len(ones)]
        miss = float(np.abs(row / row.sum() - ones / ones.sum()).max())
        what = (
            f"depth {depth}: largest error of the map against the {depth}-fold convolution of 1,1,1"
        )
        yield ReferenceCheck(group, what, LUO, 0.0, miss, how, tolerance=1e-6)
        what = f"depth {depth}: standard deviation per axis, root of 2n/3"
        expected = float(np.sqrt(2 * depth / 3))
        yield ReferenceCheck(
            group, what, LUO, expected, value(found, "radius") / 2**0.5, how, tolerance=1e-4
        )
        what = f"depth {depth}: theoretical receptive field, 2n + 1"
        yield ReferenceCheck(
            group, what, CLOSED, 2.0 * depth + 1, field, "receptive_field(skeleton, x)"
        )
        if depth == 5:
            what = "depth 5: root of the number of pixels above 4.55 % of the peak"
            yield ReferenceCheck(
                group, what, CLOSED, 8.31, value(found, "luo_size"), how, tolerance=0.005
            )


def value(found: Measurement, name: str) -> float:
    """A metric's value; NaN, which agrees with nothing, where it is missing."""
    estimate = found.metrics[name].value
    return float("nan") if estimate is None else estimate


def _power_of_ones(depth: int) -> Array:
    line: Array = np.ones(1)
    for _ in range(depth):
        line = np.convolve(line, np.ones(3))
    return line


def stack_erf(module: nn.Module, depth: int) -> tuple[Measurement, float]:
    """ERF of the one unit of an unpadded one-channel stack, and its theoretical size.

    A target needs a grid: the image is 2 pixels larger than a unit's field, and the unit the first.
    """

    side = 2 * depth + 3
    spec = InputSpec(side, side, channels=1, mean=(0.0,), std=(1.0,))
    found = measured_value(module, Erf(unit=(0, 0)), "luo2016", spec, images=1)
    model = wrapped(module, spec)
    field = receptive_field(model.skeleton(), torch.ones(1, 1, side, side))
    return found, field.size[0]


def wrapped(module: nn.Module, spec: InputSpec) -> Model:
    """The module as a model on the CPU, in double precision."""

    return wrap(module, spec=spec, device="cpu", precision="float64")


def measured_value(
    module: nn.Module, suite: Any, protocol: str, spec: InputSpec, *, images: int, seed: int = 0
) -> Measurement:
    """What `suite` says of `module` on the built-in images."""

    model = wrapped(module, spec)
    batch = open_images("dead-leaves", images, seed).load(spec)
    probes: list[Probe] = suite.probes(model, protocol, seed)
    maps = gradient_maps(model, batch, probes).maps
    found: Measurement = suite.measure(model, protocol, maps, Context(batch, seed=seed))
    return found


def _single_convolutions(*, quick: bool) -> Iterator[ReferenceCheck]:
    """Weakest phase of one strided layer: smallest over mean coverage, predicted and measured."""

    group = "One strided convolution: weakest phase"
    for kernel, weakest in ((1, 0.0), (2, 1.0), (3, 1 / 2.25), (4, 1.0), (7, 9 / 12.25)):
        conv = nn.Conv2d(3, 4, kernel, 2, kernel // 2)
        ours = value(measure_skeleton(light_copy(conv), (3, 96, 96)), "weakest")
        what = f"k = {kernel}, s = 2, expected over random weights"
        yield ReferenceCheck(
            group, what, CLOSED, weakest, ours, "measure_skeleton(...)", tolerance=1e-9
        )
    for kernel, weakest in ((3, 1 / 2.25), (7, 9 / 12.25))[: 1 if quick else 2]:
        yield _measured_convolution(group, kernel, weakest)


def _measured_convolution(group: str, kernel: int, weakest: float) -> ReferenceCheck:
    """Gradients of a layer of +1 and -1, whose taps all carry the same energy."""

    generator = torch.Generator().manual_seed(kernel)
    conv = nn.Conv2d(3, 64, kernel, 2, kernel // 2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.rand(conv.weight.shape, generator=generator).sub(0.5).sign())
    found = measured_value(conv, DEADPIXEL, "energy", InputSpec(64, 64), images=RANDOM_IMAGES)
    estimate = found.metrics["weakest"]
    low, high = estimate.low or 0.0, estimate.high or 0.0
    what = f"k = {kernel}, s = 2, measured by gradients (tolerance: half the 95 % interval)"
    ours, slack = value(found, "weakest"), (high - low) / 2
    return ReferenceCheck(
        group, what, CLOSED, weakest, ours, "DEADPIXEL.measure(...)", tolerance=slack
    )


def _planted() -> Iterator[ReferenceCheck]:
    yield from (_dead_tap(), _identity(), _constant(), _blind_corner())


def _two_by_two(fill: float) -> nn.Conv2d:
    """A 2 x 2 layer of stride 2, all taps `fill`."""

    conv = nn.Conv2d(3, 8, 2, 2, bias=False)
    nn.init.constant_(conv.weight, fill)
    return conv


def _audited(module: nn.Module) -> Measurement:
    return measured_value(module, DEADPIXEL, "energy", InputSpec(64, 64), images=8)


def _dead_tap() -> ReferenceCheck:
    conv = _two_by_two(1.0)
    with torch.no_grad():
        conv.weight[:, :, 1, 1] = 0.0
    found = _audited(conv)
    ours = (value(found, "weakest"), value(found, "dead@0.01"))
    what = "a 2 x 2 layer with one tap 0: weakest, dead@0.01"
    return ReferenceCheck(PLANTED, what, CLOSED, (0.0, 0.25), ours, "DEADPIXEL.measure(...)")


def _identity() -> ReferenceCheck:
    found = _audited(nn.Identity())
    return ReferenceCheck(
        PLANTED,
        "the identity: why it has no weakest phase; relL1",
        CLOSED,
        "the target has stride 1: there are no phases; 0",
        f"{found.metrics['weakest'].reason}; {value(found, 'relL1'):g}",
        "DEADPIXEL.measure(...)",
    )


def _constant() -> ReferenceCheck:
    try:
        said = f"weakest {value(_audited(_two_by_two(0.0)), 'weakest')}"
    except NotApplicableError as error:
        said = str(error).rpartition(": ")[2]
    return ReferenceCheck(
        PLANTED,
        "a constant network",
        CLOSED,
        "the target is constant, or changes in steps",
        said,
        "gradient_maps",
    )


def _blind_corner() -> ReferenceCheck:
    seen = _audited(BlindCorner(16, _two_by_two(1.0))).maps["sensitivity"] > 0
    ours = (float(seen[:16, :16].mean()), float(seen[16:].mean()), float(seen[:, 16:].mean()))
    what = (
        "a corner of 16 x 16 pixels that is multiplied by 0: share seen in it, below it, beside it"
    )
    return ReferenceCheck(PLANTED, what, CLOSED, (0.0, 1.0, 1.0), ours, "DEADPIXEL.measure(...)")
