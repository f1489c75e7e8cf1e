"""Models that a library builds: initial states from seeds, or one given set of weights.

What timm, torchvision and transformers have in common once an architecture can be built.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from .device import pick_device
from .input_spec import InputSpec
from .meta_forward import ShapesOnly
from .pytorch.model import TorchModel
from .pytorch.tensors import copy_module
from .pytorch.weights import module_tensors_digest, not_finite_weights, set_scales_to_one
from .reference import split_key
from .seeding import seeded_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from .model import Precision


INIT_MEMBERS = 8
"""Default number of seeds of an `@init` model."""

CALIBRATION_IMAGES = 4
"""Number of images, the first ones, that calibrate the norms of an `@init` model."""


@dataclass(frozen=True)
class Opening:
    """How a model is opened; the fields are those of `load.load`."""

    device: str = "auto"
    target: str | None = None
    size: tuple[int, int] | None = None
    seed: int = 0
    members: int | None = None
    precision: Precision = "float32"


@dataclass(frozen=True)
class Created:
    """An architecture that `create` builds, with the weights of `loaded`, or with initial ones.

    `spec` is the input that its library states, `source` says where it comes from. A `shell` is the
    architecture without weights; a model that has one is not tried before its first pass. `prefix`
    is the number of tokens before those of the target's grid.
    """

    reference: str
    create: Callable[[], nn.Module]
    loaded: nn.Module | None
    spec: InputSpec
    source: Mapping[str, str]
    notes: tuple[str, ...] = ()
    shell: nn.Module | None = None
    prefix: int | None = None

    def open(self, how: Opening) -> TorchModel:
        """The model. Raises `InputError` when it refuses the size."""
        size = how.size or (self.spec.height, self.spec.width)
        loaded, shell = self.loaded, self.shell
        weights = {} if loaded is None else {"tensors_sha256": module_tensors_digest(loaded)}
        if shell is None:
            shell = on_meta(self.create) if loaded is None else loaded
        members = how.members or INIT_MEMBERS
        model = TorchModel(
            shell,
            partial(initial_state, self.create, how.seed)
            if loaded is None
            else lambda _member: copy_module(loaded),
            reference=self.reference,
            spec=replace(self.spec, height=size[0], width=size[1]),
            device=pick_device(how.device),
            source={"runtime": "torch", **self.source, **weights},
            target=how.target,
            prefix=self.prefix,
            members=members if loaded is None else 1,
            calibrated=CALIBRATION_IMAGES if loaded is None else 0,
            precision=how.precision,
            known=self.shell is not None,
        )
        model.notes += self.notes
        if loaded is not None:
            model.notes[:0] = not_finite_weights(loaded)
        else:
            model.notes.append(
                f"untrained: up to {members} seeded initial states, norms calibrated"
            )
        return model


def file_source(state: str) -> dict[str, str]:
    """Name and hash of the weights file `state`, which may end in the key of a state dict."""
    path, _ = split_key(state)
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def on_meta(create: Callable[[], nn.Module]) -> nn.Module:
    """Build an architecture without weights where it can be built so, in evaluation."""
    try:
        with torch.device("meta"), ShapesOnly():
            return create().eval()
    except Exception:  # a few architectures compute with their weights when built
        return create().eval()


def initial_state(create: Callable[[], nn.Module], seed: int, member: int) -> nn.Module:
    """Build the initial state of seed `seed` + `member`, with scales of 1, in evaluation."""
    with seeded_weights(seed + member), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries announce other initial weights to come
        module = create().eval()
    set_scales_to_one(module)
    return module


def weights_unavailable(kind: str, name: str, error: Exception, init: str) -> str:
    """The message that the weights of `name` are neither cached nor reachable."""
    file = init.replace("@init", "@FILE")
    return (
        f"the {kind} weights of {name!r} are neither cached nor reachable "
        f"({type(error).__name__}); audit the initial state ({init}), or give a weights file "
        f"({file})"
    )


def channel_values(values: Any, channels: int) -> tuple[float, ...]:
    """Mean or deviation of each channel; one number counts for all."""
    listed = values if isinstance(values, list | tuple) else [values]
    return tuple(map(float, listed * channels if len(listed) == 1 else listed))
