"""Models without reliable gradients are measured by forward passes alone, in a second round.

The second round measures the suites of `STAND_INS`. It is planned from the records of the first
round, so a run that was interrupted between the two resumes correctly.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...adapters.errors import NO_GRADIENTS
from ...adapters.input_spec import guessed_values
from ..output.text import clean
from ..records.parts import to_utf8

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from ..records.record import Record
    from .plan import AuditPlan, Job


STAND_INS = ("perturbation", "erf:blocks")
"""Suites that measure phases and the receptive field by forward passes alone."""


def measure_with_stand_ins(
    plan: AuditPlan,
    measure: Callable[[Sequence[Job]], list[Record]],
    announce: Callable[[Sequence[Record]], None] = lambda _records: None,
) -> list[Record]:
    """Measure the jobs of `plan`, then the stand-in suites for models without gradients.

    `measure` returns the records of the jobs it is given; `announce` is called with the records
    of the first round before a second one begins.
    """
    jobs = plan.jobs()
    records = measure(jobs)
    references, suites = why_no_gradients(records), black_box_suites(jobs, plan.known)
    if not references or not suites:
        return records
    announce(records)
    done = {cell.key for job in jobs for cell in job.cells}
    # records have names in UTF-8; files are opened by the names that the user gave
    given = [name for name in plan.references if to_utf8(name) in references]
    # by forward passes nothing says how many images a precision goal would take
    settings = replace(plan.settings, precision_goal=None)
    second = replace(plan, references=given, suites=suites, settings=settings).jobs()
    return records + measure([rest for job in second if (rest := job.without(done)).cells])


def why_no_gradients(records: Iterable[Record]) -> dict[str, str]:
    """Why there are no gradients, by reference of the models with records skipped for that."""
    return {
        r.model.reference: r.reason
        for r in records
        if r.status == "skipped" and r.reason and r.reason.startswith(NO_GRADIENTS)
    }


def black_box_suites(jobs: Sequence[Job], known: Collection[str]) -> list[str]:
    """The suites of `STAND_INS` that are among `known` and not in `jobs` yet."""
    planned = {name for j in jobs for c in j.cells for name in (c.suite, f"{c.suite}:{c.protocol}")}
    return [n for n in STAND_INS if n.partition(":")[0] in known and n not in planned]


def forecast_black_box(
    records: Sequence[Record], count: int, settings: Mapping[str, Any]
) -> list[str]:
    """Sentences that say how many forward passes each model without gradients will take.

    `count` is the number of images, `settings` are those of suites by suite and field.
    """
    from ...suites.erf.blocks import block_passes, block_places, default_block
    from ...suites.erf.suite import Erf
    from ...suites.perturbation.suite import Perturbation
    from ...suites.settings import configure

    suites: dict[str, Any] = {"erf": Erf(), "perturbation": Perturbation()}
    chosen: dict[str, Any] = {**configure(suites, {n: settings.get(n, {}) for n in suites})}
    field, comb = chosen["erf"], chosen["perturbation"]
    specs = {r.model.reference: r.model.spec for r in records if r.model.spec}
    found = []
    for name, reason in why_no_gradients(records).items():
        size = specs[name]["height"], specs[name]["width"]
        blocks = len(block_places(*size, field.block or default_block(*size)))
        cost = comb.passes(count) + block_passes(blocks, min(count, field.block_images))
        found.append(
            f"{clean(name)}: {clean(reason)}; measuring by forward passes alone, about {cost} "
            "passes per kernel padding; twice as many if the network rounds its activations"
        )
    return found


def remarks(records: Sequence[Record]) -> list[str]:
    """Sentences about model files: what was guessed of their input, and why only forward passes."""
    found: dict[str, None] = {}
    for record in records:
        name, guessed = clean(record.model.reference), guessed_values(record.model.spec)
        if guessed:
            found[
                f"{name}: the model does not declare all of its input; guessed: "
                f"{clean('; '.join(guessed), 400)}. Declare them with --input KEY=VALUE, or for "
                "an ONNX file in a TOML file of the same name next to it"
            ] = None
    for name, reason in why_no_gradients(records).items():
        found[
            f"{clean(name)}: {clean(reason)}; measured by forward passes alone, as "
            f"{' and '.join(STAND_INS)}{_headlines(records, name)}"
        ] = None
    return list(found)


def _headlines(records: Iterable[Record], reference: str) -> str:
    """The phase metrics that forward passes gave for the model without padding, as a clause."""
    names = ("comb_weakest", "comb_imbalance", "comb_error")
    for record in records:
        if (record.model.reference, record.fill, record.suite) == (reference, "none", STAND_INS[0]):
            values = [
                f"{n} {v.value:.3f}" for n in names if (v := record.metrics.get(n)) and v.value
            ]
            return f": {', '.join(values)}" if values else ""
    return ""
