"""What a run does besides for files that do not tell everything.

A model whose gradients cannot be trusted is measured by forward passes alone, in a second round
over the suites of `STAND_INS`; and whoever gave a file whose input had to be guessed is told so.
The second round is planned from the records of the first, so that a run which is killed in between
and given again makes it all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...adapters.errors import NO_GRADIENTS
from ..output.text import clean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from ..records.record import Record
    from .plan import Job


STAND_INS = ("perturbation", "erf:blocks")
"""What forward passes alone tell of phases and of the receptive field."""


def without_gradients(records: Iterable[Record]) -> list[str]:
    """References of models some of whose records were skipped for want of gradients, each once."""
    return list(_reasons(records))


def _reasons(records: Iterable[Record]) -> dict[str, str]:
    """Why models have no gradients, by reference."""
    return {
        r.model.reference: r.reason
        for r in records
        if r.status == "skipped" and r.reason and r.reason.startswith(NO_GRADIENTS)
    }


def black_box_suites(jobs: Sequence[Job], known: Collection[str]) -> list[str]:
    """Those of `STAND_INS` whose suite is among `known` and that `jobs` do not hold yet."""
    held = {name for j in jobs for c in j.cells for name in (c.suite, f"{c.suite}:{c.protocol}")}
    return [n for n in STAND_INS if n.partition(":")[0] in known and n not in held]


def forecast_black_box(
    records: Sequence[Record], count: int, settings: Mapping[str, Any]
) -> list[str]:
    """What forward passes alone will cost each model without gradients, before they are made.

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
    for name, reason in _reasons(records).items():
        size = specs[name]["height"], specs[name]["width"]
        blocks = len(block_places(*size, field.block or default_block(*size)))
        cost = comb.passes(count) + block_passes(blocks, min(count, field.block_images))
        found.append(
            f"{clean(name)}: {clean(reason)}; now measured by forward passes alone, about "
            f"{cost} a kernel padding; twice as many if the network rounds"
        )
    return found


def remarks(records: Sequence[Record]) -> list[str]:
    """What to tell about files: what was guessed of their input, and why forward passes only."""
    found: dict[str, None] = {}
    for record in records:
        name, guessed = clean(record.model.reference), record.model.spec.get("guessed")
        if guessed:
            found[
                f"{name}: guessed of its input: {', '.join(guessed)}; state them by --input "
                "KEY=VALUE or in a TOML file of the same name beside it"
            ] = None
    for name, reason in _reasons(records).items():
        found[
            f"{clean(name)}: {clean(reason)}; measured by forward passes alone, as "
            f"{' and '.join(STAND_INS)}{_headlines(records, name)}"
        ] = None
    return list(found)


def _headlines(records: Iterable[Record], reference: str) -> str:
    """What forward passes alone said of the untreated model's phases, as a clause."""
    names = ("comb_weakest", "comb_imbalance", "comb_error")
    for record in records:
        if (record.model.reference, record.fill, record.suite) == (reference, "none", STAND_INS[0]):
            told = [f"{n} {v.value:.3f}" for n in names if (v := record.metrics.get(n)) and v.value]
            return f": {', '.join(told)}" if told else ""
    return ""
