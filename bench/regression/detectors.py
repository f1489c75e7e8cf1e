"""The detectors of `check`: which metrics, maps and stages changed beyond tolerance.

`check` defines the detectors; this file has their decision rules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...suites.measuring.assumptions import FAULTS
from ..comparison.compatibility import incompatibilities, input_differences
from ..comparison.divergence import looked_at, stage_differences, unread
from ..comparison.fingerprint import ALL
from ..output.numbers import format_number
from ..records.selection import meaningless, prefix_of
from ..statistics.difference import metric_difference
from . import noise_floor as noise
from .dead_regions import TABLE, changed_regions, regions_of
from .result import REGRESSED, SAME, UNMEASURED, DetectorFinding, RegressionVerdict
from .tolerances import OFF

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...suites.base import Metric, Suite
    from ..comparison.divergence import StageDifference
    from ..records.parts import Value
    from ..records.record import Record
    from ..statistics.difference import Difference
    from .noise_floor import Floor
    from .tolerances import Tolerances


IGNORED = "ignored by the tolerances"

MOST_NOISE = 3.0
"""The largest noise floor that is believed, in tolerances."""

NOISE = ("rounding", "noise", "not finite on these samples", "too few for a standard error")
"""Parts of the reasons of a missing value that lie in the precision of the measurement."""


FLIPS = 0.05
"""The share of an output's parts that may be unequal by noise, if it is compared by equality."""


