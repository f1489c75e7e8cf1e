"""Comparing one model with its baseline: what to measure, and what to do with it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ...adapters.errors import PerimetryError
from ..comparison.divergence import not_looked_at
from ..comparison.fingerprint import CELL, NAME, WithFingerprint
from ..comparison.look import changed_tensors
from ..execution.plan import parse_fills
from ..execution.rerun import RerunOptions, RunSpec, known_inputs, run_spec_of, sized_as
from ..execution.together import Asked, Together
from ..output.text import counted
from ..records.references import spec_of
from ..records.selection import said_first
from . import noise_floor as noise
from .baseline import Changes
from .detectors import DetectorSet, input_findings, meaningless_findings
from .result import DetectorFinding, RegressionVerdict, VariantReport, reason_of, refused, said_once
from .tolerances import Tolerances

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ...suites.base import Suite
    from ..execution.settings import RunOptions
    from ..records.record import Record
    from .baseline import Baseline

    Runs = Mapping[str, Sequence[Record]]


NO_FINGERPRINT = (
    "features and outputs were not looked at: the baseline has no fingerprint; `perimetry check "
    "--measure-noise` stores one"
)


@dataclass(frozen=True)
class ModelCheck:
    """A baseline, the tolerances, and how models are measured to be compared with it."""

    baseline: Baseline
    tolerances: Tolerances = field(default_factory=Tolerances)
    options: RerunOptions = field(default_factory=RerunOptions)
    changes: Changes = field(default_factory=Changes)
    together: Together = field(default_factory=Together)
    inputs: dict[str, tuple[DetectorFinding, ...]] = field(default_factory=dict)
    asked: dict[str, Asked] = field(default_factory=dict)

    @property
    def suites(self) -> Mapping[str, Suite]:
        """The suites whose metrics are compared, by name."""
        return self.options.run.toolkit().suites

    def check(self, model: Any, name: str | None = None) -> list[VariantReport]:
        """Measure `model` (a reference, a module or an opened model) and compare it.

        `name` is its name in the baseline. There is one report for each kernel padding there.
        Raises `UnknownNameError` when the baseline does not have the model; a measurement that
        fails is a verdict.
        """
        known = baseline_name(model, name)
        fills = self.baseline.fills(known)
        try:
            other = self._other_input(model, known)
            if other:
                return other
            made = self._measure(model, known, fills, self.options.run)
            return [self._compare(known, fill, made) for fill in fills]
        except Exception as error:  # whatever breaks, the other models are still compared
            return [refused(known, fill, reason_of(error)) for fill in fills]

    def measure_noise(self, model: Any, name: str | None = None) -> list[VariantReport]:
        """Measure the noise floor and the fingerprint and store both next to the baseline.

        Reports as `check` does; nothing is stored for a variant that differs from the baseline.
        """
        return self._after_runs(model, name, self._with_noise)

    def accept(self, model: Any, name: str | None = None) -> list[VariantReport]:
        """Measure `model` as `measure_noise` does, and add it to the `changes` of the baseline.

        The reports say what has changed; a variant that cannot be measured is not accepted.
        """
        return self._after_runs(model, name, self._accepted)

    def _after_runs(
        self, model: Any, name: str | None, report: Callable[[str, str, Runs], VariantReport]
    ) -> list[VariantReport]:
        """The `report` on each kernel padding after the runs that show its noise floor."""
        known = baseline_name(model, name)
        fills = self.baseline.fills(known)
        try:
            runs = noise.measure_runs(self.options.run, partial(self._measure, model, known, fills))
            own = {f: {run: _of_fill(made, f) for run, made in runs.items()} for f in fills}
            return [report(known, fill, own[fill]) for fill in fills]
        except Exception as error:  # whatever breaks, the other models are still looked at
            return [refused(known, fill, reason_of(error)) for fill in fills]

    def _accepted(self, name: str, fill: str, own: Runs) -> VariantReport:
        made = next(iter(own.values()))
        report = self._compare(name, fill, made)
        try:
            self.changes.accept((name, fill), made, noise.floor_of(own))
        except PerimetryError as error:
            return refused(name, fill, str(error))
        notes = [
            f"accepted: {f.detector} {f.where}: {f.text}"
            for f in report.findings
            if f.verdict is not RegressionVerdict.same
        ]
        count = f"{counted(len(notes), 'change')} accepted"
        done = f"{count}: records, fingerprint, noise floor and manifest are new"
        finding = DetectorFinding("baseline", "variant", RegressionVerdict.same, done)
        more = [note for note in report.notes if note != NO_FINGERPRINT]
        return VariantReport(name, fill, (finding,), (done, *notes, *more), changed=count)

    def drop(self, model: Any, name: str | None = None) -> list[VariantReport]:
        """Add to the `changes` of the baseline that all variants of `model` go."""
        known = baseline_name(model, name)
        reports = []
        for fill in self.baseline.fills(known):
            self.changes.gone.append((known, fill))
            finding = DetectorFinding("baseline", "variant", RegressionVerdict.same, "dropped")
            reports.append(VariantReport(known, fill, (finding,), changed="dropped"))
        return reports

    def _with_noise(self, name: str, fill: str, own: Runs) -> VariantReport:
        """Compare one variant by its new noise floor, and store that if it does not differ."""
        floor, first = noise.floor_of(own), next(iter(own.values()))
        report = self._compare(name, fill, first, floor)
        if report.verdict is not RegressionVerdict.same:
            return report
        print_ = next(r for r in first if r.suite == NAME)
        noise.store_noise(self.baseline.place, {(name, fill): (floor, print_)})
        kinds = {"metric": floor.metrics, "map": floor.maps, "feature": floor.stages}
        text = ", ".join(f"{k} {max(v.values(), default=0.0):.1e}" for k, v in kinds.items())
        notes = [note for note in report.notes if note != NO_FINGERPRINT]
        stored = f"noise floor and fingerprint stored; largest change: {text}"
        return replace(report, notes=(*notes, stored))

    def expect(self, models: Sequence[Any], name: str | None, repetitions: int = 1) -> None:
        """Say which models will be measured, so that one set of workers measures all of them.

        The inputs of all files are read in one process. `repetitions` is how often each of the
        models is measured.
        """
        asked = []
        for model in models:
            known = baseline_name(model, name)
            with contextlib.suppress(PerimetryError):  # reported where the model is measured
                asked.append(self._asked(model, known, self.baseline.fills(known)))
        self._look_at_inputs(asked)
        self.together.expected = [one for one in asked if not self.inputs[_key(one)]]
        self.together.repetitions = repetitions

    def _look_at_inputs(self, asked: Sequence[Asked]) -> None:
        """Find how the inputs of models differ from those in the baseline."""
        found = known_inputs([(one.model, one.spec.settings) for one in asked], self.options.run)
        for one, fields in zip(asked, found, strict=True):
            stored = (r for f in one.fills for r in self.baseline.variants[str(one.name), f])
            self.inputs[_key(one)] = tuple(input_findings(spec_of(stored), fields))

    def _asked(self, model: Any, name: str, fills: Sequence[str]) -> Asked:
        """What to measure: all that the baseline has of the model, and its fingerprint.

        It is found once: the images of a folder are hashed for it.
        """
        key = _key_of(model, name)
        if key not in self.asked:
            stored = [record for fill in fills for record in self.baseline.variants[name, fill]]
            spec = run_spec_of(stored, self.options)
            settings = sized_as(model, spec.settings, spec_of(stored))
            spec = RunSpec(settings, (*spec.suites, NAME))
            self.asked[key] = Asked(model, spec, parse_fills(fills), name)
        return self.asked[key]

    def _other_input(self, model: Any, name: str) -> list[VariantReport]:
        """A report for each kernel padding if the model is known to take another input.

        Nothing is measured then: the two would not see the same pixels.
        """
        fills = self.baseline.fills(name)
        one = self._asked(model, name, fills)
        if _key(one) not in self.inputs:
            self._look_at_inputs([one])
        changed = self.inputs[_key(one)]
        return [VariantReport(name, fill, changed) for fill in fills] if changed else []

    def _measure(
        self, model: Any, name: str, fills: Sequence[str], run: RunOptions, part: str = ""
    ) -> list[Record]:
        """The records of the model now, fingerprints included, under its name in the baseline."""
        run = replace(run, toolkit=WithFingerprint(run.toolkit))
        made = self.together.measure(self._asked(model, name, fills), run, part)
        for record in made:
            record.model = record.model.model_copy(update={"reference": name})
        return made

    def _compare(
        self, name: str, fill: str, made: Sequence[Record], floor: noise.Floor | None = None
    ) -> VariantReport:
        """Compare one variant of what was measured now with the baseline, by `floor` or its own."""
        records, made = self.baseline.variants[name, fill], _of_fill(made, fill)
        changed = input_findings(spec_of(records), spec_of(made))
        if changed:
            return VariantReport(name, fill, tuple(changed))
        known = floor or self.baseline.floors.find(name, fill)
        detectors = DetectorSet(self.tolerances, known, self.suites)
        now = {(r.suite, r.protocol): r for r in made}
        findings = meaningless_findings(records, made)
        for record in records:
            findings += detectors.record(record, now.get((record.suite, record.protocol)))
        old = self.baseline.fingerprints.get((name, fill))
        findings += detectors.fingerprint(old, now.get(CELL))
        notes = _notes(records, made, old, now.get(CELL))
        found = tuple(said_once(findings))
        return VariantReport(name, fill, found, tuple(notes), seconds=_seconds(made))


def _seconds(made: Sequence[Record]) -> float:
    """How long the records of one variant took; opening and gradients are shared by all."""
    own = sum(record.timing.measure_s for record in made)
    opened = max((record.timing.load_s for record in made), default=0.0)
    return own + opened + max((record.timing.gradients_s for record in made), default=0.0)


def baseline_name(model: Any, name: str | None) -> str:
    """The name of a model in the baseline."""
    if name is not None or isinstance(model, str):
        return name or model
    return str(getattr(model, "reference", f"module:{type(model).__name__}"))


def _key(one: Asked) -> str:
    return _key_of(one.model, str(one.name))


def _key_of(model: Any, name: str) -> str:
    """What a model is known by within a check: its name in the baseline, and what was given."""
    return f"{name} {model if isinstance(model, str) else id(model)}"


def _of_fill(records: Sequence[Record], fill: str) -> list[Record]:
    return [record for record in records if record.fill == fill]


def _notes(
    records: Sequence[Record], made: Sequence[Record], old_print: Record | None, new: Record | None
) -> list[str]:
    """What changes the meaning of all numbers, what was not compared, and what else changed."""
    found = said_first(made)
    if old_print is None:
        found.append(NO_FINGERPRINT)
    elif new is not None:
        found += [f"not looked at: {text}" for text in not_looked_at(old_print, new)]
    without = [record for record in records if record.left_without_maps]
    if without:
        text = "the baseline has no maps, so maps are not compared"
        unpaired = "; it has no draws, so changes of metrics count only beyond unpaired intervals"
        found.append(text if any(r.draws for r in without) else text + unpaired)
    before, now = records[0], made[0]
    if changed_tensors(before.model.source, now.model.source):
        found.append("the sha256 of the weights is not that of the baseline")
    for kind in ("device_name", "libraries"):
        had, has = getattr(before.environment, kind), getattr(now.environment, kind)
        if had != has:
            found.append(f"{kind.replace('_', ' ')} differ from the baseline: {_changes(had, has)}")
    return found


def _changes(before: Any, now: Any) -> str:
    if not isinstance(before, dict):
        return f"{before} -> {now}"
    names = sorted(n for n in before.keys() | now.keys() if before.get(n) != now.get(n))
    return ", ".join(f"{n} {before.get(n, 'none')} -> {now.get(n, 'none')}" for n in names)
