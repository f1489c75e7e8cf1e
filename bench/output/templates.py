"""HTML templates and the static files of the package."""

from __future__ import annotations

import re
from importlib.resources import files

PLACE = re.compile(r"\{\{(\w+)\}\}")


def fill_in(template: str, **parts: str) -> str:
    """`template` with its `{{names}}` replaced; what is put in is not looked at again."""
    return PLACE.sub(lambda found: parts[found[1]], template)


def asset(name: str) -> str:
    """A file of the package as text."""
    return (files(__package__.rpartition(".")[0]) / "static" / name).read_text(encoding="utf-8")