@dataclass(frozen=True)
class DetectorSet:
    """Detectors with their tolerances and the noise floor of one model variant."""

    tolerances: Tolerances
    floor: Floor | None
    suites: Mapping[str, Suite]

    def record(self, old: Record, new: Record | None) -> list[DetectorFinding]:
        """Everything about one suite and protocol."""
        where = f"{old.suite}:{old.protocol}"
        refused = _why_not(old, new)
        if new is None or refused is not None:
            return [DetectorFinding("record", where, UNMEASURED, refused or "")]
        if old.status == "skipped":
            if (new.reason or "").startswith(FAULTS):
                fault = f"not measured, now or in the baseline: {new.reason}"
                return [DetectorFinding("record", where, UNMEASURED, fault)]
            return [DetectorFinding("record", where, SAME, "does not apply, as in the baseline")]
        found = [*_damage(where, old), *self._dead_regions(old, new)]
        found += [*self._metrics(old, new), *self._maps(old, new)]
        values = any(value.value is not None for value in old.metrics.values())
        if not (values or old.maps or any(finding.text == IGNORED for finding in found)):
            text = "the baseline has no value to compare with: measure it again"
            found.append(DetectorFinding("record", where, UNMEASURED, text))
        return found

    def _metrics(self, old: Record, new: Record) -> list[DetectorFinding]:
        suite = self.suites.get(old.suite)
        declared = {metric.name: metric for metric in suite.metrics} if suite else {}
        found = []
        for name in old.metrics:
            where = f"{old.suite}:{old.protocol}.{name}"
            compared = self._compared(where, old, new, name, declared.get(name))
            found.append(DetectorFinding("metric", where, *compared))
        return found

    def _compared(
        self, where: str, old: Record, new: Record, name: str, metric: Metric | None
    ) -> tuple[RegressionVerdict, str]:
        """The verdict on one metric, and the reason."""
        bounds = self.tolerances.bounds(column_of(where, old, self.suites))
        before, now = old.metrics[name].value, new.metrics.get(name)
        if bounds.ignore:
            return SAME, IGNORED
        reasons = (v.reason for v in (old.metrics[name], now) if v is not None and v.value is None)
        noise_alone = [r for r in reasons if r and any(phrase in r for phrase in NOISE)]
        if noise_alone:
            return SAME, f"not compared, for want of precision: {noise_alone[0]}"
        if before is None and now is not None and now.value is not None:
            return UNMEASURED, f"no value in the baseline, {format_number(now.value, 4)} now"
        if before is None:
            return SAME, "not measurable in the baseline"
        if now is None or now.value is None:
            why = now.reason if now else "the metric does not exist any more"
            return UNMEASURED, f"has no value now: {why}"
        absurd = self._absurd("metrics", where, bounds.limit(before))
        if absurd is not None:
            return UNMEASURED, absurd
        limit = max(bounds.limit(before), self._noise("metrics", where))
        allowed = bounds.direction == "worse" and _nearer_even(before, now.value, metric)
        text = f"{format_number(before, 4)} -> {format_number(now.value, 4)}"
        if allowed or abs(now.value - before) <= limit:
            return SAME, text
        if _not_shown(metric_difference(new, old, name), old.metrics[name], now):
            return SAME, text
        change = f"change {format_number(now.value - before)}, tolerance {format_number(limit)}"
        return REGRESSED, f"{text}: {change}"

    def _dead_regions(self, old: Record, new: Record) -> list[DetectorFinding]:
        """New and grown dead regions; none if either record was not searched for them."""
        before, now = regions_of(old), regions_of(new)
        where = f"{old.suite}:{old.protocol}.{TABLE}"
        bounds = self.tolerances.bounds(column_of(where, old, self.suites))
        if before is None or now is None or bounds.ignore:
            return []
        known = sum(map(len, before.values()))
        return [
            DetectorFinding("dead region", where, REGRESSED, text)
            for text in changed_regions(before, now, bounds.absolute)
        ] or [DetectorFinding("dead region", where, SAME, f"{known} known")]

    def _maps(self, old: Record, new: Record) -> list[DetectorFinding]:
        """One finding for each stored map; none if the baseline has no maps."""
        if self.tolerances.maps == OFF:
            return []
        changes = noise.map_changes(old, new)
        return [self._map(f"{old.suite}:{old.protocol}.{name}", changes) for name in old.maps]

    def _map(self, where: str, changes: Mapping[str, float]) -> DetectorFinding:
        if where not in changes:
            text = "the map is missing or has another shape"
            return DetectorFinding("map", where, UNMEASURED, text)
        absurd = self._absurd("maps", where, self.tolerances.maps)
        if absurd is not None:
            return DetectorFinding("map", where, UNMEASURED, absurd)
        limit = max(self.tolerances.maps, self._noise("maps", where))
        verdict = REGRESSED if changes[where] > limit else SAME
        text = f"relative change {format_number(changes[where])}, tolerance {format_number(limit)}"
        return DetectorFinding("map", where, verdict, text)

    def fingerprint(self, old: Record | None, new: Record | None) -> list[DetectorFinding]:
        """Features and logits, stage by stage; none if the baseline has no fingerprint."""
        if old is None or self.tolerances.fingerprint == OFF:
            return []
        refused = _why_not(old, new)
        if new is None or refused is not None:
            return [DetectorFinding("fingerprint", "stages", UNMEASURED, refused or "")]
        stages = stage_differences(old, new)
        if isinstance(stages, str):
            return [DetectorFinding("fingerprint", "stages", REGRESSED, stages)]
        return [*self._stages(stages), *_lost(old, new)]

    def _stages(self, found: Sequence[StageDifference]) -> list[DetectorFinding]:
        """The first stage that changed, or else each output that did; each has its own limit."""
        tolerance = self.tolerances.fingerprint
        unbelieved = [
            DetectorFinding("fingerprint", p.key, UNMEASURED, why)
            for p in found
            if (why := self._absurd("stages", p.key, FLIPS if p.exact else tolerance)) is not None
        ]
        changed = [p for p in found if p.exceeds(self._limit(p))]
        if changed and not changed[0].output:
            return [*unbelieved, _changed_stage(found, changed[0], self._limit(changed[0]))]
        if changed:
            return [*unbelieved, *(_changed_output(p, self._limit(p)) for p in changed)]
        most = max((p.difference for p in found), default=0.0)
        text = f"{looked_at(found)} {f'within {most:.1e}' if most else 'bit for bit'}"
        same = DetectorFinding("fingerprint", "stages", SAME, text)
        return unbelieved or [same]

    def _limit(self, found: StageDifference) -> float:
        """How far a stage or an output may be off; what is compared by equality, by noise alone."""
        noise = self._noise("stages", found.key)
        return noise if found.exact else max(self.tolerances.fingerprint, noise)

    def _absurd(self, kind: str, where: str, tolerance: float) -> str | None:
        """Why a noise floor is not believed, or None; it would let any change pass."""
        floor = self._floor(kind, where)
        if floor <= MOST_NOISE * tolerance:
            return None
        return (
            f"the noise floor {format_number(floor)} is more than {MOST_NOISE:g} times the "
            f"tolerance {format_number(tolerance)}, so that no change could be shown; measure it "
            "again with `perimetry check --measure-noise`, or raise the tolerance"
        )

    def _noise(self, kind: str, where: str) -> float:
        """The noise floor times its factor."""
        return self.tolerances.noise_factor * self._floor(kind, where)

    def _floor(self, kind: str, where: str) -> float:
        """The noise floor; 0 if it was not measured."""
        floors: dict[str, float] = getattr(self.floor, kind) if self.floor else {}
        return floors.get(where, 0.0)


