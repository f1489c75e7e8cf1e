"""A Markdown file with one measured part for each device, between marks; the rest is by hand."""

from __future__ import annotations

from pathlib import Path

from ..output.files import write_text


def marks(device: str) -> tuple[str, str]:
    """The lines before and after the part of a kind of device."""
    kind = device.partition(":")[0]
    return f"<!-- measured: {kind} -->", f"<!-- end: {kind} -->"


def write(path: Path, device: str, text: str) -> None:
    """Put `text` in place of the part of `device` in the file, at its end where it has none."""
    old = path.read_text() if path.exists() else "# Performance\n"
    write_text(path, merged(old, device, text))


def merged(page: str, device: str, text: str) -> str:
    """`page` with the part of `device` replaced."""
    first, last = marks(device)
    part = f"{first}\n\n{text.strip()}\n\n{last}"
    before, found, rest = page.partition(first)
    if not found:
        return f"{page.rstrip()}\n\n{part}\n"
    return before + part + rest.partition(last)[2]
