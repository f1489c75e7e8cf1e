"""Relations published by Luo et al., Alsallakh et al. (Mind the Pad) and Kim et al."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.model import Model, Outputs
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.adapters.treatment import Fill
from perimetry.suites.architecture.propagate import energy_map, path_count_map
from perimetry.suites.architecture.receptive_field import even_sizes, layer_table
from perimetry.suites.base import Array, Context, Probe
from perimetry.suites.deadpixel.suite import DEADPIXEL
from perimetry.suites.erf.suite import Erf
from perimetry.suites.measuring.gradients import gradient_maps, require

from .check import ReferenceCheck
from .known import measured_value, stack_erf, value, wrapped
from .nets import averaging_stack, linear_resnet50

LUO = "Luo et al., NIPS 2016, sections 2 and 4.1"


EXACT = "exact computation of Luo et al.'s law"


PAD = "Alsallakh et al., ICLR 2021, section 4"


KIM = "Kim et al. 2023, sections 3 and 4"


DEPTHS = (5, 10, 20, 40, 50)


SAMPLED_DEPTHS = (5, 10, 20, 40)


SAMPLED_CHANNELS, SAMPLED_SEEDS = 8, 16


THIRD_DECIMAL = 0.0006


VISIBLE = 0.01
"""Share of the mean from which on a map counts as unlike its mirror image."""


def checks(*, quick: bool) -> Iterator[ReferenceCheck]:
    """Compare what these papers state about networks that need no trained weights."""
    yield from _square_root_law(quick=quick)
    yield from _mind_the_pad(quick=quick)
    yield from _linear_resnet()
    yield from _closed_forms()
    yield from _unchanged_sizes(quick=quick)


def _square_root_law(*, quick: bool) -> Iterator[ReferenceCheck]:
    """Log-log slopes of the ERF's size and of its share of the theoretical one over the depth."""
    group, how = "Square-root law of the ERF with depth", "energy_map(...), ERF.measure(...)"
    power = [_expected_power(depth) for depth in DEPTHS]
    root = [np.sqrt(m) for m in power]
    ones = [stack_erf(averaging_stack(d), d)[0].maps["erf"] for d in DEPTHS]
    for what, source, reference, maps, slack in (
        ("size, weights 1", EXACT, 0.486, ones, THIRD_DECIMAL),
        ("size, random weights, mean square", EXACT, 0.486, power, THIRD_DECIMAL),
        ("size, random weights, root mean square", EXACT, 0.534, root, THIRD_DECIMAL),
        ("size, random weights, root mean square", LUO, 0.56, root, 0.03),
    ):
        ours = _slope(DEPTHS, [_read(m, "luo_size") for m in maps])
        yield ReferenceCheck(
            group, f"{what}: slope, depths {DEPTHS}", source, reference, ours, how, slack
        )
    spread = [_read(m, "radius") for m in power]
    what = f"second-moment radius, mean square: slope, depths {DEPTHS}"
    yield ReferenceCheck(group, what, EXACT, 0.5, _slope(DEPTHS, spread), how, tolerance=1e-6)
    what = f"size over theoretical size, root mean square: slope, depths {DEPTHS}"
    share = [_read(m, "erf_trf") for m in root]
    yield ReferenceCheck(group, what, LUO, -0.43, _slope(DEPTHS, share), how, tolerance=0.01)
    if not quick:
        yield from _slow_slopes(group, how)


def _slow_slopes(group: str, how: str) -> Iterator[ReferenceCheck]:
    """The law over every depth, and the exact slope against that of sampled gradients."""
    every = range(5, 51)
    power = {depth: _expected_power(depth) for depth in every}
    for what, maps in (
        ("weights 1 or mean square", power.values()),
        ("root mean square", map(np.sqrt, power.values())),
    ):
        ours = _slope(every, [_read(m, "luo_size") for m in maps])
        what = f"size, {what}: slope, every depth from 5 to 50"
        yield ReferenceCheck(group, what, LUO, 0.5, ours, how, tolerance=0.02)
    root = [np.sqrt(power[depth]) for depth in SAMPLED_DEPTHS]
    sampled = [np.sqrt(_sampled_power(depth)) for depth in SAMPLED_DEPTHS]
    exact, ours = (
        _slope(SAMPLED_DEPTHS, [_read(m, "luo_size") for m in maps]) for maps in (root, sampled)
    )
    what = f"root mean square of sampled gradients: slope, depths {SAMPLED_DEPTHS}"
    yield ReferenceCheck(group, what, "energy_map's slope", exact, ours, "autograd", tolerance=0.03)


