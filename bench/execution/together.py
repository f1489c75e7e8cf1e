"""Measuring many stored models again in one set of workers, which start once for all models.

A worker process measures one model after another, and is replaced when it dies, so that a model
that crashes costs its own records only. Models with the same settings are measured together.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...adapters.errors import PerimetryError
from .cost import Progress, record_costs
from .rerun import RunSpec, in_workers, plan_of, rerun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...adapters.treatment import Fill
    from ..records.record import Record
    from .plan import AuditPlan
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

    Each is asked for `repetitions` times; one progress bar counts all records. Models that are
    measured in this process, and modules, are measured one by one.
    """

    expected: Sequence[Asked] = ()
    repetitions: int = 1
    _plans: dict[int, AuditPlan] | None = None
    _bar: Progress | None = None
    _made: dict[tuple[str, int], dict[str, list[Record]]] = field(default_factory=dict)

    def measure(self, asked: Asked, run: RunOptions, part: str = "") -> list[Record]:
        """The records of one model. `part` names a repetition, which is measured for itself.

        Raises subclasses of `PerimetryError` as `rerun` does.
        """
        first = self._group(asked)
        if run.isolated and first is not None:
            if (part, first) not in self._made:
                self._made[part, first] = self._all(first, run)
            found = self._made[part, first].pop(str(asked.model), None)
            if found:
                return found
        return rerun(asked.model, asked.spec, asked.fills, run, name=asked.name)

    def _group(self, asked: Asked) -> int | None:
        """The place of the first model that one run can measure with this one."""
        return next((i for i, one in enumerate(self.expected) if one.goes_with(asked)), None)

    def _all(self, first: int, run: RunOptions) -> dict[str, list[Record]]:
        """The records of a group by model; none if it cannot be planned, so that each says why."""
        found: dict[str, list[Record]] = {}
        plans = self._planned(run)
        if first in plans:
            with suppress(PerimetryError):
                for record in in_workers(plans[first], run, self._bar):
                    found.setdefault(record.model.reference, []).append(record)
        return found

    def _planned(self, run: RunOptions) -> dict[int, AuditPlan]:
        """The plan of each group that has one; with the first, the progress bar is made."""
        if self._plans is None:
            self._plans = {}
            costs: dict[str, float] = {}
            for place, one in enumerate(self.expected):
                if self._group(one) == place:
                    models = [str(other.model) for other in self.expected if other.goes_with(one)]
                    with suppress(PerimetryError):
                        self._plans[place] = plan_of(models, one.spec, one.fills, run)
            for plan in self._plans.values():
                costs |= record_costs(plan.jobs(), plan.settings.count)
            self._bar = Progress(costs, self.repetitions) if run.progress else None
        return self._plans
