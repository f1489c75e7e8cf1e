"""The toolkit of a run: how models are opened, and which suites there are.

A worker process gets the *function* that makes the toolkit, and calls it itself, so that nothing
heavy travels between processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from ...adapters.model import Model, Precision
    from ...suites.base import Suite


class Loader(Protocol):
    """The part of `adapters.load.load` that a run uses."""

    def __call__(
        self,
        reference: str | nn.Module | Model,
        *,
        device: str = "auto",
        target: str | None = None,
        size: tuple[int, int] | None = None,
        seed: int = 0,
        members: int | None = None,
        precision: Precision = "float32",
        inputs: Mapping[str, Any] | None = None,
    ) -> Model:
        """Open a model."""


@dataclass(frozen=True)
class Toolkit:
    """How models are opened, and the suites by name."""

    load: Loader
    suites: Mapping[str, Suite]


def standard() -> Toolkit:
    """The adapters and suites of this package."""
    from ...adapters.load import load
    from ...suites.registry import SUITES

    return Toolkit(load, SUITES)
