"""One forward pass and one backward pass per probe over the images, shared by all suites.

The batch size does not affect the results: every probe's scalar is a sum of per-image targets, and
every reduction works within one image. Random signs depend on the seed and on the image's index.

No step of a pass reads a number back from the device, so the next batch is sent and its signs are
drawn while a GPU still computes the previous one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import torch

from ...adapters.device import arrived, send
from ...adapters.errors import NotApplicableError
from .batching import Batching, weight_sets

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from ...adapters.feature_grid import Grid
    from ...adapters.input_spec import InputSpec
    from ...adapters.model import Model, ModelOfScales, Outputs
    from ..base import Array, Probe

T = TypeVar("T")

TARGET_STREAM = 1
"""Of the random signs of the target."""


@dataclass
class GradientMaps:
    """Reduced gradients by probe name, each (samples, ..., height, width).

    `batch` is the batch size at the end, `notes` say if it was lowered. `refused` holds, by probe
    name, the reason why a gradient cannot be used.
    """

    maps: dict[str, Array]
    batch: int
    notes: list[str] = field(default_factory=list)
    refused: dict[str, NotApplicableError] = field(default_factory=dict)

    def of(self, probes: Iterable[Probe]) -> dict[str, Array]:
        """The maps of `probes`. Raises `NotApplicableError` if one of them is refused."""
        for probe in probes:
            if probe.name in self.refused:
                raise self.refused[probe.name]
        return {probe.name: self.maps[probe.name] for probe in probes}


def gradient_maps(
    model: Model, images: Tensor, probes: Sequence[Probe], *, batch: int = 16
) -> GradientMaps:
    """The gradients of all `probes`, as `take_gradients` computes them.

    Raises `NotApplicableError` if a gradient is not finite, or zero everywhere.
    """
    found = take_gradients(model, images, probes, batch=batch)
    found.of(probes)
    return found


def take_gradients(
    model: Model, images: Tensor, probes: Sequence[Probe], *, batch: int = 16
) -> GradientMaps:
    """Compute the gradients of all `probes` on `images` (n, 3, height, width).

    A sample is one image. For a model of several weight sets it is one weight set: the mean over
    its images, which are every `members`-th of the set. The batch size is halved when memory runs
    out. Gradients that are not finite, or zero everywhere, are listed as refused.
    """
    (found,) = _take(
        model, images, [probes], lambda x, logits: [model.run(x, logits=logits)], batch
    )
    return found


def gradients_of_scales(
    model: Model,
    images: Tensor,
    wanted: Sequence[tuple[Grid, Sequence[Probe]]],
    *,
    batch: int,
) -> list[GradientMaps]:
    """As `take_gradients`, of each grid's probes: one forward pass for all grids.

    `model` is a `ModelOfScales`. There is one backward pass for each probe of each grid, since the
    sensitivity at one scale is a sum of squares that no pass for another scale gives.
    """
    grids, scaled = [grid for grid, _ in wanted], cast("ModelOfScales", model)
    groups = [probes for _, probes in wanted]
    return _take(
        model, images, groups, lambda x, logits: scaled.run_each(x, grids, logits=logits), batch
    )


Run = Callable[["Tensor", bool], "list[Outputs]"]
"""One pass over a batch, with logits or not: an output for each group of probes."""

Key = tuple[int, str]
"""Number of a group, and the name of a probe of it."""


def _take(
    model: Model, images: Tensor, groups: Sequence[Sequence[Probe]], run: Run, batch: int
) -> list[GradientMaps]:
    """The gradients of each group of probes."""
    for probes in groups:
        names = [p.name for p in probes]
        if len(set(names)) < len(names):
            raise ValueError(f"probe names must differ, got {names}")
    batching = Batching(batch, model.device)
    x = model.spec.prepare(images)
    samples: list[dict[Key, Tensor]] = []
    for own in weight_sets(model, x):
        maps = _member_maps(model, x, own, groups, run, batching)
        if model.members > 1:
            maps = {key: m.mean(0, keepdim=True) for key, m in maps.items()}
        samples.append(maps)
    return [
        _checked(number, probes, samples, GradientMaps({}, batching.size, batching.notes))
        for number, probes in enumerate(groups)
    ]


def _checked(
    number: int, probes: Sequence[Probe], samples: Sequence[dict[Key, Tensor]], result: GradientMaps
) -> GradientMaps:
    """`result` with the maps of group `number`, and the reasons why some cannot be used."""
    for probe in probes:
        stacked = torch.cat([s[number, probe.name] for s in samples]).double().numpy()
        why = _refusal(probe, stacked)
        if why is not None:
            result.refused[probe.name] = NotApplicableError(f"the gradient {probe.name!r} {why}")
        else:
            result.maps[probe.name] = stacked
    return result


def normalise_members(model: Model, samples: Array) -> Array:
    """Scale the samples (samples, height, width) of several weight sets to mean 1 each.

    The gain of a random network is arbitrary and has heavy tails: without scaling, a single one of
    sixteen initial states could dominate their mean. Samples that are images of one weight set are
    returned unchanged.
    """
    if model.members == 1:
        return samples
    scaled: Array = samples * member_factors(model, samples)
    return scaled


def member_factors(model: Model, samples: Array) -> Array:
    """Factors (samples, 1, 1) by which `normalise_members` scales; 1 for images.

    The factor of a weight set whose samples are all 0 is 0.
    """
    level = samples.mean((1, 2), keepdims=True)
    if model.members == 1:
        return np.ones_like(level)
    factors: Array = np.divide(1, level, out=np.zeros_like(level), where=level > 0)
    return factors


def _refusal(probe: Probe, maps: Array) -> str | None:
    """The reason why `maps` cannot be used, or None."""
    if not np.isfinite(maps).all():
        return f"is not finite on {float((~np.isfinite(maps)).mean()):.1%} of pixels"
    return None if maps.any() else f"is zero everywhere: {probe.silent}"


def _member_maps(
    model: Model,
    x: Tensor,
    own: Sequence[int],
    groups: Sequence[Sequence[Probe]],
    run: Run,
    batching: Batching,
) -> dict[Key, Tensor]:
    """Maps (images of this weight set, height, width) by group and probe, on the CPU."""
    parts = batching.run(
        len(own), lambda chunk: _batch_maps(model, x[list(own[chunk])], own[chunk], groups, run)
    )
    arrived(model.device)
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _batch_maps(
    model: Model, x: Tensor, indices: Sequence[int], groups: Sequence[Sequence[Probe]], run: Run
) -> dict[Key, Tensor]:
    """One forward pass, a backward pass per gradient; the copy to the CPU may be unfinished."""
    x = send(x, model.device).requires_grad_()
    outputs = run(x, any(p.logits for probes in groups for p in probes))
    shared: dict[Key, list[Probe]] = {}
    for number, probes in enumerate(groups):
        for probe in probes:
            shared.setdefault((number, probe.gradient or probe.name), []).append(probe)
    maps, last = {}, list(shared)[-1:]
    for key, same in shared.items():
        scalar = same[0].scalar(outputs[key[0]], indices)
        (gradient,) = torch.autograd.grad(scalar, x, retain_graph=[key] != last)
        for probe in same:
            reduced = probe.reduce(gradient).detach()
            maps[key[0], probe.name] = send(reduced, torch.device("cpu"))
    return maps


def random_signs(like: Tensor, indices: Sequence[int], *, seed: int, stream: int) -> Tensor:
    """Independent random +1 and -1 in the shape of `like` (batch, ...), one stream per image.

    `stream` separates different uses of the same seed.
    """
    # Drawn on the CPU so that all devices get the same signs, and sent as bits: 1/32 of the floats.
    size = like[0].numel()
    rows = [np.random.default_rng([seed, stream, index]).bytes(-(-size // 8)) for index in indices]
    octets = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), -1, 1)
    sent = send(torch.from_numpy(octets.copy()), like.device)
    places = torch.arange(7, -1, -1, dtype=torch.uint8, device=like.device)
    bits = ((sent >> places) & 1).flatten(1)[:, :size]
    return (bits.to(like.dtype) * 2 - 1).view(like.shape)


def require(thing: T | None, what: str) -> T:
    """Return `thing`. Raises `NotApplicableError` if it is None: the model gives no `what`."""
    if thing is None:
        raise NotApplicableError(f"the model gives no {what}")
    return thing


SIGNED = "target/signs"
"""Name of the gradient of `signed_sum`, which several suites take."""


def signed_sum(outputs: Outputs, indices: Sequence[int], *, seed: int) -> Tensor:
    """The sum over the batch of v . F, F being (batch, channels, height, width)."""
    target = require(outputs.target, "target")
    return (target * random_signs(target, indices, seed=seed, stream=TARGET_STREAM)).sum()


def channel_energy(gradient: Tensor, spec: InputSpec) -> Tensor:
    """Squared gradient per pixel value in [0, 1]: (batch, channels, height, width)."""
    per_pixel = gradient * (spec.value_range / spec.channel_std(gradient))
    return per_pixel.square()


def pixel_energy(gradient: Tensor, spec: InputSpec) -> Tensor:
    """Squared gradient per pixel value in [0, 1], summed over channels: (batch, height, width)."""
    return channel_energy(gradient, spec).sum(1)


def signs_of_target(f: Tensor, index: int, seed: int) -> Tensor:
    """The random signs that `deadpixel` gives the target `f` (units,) of image `index`."""
    return random_signs(f[None], [index], seed=seed, stream=TARGET_STREAM)[0]