def _slope(depths: Sequence[int], sizes: Sequence[float]) -> float:
    """Slope of the line through (log depth, log size), by least squares."""
    x, y = np.log(depths, dtype=np.float64), np.log(sizes, dtype=np.float64)
    return float(np.polyfit(x, y, 1)[0])


def _expected_power(depth: int) -> Array:
    """Expected squared gradient of one unit of a random stack, over all pixels that it sees."""

    side = 2 * depth + 1
    power: Array = energy_map(light_copy(averaging_stack(depth)), (1, side, side))[0].numpy()
    return np.pad(power, (0, 2))


def _sampled_power(depth: int) -> Array:
    """Mean squared gradient of one unit of stacks of normal weights, over seeds and channels."""

    side = 2 * depth + 1
    total = np.zeros((side, side))
    for seed in range(SAMPLED_SEEDS):
        net = averaging_stack(depth, channels=SAMPLED_CHANNELS)
        generator = torch.Generator().manual_seed(seed)
        for weight in net.parameters():
            nn.init.normal_(weight, std=(9 * SAMPLED_CHANNELS) ** -0.5, generator=generator)
        x = torch.zeros(1, SAMPLED_CHANNELS, side, side, requires_grad=True)
        for unit in net(x).flatten():
            (gradient,) = torch.autograd.grad(unit, x, retain_graph=True)
            total += gradient[0].square().sum(0).double().numpy()
    return np.pad(total, (0, 2))


