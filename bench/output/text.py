"""Names and messages of models and records, made safe to show."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


LONGEST = 1000


def clean(text: str, longest: int = LONGEST) -> str:
    """One line without control, format or separator characters, which become visible escapes.

    No terminal escape, line break or change of writing direction survives. A text longer than
    `longest` characters loses its middle.
    """
    shown = text if text.isprintable() else "".join(map(_visible, text))
    if len(shown) <= longest:
        return shown
    end = (longest - 3) // 2
    return f"{shown[: longest - 3 - end]}...{shown[-end:]}"


def counted(count: int, what: str) -> str:
    """`1 record`, `2 records`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def days(times: Iterable[str]) -> str:
    """The day of `times` in ISO format, or the first and the last of several."""
    found = sorted({time[:10] for time in times})
    return found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}"


def code(text: str) -> str:
    """A Markdown code span: no markup, HTML, link or mention in it is live; fits a table cell."""
    inside = clean(text).replace("`", "'").replace("|", "\\|")
    return f"`{inside}`" if inside.strip() else "` `"


def escape_markdown(text: str, special: str = "\\`*_[]<>|#~") -> str:
    """`text` in which no character of `special` is read as Markdown."""
    return "".join(f"\\{char}" if char in special else char for char in clean(text, 4000))


def spreadsheet(text: str) -> str:
    """Text that a spreadsheet does not read as a formula."""
    shown = clean(text, longest=10_000)
    return f"'{shown}" if shown[:1] in tuple("=+-@") else shown


def ascii_only(text: str, longest: int = 80) -> str:
    """Text that every font can draw."""
    return clean(text, longest).encode("ascii", "backslashreplace").decode()


def _visible(char: str) -> str:
    if char == " " or unicodedata.category(char)[0] not in "CZ":
        return char
    return char.encode("unicode_escape", "backslashreplace").decode() if ord(char) != 160 else " "
