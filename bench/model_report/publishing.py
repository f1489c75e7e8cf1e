"""Results for other places: `perimetry publish --format hf-eval`, and a section of a model card.

The section is Markdown, `perimetry show --format card`.

The Hugging Face hub reads `.eval_results/*.yaml` in the repository of a model: a list of entries
with `dataset` (`id` of a benchmark dataset on the hub, `task_id` as its `eval.yaml` names it,
`revision`), `value`, `date`, `source` (`url`, `name`, `user`) and `notes`
(https://huggingface.co/docs/hub/eval-results). A file is of one variant of a model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from ...adapters.errors import InputError, check_name
from ..output.files import try_or_none
from ..output.layout import tabulated
from ..output.numbers import format_number, six_digits
from ..output.text import clean, code, escape_markdown
from ..records.selection import is_imported
from .provenance import images_line, repeat
from .report import summary
from .reported import reported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .case import Case
    from .reported import ReportedRecord


CARD_HEADS = ("metric", "what", "value", "if even")

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
    return six_digits(value)


def _notes(one: ReportedRecord, name: str) -> str:
    """Interval, protocol, images and variant of a number; then what is certainly wrong."""
    record, value = one.record, one.record.metrics[name]
    parts = []
    if value.low is not None and value.high is not None:
        parts.append(f"95 % interval {format_number(value.low)} to {format_number(value.high)}")
    parts.append(f"{record.suite}:{record.protocol} version {record.version}")
    if record.images is not None:
        parts.append(f"{record.images.count} x {record.images.name}, seed {record.seed}")
    parts += [f"kernel padding {record.fill}"] if record.fill != "none" else []
    parts += one.defects
    return clean("; ".join(parts), 600)


def card(case: Case) -> str:
    """The section: three lines, main metrics with intervals, how it was made, and the command."""
    found = reported(case.records, case.suites)
    padding = "" if case.fill == "none" else f", kernel padding {clean(case.fill, 20)}"
    rows = [row for one in found for row in _rows(one)]
    protocols = sorted({f"{o.record.suite}:{o.record.protocol} {o.record.version}" for o in found})
    images = escape_markdown(images_line(case.records))
    imported = is_imported(case.records[0])
    made, ends = ("Imported", "") if imported else ("Measured", " Intervals are 95 %.")
    parts = [
        f"## Visual field{padding}",
        "\n".join(f"- {escape_markdown(line)}" for line in summary(case)),
        tabulated(CARD_HEADS, rows, "pipe", ("left", "left", "right", "right")) if rows else "",
        f"{made} with perimetry {metadata.version('perimetry')} as {code(case.reference)}; "
        f"protocols with versions: {', '.join(protocols)}; {images}.{ends}",
    ]
    command = try_or_none(repeat, case.records, case.suites)
    parts += [f"```\n{clean(command, 4000)}\n```"] if command and "`" not in command else []
    return "\n\n".join(part for part in parts if part) + "\n"


def _rows(one: ReportedRecord) -> list[tuple[str, ...]]:
    """The main metrics of a record: name, words, value with interval, and the even value."""
    found: list[tuple[str, ...]] = []
    for name in one.names:
        metric = one.metric(name)
        if metric.main or name == one.headline:
            even = "" if metric.even is None else f"{metric.even:g}"
            unit = "" if metric.unit in ("ratio", "share", "") else f" {metric.unit}"
            found.append(
                (
                    code(f"{one.column}.{name}"),
                    *map(escape_markdown, (one.label(name), one.text(name) + unit, even)),
                )
            )
    return found
