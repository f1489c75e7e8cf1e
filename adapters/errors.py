"""Every error perimetry raises on purpose: what was given, what was expected, what to do."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class PerimetryError(Exception):
    """Base of all errors of this package; its text is meant for the user."""


class UnknownNameError(PerimetryError, LookupError):
    """A name (model, suite, metric, layer) that does not exist; the message offers near ones."""


class WeightsError(PerimetryError, OSError):
    """Weights that are neither cached nor reachable, or do not fit the architecture."""


class ModelFileError(PerimetryError, ValueError):
    """A model file that cannot be read, or that is not what its name says."""


class InputError(PerimetryError, ValueError):
    """Images or settings that the model or the suite does not accept."""


class NotApplicableError(PerimetryError, NotImplementedError):
    """The measurement does not apply to this model; its text is the reason, stored in a skip."""


class NotMeasuredError(PerimetryError, RuntimeError):
    """A model of which nothing could be measured; the message says why."""


NO_GRADIENTS = "no gradient route: "
"""Prefix of the reason why a model has forward passes only."""

NOT_FINITE = "NaN or infinite: "
CONSTANT = "constant: "
NO_MAPS = (
    "these records have no maps to draw; packed files leave maps out: give the folder of the run, "
    "or measure again"
)
IMPORTED = "imported: "
SAID_FIRST = (NOT_FINITE, CONSTANT, IMPORTED)
"""Prefixes of notes that change what all numbers mean; every report shows them first."""
MEANINGLESS = (NOT_FINITE, CONSTANT)
"""Those of them that say what is wrong with the model."""

FEW = 20
"""When no name is near, all names are listed if there are at most this many."""


def check_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return `name` if it is among `known`. Raises `UnknownNameError` with near names."""
    names = list(known)
    if name in names:
        return name
    raise UnknownNameError(unknown(kind, name, names))


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown name: the name, and near names or the number of names."""
    names = [n for n in known if n]
    near = get_close_matches(name, names, n=5, cutoff=0.5)
    near += [n for n in names if name in n and n not in near][: 5 - len(near)]
    if near:
        hint = f"did you mean {', '.join(near)}?"
    else:
        few = len(names) <= FEW
        hint = f"known: {', '.join(names)}" if few else f"{len(names)} are known"
    return f"unknown {kind} {name!r}; {hint}"
