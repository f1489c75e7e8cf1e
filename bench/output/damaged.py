"""Reading what a damaged or foreign record may lack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable


T = TypeVar("T")


MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError)
"""What a record of another version, or a damaged one, raises where it lacks what is looked for."""


def try_or_none(make: Callable[..., T], *arguments: Any) -> T | None:
    """What `make` gives, or None where the record lacks what it speaks of."""
    try:
        return make(*arguments)
    except MALFORMED:
        return None
