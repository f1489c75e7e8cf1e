"""Data inside a page, deflated and in base64, so that it cannot be read as markup.

A block is the text of a `<script type="text/plain" id="...">` element, which no browser runs. Only
letters, digits, `+`, `/` and `=` are in it, whatever the data hold.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


LEVEL = 6


def packed(data: bytes) -> str:
    """`data`, deflated (zlib) and in base64."""
    return base64.b64encode(zlib.compress(data, LEVEL)).decode("ascii")


def packed_json(content: Any) -> str:
    """`content` as compact JSON, packed. Raises `ValueError` for NaN or infinity."""
    return packed(json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii"))


def unpacked(block: str) -> bytes:
    """The data that `packed` made `block` of."""
    return zlib.decompress(base64.b64decode(block))


def grouped(items: Iterable[bytes], most: int) -> Iterator[list[bytes]]:
    """`items` in their order, in groups of at least one and else at most `most` bytes."""
    group: list[bytes] = []
    size = 0
    for item in items:
        if group and size + len(item) > most:
            yield group
            group, size = [], 0
        group.append(item)
        size += len(item)
    if group:
        yield group