def _changed_stage(
    found: Sequence[StageDifference], first: StageDifference, limit: float
) -> DetectorFinding:
    """The finding about the `first` stage that changed by more than `limit`."""
    stages = [p for p in found if not p.output]
    text = (
        f"features changed by {format_number(first.difference)} at stage "
        f"{stages.index(first) + 1} of {len(stages)}, the first above {format_number(limit)}; at "
        f"the last stage by {format_number(stages[-1].difference)}"
    )
    if not math.isfinite(first.difference):
        text += "; the features are not finite (NaN or infinite), or were 0 in the baseline"
    return DetectorFinding("fingerprint", first.key, REGRESSED, text)


def _changed_output(found: StageDifference, limit: float) -> DetectorFinding:
    """The finding about an output that changed, though the features before it did not."""
    amount, where = format_number(found.difference), found.key
    if found.why:
        text = f"changed: {found.why} (first: the baseline, second: now)"
    elif found.exact:
        text = f"changed in {amount} of its parts, which are compared by equality"
    elif math.isfinite(found.difference):
        text = f"changed by {amount}, tolerance {format_number(limit)}"
    else:
        text = "changed: it is not finite (NaN or infinite), or was 0 in the baseline"
    return DetectorFinding("fingerprint", where, REGRESSED, text)


def _lost(old: Record, new: Record) -> list[DetectorFinding]:
    """A finding for each output that the baseline looked at and that cannot be looked at now."""
    before = {str(row["output"]) for row in old.tables.get("outputs", [])}
    return [
        DetectorFinding("fingerprint", f"output {name}", UNMEASURED, why)
        for name, why in unread(new).items()
        if name in before or (name == ALL and before)
    ]


def _damage(where: str, old: Record) -> list[DetectorFinding]:
    """That the maps and draws of the baseline cannot be read, so that not all was compared."""
    damage = old.find_damage()
    return [DetectorFinding("record", where, UNMEASURED, damage)] if damage else []


def column_of(where: str, record: Record, suites: Mapping[str, Suite]) -> str:
    """`SUITE.METRIC` on the default protocol, as on a leaderboard."""
    prefix = prefix_of(record.suite, record.protocol, suites)
    return f"{prefix}.{where.partition('.')[2]}"


def _not_shown(found: Difference | None, before: Value, now: Value) -> bool:
    """Whether the interval of the difference contains 0, or open ones contain both values.

    Of what is 12 within [1, open] it is known that it is at least 1, so that 14 is no change.
    """
    if found is not None and found.low is not None:
        return not found.separated
    if before.value is None or now.value is None:
        return False
    return before.covers(now.value) and now.covers(before.value)


def _nearer_even(before: float, now: float, metric: Metric | None) -> bool:
    """Whether a change is in the direction that its metric declares better."""
    if metric is None or metric.better == "neither":
        return False
    if metric.even is not None:
        return abs(now - metric.even) <= abs(before - metric.even)
    return now >= before if metric.better == "higher" else now <= before


def _why_not(old: Record, new: Record | None) -> str | None:
    """Why two records cannot be compared, or None; two skipped records can."""
    if new is None:
        return "was not measured now"
    if old.status == "failed":
        return "failed when the baseline was made"
    if new.status != old.status:
        was = {"ok": "was measured in the baseline", "skipped": "did not apply in the baseline"}
        now = {"ok": "is measured now", "skipped": f"does not apply now: {new.why}"}
        return f"{was[old.status]}, {now.get(new.status, f'failed now: {new.why}')}"
    found = incompatibilities(old, new) if old.status == "ok" else []
    return f"not comparable: {'; '.join(found)}" if found else None


def meaningless_findings(
    records: Sequence[Record], made: Sequence[Record]
) -> list[DetectorFinding]:
    """A finding for what is NaN, infinite or constant now, and was not in the baseline."""
    before = {note.partition(":")[0] for note in meaningless(records)}
    return [
        DetectorFinding("finite", "model", REGRESSED, f"new: {note}")
        for note in meaningless(made)
        if note.partition(":")[0] not in before
    ]


def input_findings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[DetectorFinding]:
    """A finding for each difference of two inputs; none if one of them is unknown."""
    texts = input_differences(old, new, cropping=True)
    changes = [t.removeprefix("preprocessing: ").replace(" against ", " -> ") for t in texts]
    return [DetectorFinding("preprocessing", "input", REGRESSED, text) for text in changes]
