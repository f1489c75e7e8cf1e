"""What the `padding` suite sees of a model: one member a weight set, forward passes only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...adapters.errors import NotApplicableError
from ..measuring.feature_maps import stage_maps
from .blind_spots import Responses, Stimulus, grid_places, respond
from .mean_filters import FilterAsymmetry, filter_asymmetries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ...adapters.model import Model
    from ...adapters.padding_mode import PaddingMode
    from ..base import Array
    from .blind_spots import Place

EXCHANGE_GRID = 3
"""Places per side at which exchanged borders are compared: corners, edges, centre."""


@dataclass(frozen=True)
class ObservationPlan:
    """What is shown to each weight set; `batch` bounds the images of one pass."""

    stimulus: Stimulus
    grid: int
    exchange: tuple[PaddingMode, ...]
    weight_sets: int
    batch: int


@dataclass
class WeightSetObservation:
    """One weight set: mean maps by stage, responses to the stimulus, the same by border.

    `images` and `constants` have A of each stage (see `feature_maps`), (images, height, width) and
    (height, width). `refused` says why a border could not be had.
    """

    images: dict[str, Array]
    constants: dict[str, Array]
    responses: Responses
    exchanged: dict[str, Responses] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Observations:
    """All weight sets of one model; `members` is empty for a model without a spatial map."""

    members: list[WeightSetObservation]
    filters: list[dict[str, FilterAsymmetry]]
    places: list[Place]
    exchange_places: list[Place]

    def images(self) -> dict[str, Array]:
        """A of each stage, (samples, height, width): images, or else several weight sets."""
        if len(self.members) == 1:
            return self.members[0].images
        return {
            name: np.stack([member.images[name].mean(0) for member in self.members])
            for name in self.members[0].images
        }

    def constants(self) -> dict[str, Array]:
        """A of each stage for the plain background, (weight sets, height, width)."""
        return {
            name: np.stack([member.constants[name] for member in self.members])
            for name in self.members[0].constants
        }

    def responses(self) -> Array:
        """Responses of F, (weight sets, grid, grid)."""
        return np.stack([s.responses.grid(self.places) for s in self.members])

    def logits(self) -> Array | None:
        """Mean response of the top logit over the weight sets, (grid, grid)."""
        maps = [s.responses.logit_grid(self.places) for s in self.members]
        known = [m for m in maps if m is not None]
        return np.mean(known, axis=0) if known else None

    def exchanged(self, border: str) -> tuple[Array, Array]:
        """Responses at nine places and the plain map, (weight sets, ...); `zero`: nothing changed.

        Raises `NotApplicableError` where the border could not be had.
        """
        sources = [s.exchanged.get(border) for s in self.members]
        known = [r for r in sources if r is not None]
        if not known:
            raise NotApplicableError(self.members[0].refused[border])
        return np.stack([r.grid(self.exchange_places) for r in known]), np.stack(
            [r.plain for r in known]
        )


def observe(model: Model, images: Tensor, plan: ObservationPlan) -> Observations:
    """Show `images` (n, 3, height, width) and the stimulus to the weight sets of `model`.

    Weight set k of those looked at sees every image whose place is k modulo their number.
    """
    x = model.spec.prepare(images)
    sets = min(model.members, len(x), plan.weight_sets)
    spatial = model.why_not_spatial is None
    side = plan.stimulus.side
    places = grid_places(model.spec, side, plan.grid) if spatial else []
    nine = grid_places(model.spec, side, EXCHANGE_GRID) if spatial and plan.exchange else []
    observed = Observations([], [], places, nine)
    for member in range(sets):
        model.select(member, x)
        observed.filters.append(filter_asymmetries(model.filters()))
        if spatial:
            observed.members.append(_observe_member(model, x[member::sets], plan, observed))
    return observed


def _observe_member(
    model: Model, x: Tensor, plan: ObservationPlan, observed: Observations
) -> WeightSetObservation:
    """What the selected weight set makes of `x` (images, channels, ...) and of the stimulus."""
    plain = model.spec.blank(plan.stimulus.background)
    constants = {name: maps[0] for name, maps in stage_maps(model, plain, 1).items()}
    all_places = list(dict.fromkeys([*observed.places, *observed.exchange_places]))
    responses = respond(model, all_places, plan.stimulus, batch=plan.batch, logits=True)
    member = WeightSetObservation(
        stage_maps(model, x, plan.batch), constants, responses, {"zero": responses}
    )
    for border in plan.exchange:
        try:
            twin = model.with_padding_mode(border)
        except NotApplicableError as error:
            member.refused[border] = str(error)
            continue
        member.notes += [note for note in twin.notes if note not in model.notes]
        member.exchanged[border] = _nine(twin, observed.exchange_places, plan)
    return member


def _nine(twin: Model, nine: Sequence[Place], plan: ObservationPlan) -> Responses:
    return respond(twin, nine, plan.stimulus, batch=plan.batch, logits=False)
