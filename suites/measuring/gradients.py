"""One forward and several backward passes over the images, shared by all suites.

Batching is exact: every probe's scalar is a sum of per-image targets, and every reduction stays
within its image. Random signs depend on the seed and the image's place, never on the batch.

Nothing in a pass asks the device for a number, so that a GPU never waits: the next batch is sent,
and its signs are drawn, while it still works on the last one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...adapters.device import arrived, send
from ...adapters.errors import InputError, NotApplicableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...adapters.input_spec import InputSpec
    from ...adapters.model import Model
    from ..base import Array, Probe

T = TypeVar("T")


@dataclass
class GradientMaps:
    """Reduced gradients by probe name, each (samples, height, width); and how they were made.

    `refused` has the probes whose gradient says nothing, and why.
    """

    maps: dict[str, Array]
    batch: int
    notes: list[str] = field(default_factory=list)
    refused: dict[str, NotApplicableError] = field(default_factory=dict)

    def of(self, probes: Iterable[Probe]) -> dict[str, Array]:
        """The maps of `probes`. Raises `NotApplicableError` when one of them is refused."""
        for probe in probes:
            if probe.name in self.refused:
                raise self.refused[probe.name]
        return {probe.name: self.maps[probe.name] for probe in probes}


def gradient_maps(
    model: Model, images: Tensor, probes: Sequence[Probe], *, batch: int = 16
) -> GradientMaps:
    """What `take_gradients` finds.

    Raises `NotApplicableError` when a gradient is not finite, or zero everywhere.
    """
    found = take_gradients(model, images, probes, batch=batch)
    found.of(probes)
    return found


def take_gradients(
    model: Model, images: Tensor, probes: Sequence[Probe], *, batch: int = 16
) -> GradientMaps:
    """Take the gradients of all `probes` over `images` (n, 3, height, width).

    A sample is an image; for a model of several weight sets it is a weight set, which sees every
    `members`-th image, and the mean over these. The batch halves when memory runs out, and the
    notes say so. Gradients that are not finite, or zero everywhere, are among the refused.
    """
    if batch < 1:
        raise InputError(f"batch {batch} was given; expected at least 1")
    names = [p.name for p in probes]
    if len(set(names)) < len(names):
        raise ValueError(f"probe names must differ, got {names}")
    result = GradientMaps({}, batch)
    x = model.spec.prepare(images)
    members = min(model.members, len(x))
    samples: list[dict[str, Tensor]] = []
    for member in range(members):
        model.select(member, x)
        own = range(member, len(x), members)
        maps = _member_maps(model, x, own, probes, result)
        if members > 1:
            maps = {name: m.mean(0, keepdim=True) for name, m in maps.items()}
        samples.append(maps)
    for probe in probes:
        stacked = torch.cat([s[probe.name] for s in samples]).double().numpy()
        why = _refusal(probe, stacked)
        if why is not None:
            result.refused[probe.name] = NotApplicableError(f"the gradient {probe.name!r} {why}")
        else:
            result.maps[probe.name] = stacked
    return result


def normalise_members(model: Model, samples: Array) -> Array:
    """Samples (samples, height, width) of several weight sets, each scaled to mean 1.

    The gain of a random network is arbitrary and has heavy tails: unscaled, one of sixteen initial
    states may carry all the energy, and their mean says nothing of the other fifteen. The images
    of one weight set stay as they are: their gradients are in one unit.
    """
    if model.members == 1:
        return samples
    scaled: Array = samples * member_factors(model, samples)
    return scaled


def member_factors(model: Model, samples: Array) -> Array:
    """Factors (samples, 1, 1) that make samples of several weight sets `alike`; 1 for images.

    A weight set that hears nothing stays at nothing: its factor is 0.
    """
    level = samples.mean((1, 2), keepdims=True)
    if model.members == 1:
        return np.ones_like(level)
    factors: Array = np.divide(1, level, out=np.zeros_like(level), where=level > 0)
    return factors


def _refusal(probe: Probe, maps: Array) -> str | None:
    """Why `maps` say nothing, or None."""
    if not np.isfinite(maps).all():
        return f"is not finite on {_share_not_finite(maps)} of pixels"
    return None if maps.any() else f"is zero everywhere: {probe.silent}"


def _share_not_finite(maps: Array) -> str:
    return f"{float((~np.isfinite(maps)).mean()):.1%}"


def _member_maps(
    model: Model, x: Tensor, own: Sequence[int], probes: Sequence[Probe], result: GradientMaps
) -> dict[str, Tensor]:
    """Maps (images of this weight set, height, width) by probe, on the CPU."""
    parts: list[dict[str, Tensor]] = []
    done = 0
    while done < len(own):
        indices = own[done : done + result.batch]
        try:
            parts.append(_batch_maps(model, x[list(indices)], indices, probes))
        except torch.OutOfMemoryError:
            if result.batch == 1:
                raise
            result.batch = max(1, len(indices) // 2)
            result.notes.append(f"out of memory: batch lowered to {result.batch}")
            if model.device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        done += len(indices)
    arrived(model.device)
    return {p.name: torch.cat([part[p.name] for part in parts]) for p in probes}


def _batch_maps(
    model: Model, x: Tensor, indices: Sequence[int], probes: Sequence[Probe]
) -> dict[str, Tensor]:
    """One forward, then one backward a probe; the maps are on their way to the CPU."""
    x = send(x, model.device).requires_grad_()
    outputs = model.run(x, logits=any(p.logits for p in probes))
    maps = {}
    for probe in probes:
        scalar = probe.scalar(outputs, indices)
        (gradient,) = torch.autograd.grad(scalar, x, retain_graph=probe is not probes[-1])
        maps[probe.name] = send(probe.reduce(gradient).detach(), torch.device("cpu"))
    return maps


def random_signs(like: Tensor, indices: Sequence[int], *, seed: int, stream: int) -> Tensor:
    """Independent +1 and -1 of the shape of `like` (batch, ...), one stream for each image.

    `stream` tells apart uses of one seed. Drawn on the CPU, so that every device sees the same, as
    bits, of which 32 weigh as much as one float on their way.
    """
    size = like[0].numel()
    rows = [np.random.default_rng([seed, stream, index]).bytes(-(-size // 8)) for index in indices]
    octets = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), -1, 1)
    sent = send(torch.from_numpy(octets.copy()), like.device)
    places = torch.arange(7, -1, -1, dtype=torch.uint8, device=like.device)
    bits = ((sent >> places) & 1).flatten(1)[:, :size]
    return (bits.to(like.dtype) * 2 - 1).view(like.shape)


def require(thing: T | None, what: str) -> T:
    """The thing, or the reason why a suite cannot go on without it."""
    if thing is None:
        raise NotApplicableError(f"the model gives no {what}")
    return thing


def pixel_energy(gradient: Tensor, spec: InputSpec) -> Tensor:
    """Squared gradient per pixel value in [0, 1], summed over channels: (batch, height, width)."""
    per_pixel = gradient * (spec.value_range / spec.channel_std(gradient))
    return per_pixel.square().sum(1)


TARGET_STREAM = 1


def signs_of_target(f: Tensor, index: int, seed: int) -> Tensor:
    """The random signs that `deadpixel` gives the target `f` (units,) of image `index`."""
    return random_signs(f[None], [index], seed=seed, stream=TARGET_STREAM)[0]
