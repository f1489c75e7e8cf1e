"""Dead pixels and ERF of a network during training, by the energy protocols of the suites."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...adapters.errors import PerimetryError
from ...adapters.load import load
from ...suites.base import Context
from ...suites.deadpixel.suite import DEADPIXEL
from ...suites.erf.suite import ERF
from ...suites.measuring.gradients import gradient_maps

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ...adapters.input_spec import InputSpec


PROTOCOL = "energy"

SEED = 0

BATCH = 32

DRAWS = 200
"""Draws of the phase profile, as many as in an audit: values are medians over them."""

NUMBERS = {"deadpixel": ("weakest", "imbalance"), "erf": ("luo_size", "radius")}

MAPS = {"profile": "phase_profile", "erf": "erf"}


def probe(
    module: nn.Module, spec: InputSpec, images: Tensor, device: torch.device
) -> dict[str, Any]:
    """Measure a copy of `module` on `images` (n, 3, height, width): numbers and maps, as JSON.

    `weakest`, `imbalance`, `luo_size`, `radius`, `profile` (P, P) and `erf` (height, width), each
    None where the network or the size does not allow it.
    """
    model = load(module, spec=spec, device=str(device))
    names = [name for numbers in NUMBERS.values() for name in numbers]
    found: dict[str, Any] = dict.fromkeys([*names, *MAPS])
    context = Context(images, SEED, BATCH, DRAWS)
    for suite in (DEADPIXEL, ERF):
        try:
            maps = gradient_maps(
                model, images, suite.probes(model, PROTOCOL, SEED), batch=BATCH
            ).maps
            measured = suite.measure(model, PROTOCOL, maps, context)
        except PerimetryError:
            continue
        for name in NUMBERS[suite.name]:
            found[name] = measured.metrics[name].value
        for label, name in MAPS.items():
            if name in measured.maps:
                found[label] = measured.maps[name].tolist()
    return found


def stride_of(module: nn.Module, spec: InputSpec) -> tuple[int, int]:
    """Total stride from input to target along (rows, columns); 1 where there is no target."""
    from ...suites.architecture.receptive_field import target_stride

    model = load(module, spec=spec, device="cpu")
    return target_stride(model) if model.target else (1, 1)
