"""The map of a model that suites about dense outputs measure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...adapters.errors import NotApplicableError
from ...adapters.feature_grid import TargetChoice
from ...adapters.model import ModelOfScales
from .forward import gives_logits

if TYPE_CHECKING:
    from ...adapters.feature_grid import Grid
    from ...adapters.model import Model


NO_LOGITS = "the model gives no logits"


def at_output(model: Model) -> Model:
    """`model` with its output of the most units as the target.

    `model` itself where the user named a target, or where no output is a map. Weights and selection
    are shared.
    """
    named = model.target is not None and model.target.choice is TargetChoice.NAMED
    if named or not isinstance(model, ModelOfScales):
        return model
    grid = model.output_map()
    return model if grid is None else model.at(grid)


def why_no_map(model: Model) -> str | None:
    """The reason why neither the target nor an output of `model` is a map, or None."""
    return None if model.why_not_spatial is None else at_output(model).why_not_spatial


def why_no_map_nor_logits(model: Model) -> str | None:
    """The reason why `model` gives neither a map nor logits, or None."""
    reason = why_no_map(model)
    return None if reason is None or gives_logits(model) else f"{NO_LOGITS}, and {reason}"


def map_of(model: Model) -> Grid:
    """The grid of the target. Raises `NotApplicableError` without one."""
    if model.target is None:
        raise NotApplicableError(model.why_not_spatial or "the model has no spatial map")
    return model.target


def named_units(model: Model) -> str:
    """The measured map in words: its name, channels and units."""
    grid = map_of(model)
    return f"{grid.name!a}, {grid.channels} channels of {grid.height} x {grid.width} units"
