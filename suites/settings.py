"""Settings of suites: the fields of their dataclasses, set by name from text or values."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, cast, get_type_hints

from pydantic import TypeAdapter, ValidationError

from ..adapters.errors import InputError, UnknownNameError, check_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .base import Suite


def configure(
    suites: Mapping[str, Suite], options: Mapping[str, Mapping[str, Any]]
) -> dict[str, Suite]:
    """Copies of `suites` with fields set by suite name and field name.

    Text is parsed according to the field's type: `3,3` as (3, 3), `none` as None. Raises
    `UnknownNameError` with similar names, `InputError` for a value that the field or the suite
    refuses.
    """
    changed = dict(suites)
    for name, values in options.items():
        suite = suites[check_name("suite", name, suites)]
        for key in values:
            _check_setting(suite, name, key)
        parsed = {key: _parse(suite, key, value) for key, value in values.items()}
        changed[name] = cast("Suite", replace(cast("Any", suite), **parsed))
    return changed


def _check_setting(suite: Suite, name: str, key: str) -> None:
    """Raise `UnknownNameError` if the suite called `name` has no setting `key`."""
    known = settings_of(suite)
    if not known:
        raise UnknownNameError(f"unknown setting {key!r} of {name}, which has no settings")
    check_name(f"setting of {name}", key, known)


def settings_of(suite: Suite, protocol: str | None = None) -> dict[str, Any]:
    """The settings of `suite` and their values; with a `protocol`, only those that it uses.

    A field that only one protocol uses names it in its metadata.
    """
    if not is_dataclass(suite) or isinstance(suite, type):
        return {}
    return {
        f.name: value
        for f, value in zip(fields(suite), asdict(suite).values(), strict=True)
        if protocol is None or f.metadata.get("protocol", protocol) == protocol
    }


def parse_options(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """Parse `SUITE.FIELD=VALUE` texts. Raises `InputError` for anything else."""
    options: dict[str, dict[str, str]] = {}
    for text in texts:
        place, equals, value = text.partition("=")
        suite, dot, key = place.strip().partition(".")
        if not (equals and dot and suite and key):
            raise InputError(f"setting {text!r}; expected SUITE.FIELD=VALUE, such as erf.unit=3,3")
        options.setdefault(suite, {})[key] = value.strip()
    return options


def _parse(suite: Suite, key: str, value: Any) -> Any:
    """The value of a field, checked against its type; text of one item may be a list of one."""
    kind, text = _types(suite)[key], isinstance(value, str)
    read = _read(value) if text else value
    try:
        return TypeAdapter(kind).validate_python(read)
    except ValidationError as error:
        if text and error.errors()[0]["type"] == "tuple_type":
            with contextlib.suppress(ValidationError):
                return TypeAdapter(kind).validate_python([read] if value else [])
        wanted = str(kind).replace("typing.", "")
        raise InputError(
            f"{suite.name}.{key} = {value!r} cannot be used ({error.errors()[0]['msg']}); "
            f"expected {getattr(kind, '__name__', wanted)}, default {getattr(suite, key)!r}"
        ) from error


def _types(suite: Any) -> dict[str, Any]:
    """Resolved types of the fields."""
    # Not of the class: annotations of class variables use imports made for the type checker only.
    declared = type("Fields", (), {"__annotations__": {f.name: f.type for f in fields(suite)}})
    return get_type_hints(declared, globalns=vars(sys.modules[type(suite).__module__]))


def _read(text: str) -> Any:
    """Parse JSON, a comma-separated list of it, `none`, or plain text."""
    if text.lower() == "none":
        return None
    if "," in text and not text.startswith(("[", "{")):
        return [_read(part.strip()) for part in text.split(",") if part.strip()]
    try:
        return json.loads(text)
    except ValueError:
        return text
