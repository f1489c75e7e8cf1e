"""HTML templates (Jinja2) and the static files of the package."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from .text import clean

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

LONGEST = 4000


def render(name: str, **parts: object) -> str:
    """The template `name`, filled in with `parts`.

    Every value loses its control characters and is escaped, unless it is `trusted`. Raises
    `jinja2.UndefinedError` for a part that is missing.
    """
    return _environment().get_template(name).render(parts)


def trusted(text: str) -> Markup:
    """Text of this package, which is put into a page as it is; never a record's or a model's."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - nothing that came from outside


def asset(name: str) -> str:
    """A file of the package as text."""
    return (files(__package__.rpartition(".")[0]) / "static" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    return Environment(
        loader=FunctionLoader(asset),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_cleaned,  # runs before a value is escaped
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _cleaned(value: object) -> object:
    return value if hasattr(value, "__html__") else clean(str(value), LONGEST)
