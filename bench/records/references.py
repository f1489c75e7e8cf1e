"""What the reference of a record says: its file, its declared input, and the names it goes by."""

from __future__ import annotations

import json
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from ...adapters.errors import InputError, UnknownNameError, unknown
from ...adapters.reference import Reference
from ..output.numbers import join_with_and

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...adapters.treatment import Fill
    from .record import Record


def takes_inputs(reference: str) -> bool:
    """Whether declared inputs apply to `reference`: to all whose library states none."""
    return not Reference.parse_any(reference).states_input


def same_file(first: str, second: str) -> bool:
    """Whether two references name the same ONNX file, possibly by different paths."""
    if any(Reference.parse_any(text).runtime != "onnx" for text in (first, second)):
        return False
    return Path(first).resolve() == Path(second).resolve()


def stated_inputs(record: Record) -> dict[str, Any]:
    """What was declared about the input and output of the file when `record` was made.

    If the command declared nothing, what was declared when the model was opened.
    """
    if record.inputs:
        return dict(record.inputs)
    try:
        declared = json.loads(record.model.source.get("inputs", "{}"))
    except ValueError:
        return {}
    return declared if isinstance(declared, dict) else {}


MOST_NAMES = 12


def _names(reference: str) -> tuple[str, ...]:
    """The names by which a user may refer to a model, the most exact one first."""
    parsed, path = Reference.parse_any(reference), PurePath(reference)
    return (reference, parsed.short, parsed.tagged_name, parsed.name, path.name, path.stem)


def find_reference(model: str | None, references: Sequence[str]) -> str:
    """The one reference in `references` that `model` names.

    `model` may be the reference itself, the reference without `timm:` or tag, the name of a file,
    or any part that occurs in one reference only.
    """
    if model is None and len(references) == 1:
        return references[0]
    if model is None:
        raise InputError(
            f"no model was named, and there are {len(references)}; name one of "
            f"{', '.join(references[:MOST_NAMES])}{' ...' * (len(references) > MOST_NAMES)}"
        )
    for names in zip(*map(_names, references), strict=True):
        found = [r for r, name in zip(references, names, strict=True) if name == model]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(f"{model!r} matches {join_with_and(found)}; name one of them")
    within = [r for r in references if model and model in r]
    if len(within) == 1:
        return within[0]
    if within:
        raise InputError(f"{model!r} matches {join_with_and(within)}; name one of them")
    raise UnknownNameError(unknown("model", model, references))


UNTREATED: Fill = "none"
"""The kernel padding of a model that is as it was published."""


def choose_fill(fills: Iterable[str], wanted: str | None, of: str) -> str:
    """The kernel padding `wanted` among those of the records `of` a model.

    Unless one is wanted, that of the untreated model, or else the first. Raises `UnknownNameError`.
    """
    known = sorted(set(fills))
    chosen = wanted or (UNTREATED if UNTREATED in known else known[0])
    if chosen in known:
        return chosen
    raise UnknownNameError(
        f"no record of {of} has kernel padding {chosen!r}; those that it has: {', '.join(known)}"
    )


def spec_of(records: Iterable[Record]) -> dict[str, Any]:
    """The fields of the input of one model, whichever of its records has them; else empty."""
    return next((record.model.spec for record in records if record.model.spec), {})
