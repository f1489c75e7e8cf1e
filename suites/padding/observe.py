"""The forward passes of the `padding` suite, one weight set at a time.

The mean feature map of a stage is A(i, j) = mean over channels of |F_c(i, j)|, where F is the last
spatial map of the stage (see `Model.stages`).
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...adapters.errors import NotApplicableError
from .blind_spots import Stimulus, StimulusResponses, channel_mean, grid_places, respond
from .mean_filters import FilterAsymmetry, filter_asymmetries
from .silent_pixels import SilentPixels, find_silent_pixels

if TYPE_CHECKING:
    from torch import Tensor

    from ...adapters.model import Model
    from ...adapters.padding_mode import PaddingMode
    from ..base import Array
    from ..measuring.batching import Batching
    from .blind_spots import Place

EXCHANGE_GRID = 3
"""Places per side at which padding modes are compared: corners, edges, centre."""


@dataclass(frozen=True)
class ObservationPlan:
    """What is run on each weight set, with at most `batching.size` images in one pass."""

    stimulus: Stimulus
    grid: int
    exchange: tuple[PaddingMode, ...]
    weight_sets: int
    batching: Batching


@dataclass
class WeightSetObservation:
    """The observations of one weight set.

    `images` (images, height, width) and `constants` (height, width) are the mean feature maps of
    each stage, for the images and for the plain background. `exchanged` has the responses by
    padding mode, `refused` the reason why a mode cannot be used.
    """

    images: dict[str, Array]
    constants: dict[str, Array]
    responses: StimulusResponses
    exchanged: dict[str, StimulusResponses] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Observations:
    """All weight sets of one model; `members` is empty for a model without a spatial map."""

    members: list[WeightSetObservation]
    filters: list[dict[str, FilterAsymmetry]]
    places: list[Place]
    exchange_places: list[Place]
    silent: list[SilentPixels]
    """Pixels that change nothing, of the first weight set that was searched for them."""
    side: int = 1
    """Of the stimulus, in pixels."""

    def images(self) -> dict[str, Array]:
        """Mean maps by stage (samples, height, width); a sample is an image or a weight set."""
        if len(self.members) == 1:
            return self.members[0].images
        return {
            name: np.stack([member.images[name].mean(0) for member in self.members])
            for name in self.members[0].images
        }

    def constants(self) -> dict[str, Array]:
        """Mean maps by stage for the plain background: (weight sets, height, width)."""
        return {
            name: np.stack([member.constants[name] for member in self.members])
            for name in self.members[0].constants
        }

    def responses(self) -> Array:
        """Responses of F, (weight sets, grid, grid)."""
        return np.stack([s.responses.grid(self.places) for s in self.members])

    def without_response(self) -> list[Place]:
        """Places at which the stimulus leaves F of the last weight set exactly as it is."""
        responses = self.members[-1].responses.target if self.members else {}
        return [place for place, response in responses.items() if response == 0]

    def logits(self) -> Array | None:
        """Mean response of the top logit over the weight sets, (grid, grid)."""
        maps = [s.responses.logit_grid(self.places) for s in self.members]
        known = [m for m in maps if m is not None]
        return np.mean(known, axis=0) if known else None

    def exchanged(self, border: str) -> tuple[Array, Array]:
        """Responses at nine places and the plain map, (weight sets, ...), with padding `border`.

        `zero` is the model's own padding. Raises `NotApplicableError` if the mode cannot be used.
        """
        sources = [s.exchanged.get(border) for s in self.members]
        known = [r for r in sources if r is not None]
        if not known:
            raise NotApplicableError(self.members[0].refused[border])
        return np.stack([r.grid(self.exchange_places) for r in known]), np.stack(
            [r.plain for r in known]
        )


def observe_padding(model: Model, images: Tensor, plan: ObservationPlan) -> Observations:
    """Run `images` (n, 3, height, width) and the stimulus through the weight sets of `model`.

    Weight set k of K gets the images k, k + K, k + 2 K, ...
    """
    x = model.spec.prepare(images)
    sets = min(model.members, len(x), plan.weight_sets)
    spatial = model.why_not_spatial is None
    side = plan.stimulus.side
    places = grid_places(model.spec, side, plan.grid) if spatial else []
    nine = grid_places(model.spec, side, EXCHANGE_GRID) if spatial and plan.exchange else []
    observed = Observations([], [], places, nine, [], side)
    for member in range(sets):
        model.select(member, x)
        observed.filters.append(filter_asymmetries(model.filters()))
        if spatial:
            observed.members.append(_observe_member(model, x[member::sets], plan, observed))
        if not observed.silent:
            _look_for_silence(model, plan, observed)
    return observed


def _look_for_silence(model: Model, plan: ObservationPlan, observed: Observations) -> None:
    """Look for silent pixels without gradients, or where a stimulus changed nothing."""
    places = observed.without_response()
    if model.why_no_gradients is None and not places:
        return
    with nullcontext() if observed.members else suppress(NotApplicableError):
        silent = find_silent_pixels(model, plan.stimulus, plan.batching, places)
        observed.silent.append(silent)


def _observe_member(
    model: Model, x: Tensor, plan: ObservationPlan, observed: Observations
) -> WeightSetObservation:
    """The observations of the selected weight set on `x` (images, channels, height, width)."""
    plain = model.spec.blank(plan.stimulus.background)
    constants = {
        name: maps[0] for name, maps in mean_stage_maps(model, plain, plan.batching).items()
    }
    all_places = list(dict.fromkeys([*observed.places, *observed.exchange_places]))
    responses = respond(model, all_places, plan.stimulus, plan.batching, logits=True)
    member = WeightSetObservation(
        mean_stage_maps(model, x, plan.batching), constants, responses, {"zero": responses}
    )
    for border in plan.exchange:
        try:
            changed = model.with_padding_mode(border)
        except NotApplicableError as error:
            member.refused[border] = str(error)
            continue
        member.notes += [note for note in changed.notes if note not in model.notes]
        member.exchanged[border] = respond(
            changed, observed.exchange_places, plan.stimulus, plan.batching, logits=False
        )
    return member


def mean_stage_maps(model: Model, x: Tensor, batching: Batching) -> dict[str, Array]:
    """Mean feature maps (images, height, width) by the name of each stage's last layer.

    `x` is (images, channels, height, width). Raises `NotApplicableError` if there is no spatial
    map, or if one is not finite.
    """

    def one(chunk: slice) -> dict[str, Array]:
        stages = model.stages(x[chunk].to(model.device))
        return {name: channel_mean(maps) for name, maps in stages.items()}

    parts = batching.run(len(x), one)
    return {name: _checked(name, np.concatenate([p[name] for p in parts])) for name in parts[0]}


def _checked(name: str, maps: Array) -> Array:
    if not np.isfinite(maps).all():
        raise NotApplicableError(f"the feature map {name!r} is not finite on these images")
    return maps