def _read(power: Array, metric: str) -> float:
    """A metric of `erf` on the map (side, side) of the first unit of a stack of 3 x 3 layers."""

    side = len(power)
    spec = InputSpec(side, side, channels=1, mean=(0.0,), std=(1.0,))
    model, suite = wrapped(averaging_stack((side - 3) // 2), spec), Erf(unit=(0, 0))
    maps = {probe.name: power[None] for probe in suite.probes(model, "luo2016", 0)}
    context = Context(torch.empty(0), draws=1)
    return value(suite.measure(model, "luo2016", maps, context), metric)


def _mind_the_pad(*, quick: bool) -> Iterator[ReferenceCheck]:
    """Odd kernels are even at 32a + 1 and lopsided at 32a; padded kernels the other way round."""
    group = "Uneven padding: input sizes 32a and 32a + 1"

    for name in ("resnet18",) if quick else ("resnet18", "resnet50"):
        fills: tuple[tuple[Fill, int], ...] = (("none", 1), ("box", 0))
        for fill, good in fills:
            kernels = f"{name}, {'odd' if fill == 'none' else 'padded'} kernels"
            found = even_sizes(
                layer_table(_skeleton(name, 224, fill), _ones(224)), (224, 224), (48, 48)
            )
            sizes = tuple(
                float(32 * a + good) for a in range(5, 9) if abs(32 * a + good - 224) <= 48
            )
            ours = tuple(map(float, found[0]))
            what = f"{kernels}: sizes from 176 to 272 that leave no padding unread"
            yield ReferenceCheck(group, what, PAD, sizes, ours, "even_sizes(trace(...))")
            for side in (224, 225, 256, 257):
                yield _mirrored(group, kernels, _skeleton(name, side, fill), side, good)


def _mirrored(
    group: str, kernels: str, skeleton: nn.Module, side: int, good: int
) -> ReferenceCheck:
    """Whether the map of paths equals its mirror image, left to right and top to bottom."""

    paths = path_count_map(skeleton, (3, side, side))[0].numpy()
    flips = (paths[::-1], paths[:, ::-1])
    ours = max(float(np.abs(paths - flip).mean() / paths.mean()) for flip in flips)
    how = "path_count_map(...)"
    if side % 32 == good:
        what = f"{kernels} at {side}: map of paths less its mirror image, over the mean"
        return ReferenceCheck(group, what, PAD, 0.0, ours, how, tolerance=1e-9)
    what = f"{kernels} at {side}: the same, lopsided"
    return ReferenceCheck(group, what, PAD, VISIBLE, ours, how, relation=">=")


def _skeleton(name: str, side: int, fill: Fill) -> nn.Module:
    return _opened(name, side, fill).skeleton()


def _opened(name: str, side: int, fill: Fill) -> Model:
    model = load(f"timm:{name}@init", device="cpu", size=(side, side))
    return model if fill == "none" else model.padded(fill)


def _ones(side: int) -> Tensor:
    return torch.ones(1, 3, side, side)


def _linear_resnet() -> Iterator[ReferenceCheck]:
    """Kim et al.'s difference metrics of the linear ResNet-50, and its symmetry."""

    spec = InputSpec(224, 224, channels=1, mean=(0.0,), std=(1.0,))
    for kernels, treated, first, second in (
        ("odd kernels", False, 0.2863, 0.5746),
        ("kernel padding", True, 0.0102, 0.0199),
    ):
        model = wrapped(linear_resnet50(treated=treated), spec)
        images = _ones(224)
        (own,) = DEADPIXEL.probes(model, "energy", 0)
        maps = gradient_maps(model, images, [Probe(own.name, _total, _as_it_is)]).maps
        found = DEADPIXEL.measure(model, "energy", maps, Context(images, draws=1))
        ours = (value(found, "relL1"), value(found, "relL2"))
        what = f"linear ResNet-50 at 224, {kernels}: relL1, relL2"
        how = "gradient_maps, DEADPIXEL.measure"
        yield ReferenceCheck(
            "Kernel padding", what, KIM, (first, second), ours, how, tolerance=5e-5
        )
        found_map = maps[own.name][0, 0]
        ours_side = float(np.abs(found_map - found_map[:, ::-1]).mean() / found_map.mean())
        what = f"linear ResNet-50 at 224, {kernels}: gradient less its mirror image, over the mean"
        yield ReferenceCheck(
            "Kernel padding",
            what,
            KIM,
            0.0 if treated else VISIBLE,
            ours_side,
            "gradient_maps",
            tolerance=1e-6 if treated else 0.0,
            relation="=" if treated else ">=",
        )


def _total(outputs: Outputs, _indices: Sequence[int]) -> Tensor:
    return require(outputs.target, "target").sum()


def _as_it_is(gradient: Tensor) -> Tensor:
    return gradient


def _closed_forms() -> Iterator[ReferenceCheck]:
    """`kim2023` on linear layers: mean over units and channels, ReLU, scaled to sum 1."""

    conv = nn.Conv2d(3, 4, 5, 2, bias=False)
    generator = torch.Generator().manual_seed(0)
    nn.init.normal_(conv.weight, generator=generator)
    found = measured_value(conv, Erf(unit=(3, 4)), "kim2023", InputSpec(32, 32), images=2).maps[
        "erf"
    ]
    taps = conv.weight.detach().double().mean((0, 1)).clamp(min=0).numpy()
    expected = np.zeros((32, 32))
    expected[6:11, 8:13] = taps / taps.sum()
    miss = float(np.abs(found - expected).max())
    what = "kim2023 of a random 5 x 5 layer: largest error against the ReLU of its mean kernel"
    yield ReferenceCheck("Kernel padding", what, KIM, 0.0, miss, "ERF.measure(...)", tolerance=1e-6)


def _unchanged_sizes(*, quick: bool) -> Iterator[ReferenceCheck]:
    """Kernel padding leaves the output size of every layer alone."""

    names = (
        "resnet50",
        "mobilenetv3_small_100",
        "densenet121",
        "regnety_004",
        "efficientnet_lite0",
    )
    for name in names[:2] if quick else names:
        changed = 0
        for side in (224, 225):
            before, after = (
                [
                    layer.output_size
                    for layer in layer_table(_skeleton(name, side, fill), _ones(side))
                ]
                for fill in FILLS
            )
            changed += sum(a != b for a, b in zip(before, after, strict=True))
        what = f"{name} at 224 and 225: layers whose output size kernel padding changes"
        yield ReferenceCheck(
            "Kernel padding", what, KIM, 0.0, float(changed), "trace(model.padded('box'))"
        )


FILLS: tuple[Fill, Fill] = ("none", "box")
