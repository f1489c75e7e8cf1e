"""`check`: compare a model with its baseline. Three verdicts, and never a silent pass.

*regressed*: a detector found a change; *not shown to differ*: none did; *could not measure*: the
two could not be compared. The settings are taken from the baseline's records.

Detectors
---------
finite
    Weights or outputs are NaN or infinite, or an output is the same for different images, and the
    baseline's were not.
dead region
    A region of dead pixels is new, or has grown beyond the absolute tolerance of
    `SUITE.dead_regions`; it is named with its box in pixels.
metric
    A metric changed beyond the 95 % interval of its paired difference to the baseline AND beyond
    its tolerance (see `tolerances`), which is at least `noise_factor` times the measured noise
    floor (see `noise_floor`). Estimates without an interval, and exact values, count by tolerance
    alone.
map
    |now - baseline| / |baseline| of a stored map beyond its tolerance. The store keeps
    maps with 11 bits, which is far more precise.
fingerprint
    Features or outputs on the baseline's images changed beyond tolerance; the first such
    stage is reported, or each such output where all stages are as they were. It
    needs a fingerprint in the baseline, which `perimetry check --measure-noise` stores.
preprocessing
    The model declares other preprocessing (size, mean, standard deviation, crop ...). Then nothing
    else is compared, since the two did not see the same pixels.

Changes in both directions count: fewer dead pixels are not always better. With `direction =
"worse"` in the tolerances, changes towards an even model pass. Records with different protocols,
settings or images, and measurements that fail, count as *could not measure*.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from ...adapters.errors import InputError, UnknownNameError
from ..comparison.fingerprint import beside
from ..execution.keywords import read_keywords
from ..execution.rerun import RerunOptions
from ..records.archive import open_records
from ..records.manifest import list_check
from ..records.store import Store
from .baseline import Baseline, change, check_changeable, columns_of, open_baseline, recover
from .model_check import ModelCheck, baseline_name
from .noise_floor import RUNS
from .result import RegressionCheck, RegressionVerdict, VariantReport, failed_report, refused
from .tolerances import Tolerances, check_patterns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..execution.rerun import RerunFields


Action = Literal["check", "measure_noise", "accept", "drop"]
"""What is done with a model: see `check`."""


def check(
    baseline: Path | str,
    *models: Any,
    tolerances: Tolerances | None = None,
    name: str | None = None,
    action: Action = "check",
    **options: Unpack[RerunFields],
) -> RegressionCheck:
    """Compare `models`, or all models of `baseline`, with their records in the baseline.

    `name` is the name in the baseline of the one model given; `options` are the fields of
    `execution.rerun.RerunOptions`. `action` says what else is done: with `measure_noise` the noise
    floor and the fingerprints are stored next to the baseline, with `accept` all that the baseline
    has of the models is replaced by what they are now, with `drop` it is removed (see `baseline`);
    the reports then say what changed. A model that the baseline does not have could not be
    measured, and the others are checked; nothing is accepted or dropped then. Raises `InputError`,
    `UnknownNameError` and `StoreError` for a baseline that cannot be used, for a name to accept or
    drop that it does not have, and for tolerances of metrics that it does not have. What of the
    baseline is damaged or missing is a report of its own, so that the check does not pass.
    """
    rerun_options = read_keywords(check, RerunOptions, options)
    place = Path(baseline)
    if action in ("accept", "drop"):
        recover(place)
    opened = open_baseline(place, rerun_options.where)
    checker = ModelCheck(opened, tolerances or Tolerances(), rerun_options)
    if name is not None and len(models) != 1:
        raise InputError(f"one name was given for {len(models)} models; expected exactly one model")
    columns = columns_of(opened.records, checker.suites)
    check_patterns(checker.tolerances, columns, str(baseline))
    targets = models or opened.references
    if action in ("accept", "drop"):
        if action == "drop" and not models:
            raise InputError("no model was named; expected the names of the models to drop")
        check_changeable(opened, whole=action == "accept" and not models)
        _check_known(opened, [baseline_name(model, name) for model in targets])
    if action != "drop":
        checker.expect(targets, name, 1 if action == "check" else RUNS)
    reports: list[VariantReport] = []
    for model in targets:
        reports += _timed(checker, action, model, name)
    if action in ("accept", "drop"):
        _change_once(checker, action)
        return RegressionCheck(str(opened.place), tuple(reports))
    if action == "measure_noise":
        _list_noise(opened, reports)
    if opened.problems:
        reports.insert(0, failed_report(str(baseline), opened.problems))
    return RegressionCheck(str(baseline), tuple(reports), opened.problems)


def _check_known(baseline: Baseline, names: Sequence[str]) -> None:
    """Raise one `UnknownNameError`, before anything is measured, for names it does not have."""
    faults = []
    for name in names:
        try:
            baseline.fills(name)
        except UnknownNameError as error:
            faults.append(str(error))
    if faults:
        raise UnknownNameError(f"nothing was changed; {'; '.join(faults)}")


def _change_once(checker: ModelCheck, action: Action) -> None:
    """Change the baseline by all that was accepted or dropped."""
    if set(checker.changes.gone) >= checker.baseline.variants.keys() and action == "drop":
        raise InputError("these are all models of the baseline; remove its folder instead")
    if checker.changes.gone:
        change(checker.baseline, checker.changes)


def _list_noise(baseline: Baseline, reports: Sequence[VariantReport]) -> None:
    """Enter noise floors and fingerprints in the manifest, unless others than these are damaged."""
    stored = {(r.reference, r.fill) for r in reports if r.verdict is RegressionVerdict.same}
    own, store = str(beside(baseline.place)), open_records(baseline.place)
    damaged = any(own in text for text in baseline.problems)
    if isinstance(store, Store) and (stored >= baseline.variants.keys() or not damaged):
        list_check(store)


def _timed(
    checker: ModelCheck, action: Action, model: Any, name: str | None
) -> list[VariantReport]:
    """The reports on one model, with the time that its records took, else equal parts of it all.

    A name that the baseline does not have is an error of this model alone.
    """
    begun = time.perf_counter()
    try:
        reports: list[VariantReport] = getattr(checker, action)(model, name)
    except UnknownNameError as error:
        new = " (`perimetry run` adds a new model)" if action == "check" else ""
        reports = [refused(baseline_name(model, name), "none", f"{error}{new}")]
    seconds = (time.perf_counter() - begun) / len(reports)
    return [replace(report, seconds=report.seconds or seconds) for report in reports]
