"""What a file is that cannot be read: empty, cut, a web page, or of another format.

It is judged by its size and its first bytes; nothing is unpickled.
"""

from __future__ import annotations

import json
import pickletools
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


START = 512
"""Bytes at the beginning that are looked at."""

MOST_HEADER = 2**27
"""Most bytes of the header of a safetensors file."""

AGAIN = "copy or download it again"

PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")

POINTER = b"version https://git-lfs"

PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"7z\xbc\xaf": "7-Zip",
    b"Rar!": "RAR",
    b"\x28\xb5\x2f\xfd": "Zstandard",
}
"""Packed files, by their first bytes."""

PICKLE = b"\x80"

PICKLES = 5

ZIP = b"PK\x03\x04"


def foreign_content(path: Path) -> str | None:
    """A clause that says what stands in a file of no weights and no model, with what to do.

    None for a file that may be one.
    """
    size, start = _begin(path)
    if not size:
        return f"it is empty (0 bytes): {AGAIN}"
    if not start.strip(b"\0"):
        return f"it begins with {len(start)} bytes of 0 (of {size}): {AGAIN}"
    if start.startswith(POINTER):
        return f"it is a pointer of Git LFS ({size} bytes) to the file: run `git lfs pull`"
    if start.lstrip().lower().startswith(PAGES):
        return f"it is a web page ({size} bytes of HTML or XML): download the file itself"
    for magic, name in PACKED.items():
        if start.startswith(magic):
            return f"it is packed by {name} ({size} bytes): unpack it"
    if start[257:262] == b"ustar":
        return f"it is a tar archive ({size} bytes): unpack it"
    text = _as_text(start)
    return f"it is text ({size} bytes), which begins with {text!r}" if text else None


def damage(path: Path) -> str | None:
    """A clause that says why a file of weights cannot be read, with what to do; None if unknown."""
    foreign = foreign_content(path)
    if foreign is not None:
        return foreign
    size, start = _begin(path)
    if start.startswith(ZIP[: len(start)]):
        return zip_fault(path) or _other_archive(path, size)
    if start[8:9] == b"{":
        return _safetensors_fault(path, size, int.from_bytes(start[:8], "little"))
    if path.suffix == ".safetensors" and start.startswith(PICKLE):
        return f"it is a pickle ({size} bytes), as torch.save writes: name it .pth"
    if path.suffix == ".safetensors" or not start.startswith(PICKLE):
        return f"its {size} bytes begin with {start[:8].hex(' ')}, as no file of weights does"
    return None


def ends_within_pickle(path: Path) -> bool:
    """Whether the file ends within a pickle, of which files of torch before 1.6 have five."""
    with path.open("rb") as file:
        if file.read(1) != PICKLE:
            return False
        file.seek(0)
        try:
            for _ in range(PICKLES):
                for _ in pickletools.genops(file):
                    pass
        except Exception:  # bytes that are no pickle may raise anything
            return file.tell() == path.stat().st_size > 0
    return False


def _begin(path: Path) -> tuple[int, bytes]:
    """The number of bytes of the file, and the first ones."""
    with path.open("rb") as file:
        return path.stat().st_size, file.read(START)


def _as_text(start: bytes) -> str | None:
    """The first characters if all bytes are text, else None."""
    try:
        text = start.decode() if len(start) < START else start[: START - 3].decode(errors="ignore")
    except UnicodeDecodeError:
        return None
    plain = all(c.isprintable() or c.isspace() for c in text)
    same = text.encode() == start[: len(text.encode())]
    return text.strip()[:40] if plain and same else None


def zip_fault(path: Path) -> str | None:
    """A clause for a file that is no zip archive, or a cut one; None for a whole one."""
    size, start = _begin(path)
    if not start.startswith(ZIP[: len(start)]):
        return f"its {size} bytes begin with {start[:8].hex(' ')}, which is no zip archive"
    try:
        zipfile.ZipFile(path).close()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return f"it begins as a file of torch and has no end, so it is cut ({size} bytes): {AGAIN}"
    return None


def _other_archive(path: Path, size: int) -> str | None:
    """A clause for a whole zip archive that is no file of weights, or has another's suffix."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any("/code/" in name for name in names):
        return "it is a TorchScript program: save the state dict of the original module"
    if not any(name.endswith("data.pkl") for name in names):
        return f"it is a zip archive ({size} bytes), which torch.save has not written: unpack it"
    return "it is a file of torch.save: name it .pth" if path.suffix == ".safetensors" else None


def _safetensors_fault(path: Path, size: int, header: int) -> str | None:
    """`header` is the number of bytes that the file says its header has."""
    if header <= MOST_HEADER and 8 + header > size:
        return f"it is safetensors and is cut within its header ({size} bytes): {AGAIN}"
    wanted = _safetensors_size(path, header)
    if wanted is None:
        return f"it begins as safetensors and its header is damaged ({size} bytes): {AGAIN}"
    if wanted > size:
        return f"it is safetensors and is cut: it has {size} of {wanted} bytes: {AGAIN}"
    return None if path.suffix == ".safetensors" else "it is safetensors: name it .safetensors"


def _safetensors_size(path: Path, header: int) -> int | None:
    """The number of bytes that the header of a safetensors file asks for; None if unreadable."""
    try:
        with path.open("rb") as file:
            file.seek(8)
            table = json.loads(file.read(min(header, MOST_HEADER)))
        ends = [int(v["data_offsets"][1]) for k, v in table.items() if k != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None
    return 8 + header + max(ends, default=0)
