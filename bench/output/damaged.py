"""Errors that a damaged record, or one of another version, raises when it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable


T = TypeVar("T")

MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError)
"""Errors for parts that a damaged record, or one of another version, does not have."""


def try_or_none(make: Callable[..., T], *arguments: Any) -> T | None:
    """The result of `make`, or None if the record does not have what `make` needs."""
    try:
        return make(*arguments)
    except MALFORMED:
        return None
