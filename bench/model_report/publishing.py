"""Results for other places: `perimetry publish --format hf-eval`.

The Hugging Face hub reads `.eval_results/*.yaml` in the repository of a model: a list of entries
with `dataset` (`id` of a benchmark dataset on the hub, `task_id` as its `eval.yaml` names it,
`revision`), `value`, `date`, `source` (`url`, `name`, `user`) and `notes`
(https://huggingface.co/docs/hub/eval-results). A file is of one variant of a model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...adapters.errors import InputError, check_name
from ..output.numbers import format_number
from ..output.text import clean
from .reported import reported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .case import Case
    from .reported import ReportedRecord

DATASET = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Attribution:
    """Where the results can be looked up: an address, the words for it, and a user of the hub."""

    url: str | None = None
    name: str | None = None
    user: str | None = None


def eval_results(
    case: Case,
    dataset: str,
    *,
    metrics: Sequence[str] = (),
    revision: str | None = None,
    source: Attribution | None = None,
) -> str:
    """The entries of a case as YAML, one for each of `metrics`, or each suite's headline.

    `dataset` is ORG/NAME of the benchmark on the hub; tasks are named as the metrics are, such as
    `deadpixel.weakest`. Raises `InputError` for another `dataset` or a `source` without an address,
    `UnknownNameError` for a metric without a value.
    """
    import yaml

    if not DATASET.fullmatch(dataset):
        raise InputError(f"--dataset {dataset!r} was given; expected ORG/NAME of a dataset")
    if source is not None and not source.url and (source.name or source.user):
        raise InputError("a source was named without an address; expected --source-url too")
    found = reported(case.records, case.suites)
    known = {f"{one.column}.{name}": (one, name) for one in found for name in one.names}
    wanted = list(metrics) or [f"{one.column}.{one.headline}" for one in found if one.headline]
    for name in wanted:
        check_name("metric", name, known)
    if not wanted:
        raise InputError(f"{case.reference!r} has no headline metric; expected a finished record")
    entries = []
    for task in wanted:
        one, name = known[task]
        entry: dict[str, Any] = {"dataset": {"id": dataset, "task_id": task}}
        if revision:
            entry["dataset"]["revision"] = revision
        entry |= {"value": _value(one, name), "date": one.record.created[:10]}
        if source is not None and source.url:
            parts = {"url": source.url, "name": source.name, "user": source.user}
            entry["source"] = {key: text for key, text in parts.items() if text}
        entries.append({**entry, "notes": _notes(one, name)})
    text: str = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=1000)
    return text


def _value(one: ReportedRecord, name: str) -> float:
    value = one.record.metrics[name].value
    if value is None:
        raise KeyError(name)
    return float(f"{value:.6g}")


def _notes(one: ReportedRecord, name: str) -> str:
    """Interval, protocol, images and variant of a number."""
    record, value = one.record, one.record.metrics[name]
    parts = []
    if value.low is not None and value.high is not None:
        parts.append(f"95 % interval {format_number(value.low)} to {format_number(value.high)}")
    parts.append(f"{record.suite}:{record.protocol} version {record.version}")
    if record.images is not None:
        parts.append(f"{record.images.count} x {record.images.name}, seed {record.seed}")
    parts += [f"kernel padding {record.fill}"] if record.fill != "none" else []
    return clean("; ".join(parts), 400)
