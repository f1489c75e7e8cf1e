"""Keyword arguments of the public functions: those that are fields of a class of options."""

from __future__ import annotations

from dataclasses import fields
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, TypeVar

from ...adapters.errors import UnknownNameError, unknown
from .settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)


def read_keywords(function: Callable[..., Any], kind: type[T], given: Mapping[str, object]) -> T:
    """The options of class `kind` that `function` was `given` as keyword arguments.

    Raises `UnknownNameError` for a keyword that is no field of `kind`; it names those that there
    are, and says where a setting of an audit belongs.
    """
    names = [field.name for field in fields(kind)]
    for name in given:
        if name not in names:
            raise UnknownNameError(_refusal(function, name, names))
    made: Any = kind
    return made(**given)  # type: ignore[no-any-return]


def _refusal(function: Callable[..., Any], name: str, options: list[str]) -> str:
    parameters = signature(function).parameters
    own = [p.name for p in parameters.values() if p.kind is Parameter.KEYWORD_ONLY]
    what = f"option of {function.__name__}"
    if is_setting(name):
        where = (
            f"give settings=Settings({name}=...), from perimetry.bench.execution.settings"
            if "settings" in own
            else "models are measured with the settings of the stored records"
        )
        return f"unknown {what} {name!r}, a setting of an audit; {where}"
    every = [*own, *options]
    near = unknown(what, name, every)
    return near if "known: " in near else f"{near} Known: {', '.join(every)}"


def is_setting(name: str) -> bool:
    """Whether `name` is a field of `Settings`."""
    return name in {field.name for field in fields(Settings)}
