"""Measuring many stored models again in one set of workers, which start once for all models.

A worker process measures one model after another, and is replaced when it dies, so that a model
that crashes costs its own records only. Models with the same settings are measured together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...adapters.errors import PerimetryError
from .rerun import RunSpec, in_workers, rerun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...adapters.treatment import Fill
    from ..records.record import Record
    from .settings import RunOptions


@dataclass(frozen=True)
class Asked:
    """A model, what to measure of it, and how; `name` is that of a module in its records."""

    model: Any
    spec: RunSpec
    fills: Sequence[Fill]
    name: str | None = None

    def goes_with(self, other: Asked) -> bool:
        """Whether one run can measure both."""
        both = isinstance(self.model, str) and isinstance(other.model, str)
        return both and self.spec == other.spec and list(self.fills) == list(other.fills)


@dataclass
class Together:
    """The models that will be asked for; the first of a group to be asked for brings the others.

    Models that are measured in this process, and modules, are measured one by one.
    """

    expected: Sequence[Asked] = ()
    _made: dict[tuple[str, int], dict[str, list[Record]]] = field(default_factory=dict)

    def measure(self, asked: Asked, run: RunOptions, part: str = "") -> list[Record]:
        """The records of one model. `part` names a repetition, which is measured for itself.

        Raises subclasses of `PerimetryError` as `rerun` does.
        """
        first = next((i for i, one in enumerate(self.expected) if one.goes_with(asked)), None)
        if run.isolated and first is not None:
            if (part, first) not in self._made:
                self._made[part, first] = self._all(asked, run)
            found = self._made[part, first].pop(str(asked.model), None)
            if found:
                return found
        return rerun(asked.model, asked.spec, asked.fills, run, name=asked.name)

    def _all(self, asked: Asked, run: RunOptions) -> dict[str, list[Record]]:
        """The records by model; none if the group cannot be planned, so that each says why."""
        models = [str(one.model) for one in self.expected if one.goes_with(asked)]
        found: dict[str, list[Record]] = {}
        try:
            for record in in_workers(models, asked.spec, asked.fills, run):
                found.setdefault(record.model.reference, []).append(record)
        except PerimetryError:
            return {}
        return found
