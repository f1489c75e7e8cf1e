"""Everything that a pass gives, by name: tensors in tuples, lists, mappings and dataclasses.

A single tensor is called `output`. Entries of a mapping and fields of a dataclass have their own
names, entries of a sequence their place: `mask`, `[0]`, `heads.age`, `boxes[1]`. Numbers and texts
become tensors; a mapping or a sequence of numbers is one tensor (ONNX's ZipMap gives such).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor

ALONE = "output"
"""The name of an output that has none."""


@dataclass(frozen=True)
class EveryOutput:
    """The outputs of one pass over one image: tensors by name, and why others cannot be read."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)


def every_output(value: Any, name: str = "") -> EveryOutput:
    """Everything in `value`, which is called `name`; None is left out."""
    found = EveryOutput()
    for own, one in _entries(value, name):
        tensor = _tensor(one)
        if tensor is not None:
            found.tensors[own or ALONE] = tensor
        elif one is not None:
            found.unread[own or ALONE] = f"is of type {type(one).__name__}, which is not a tensor"
    return found


def _entries(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The entries of a nested value with their names, in order."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type | Mapping):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    named = getattr(value, "_fields", None)  # of a named tuple
    if named is not None:
        value = dict(zip(named, value, strict=True))
    if isinstance(value, Mapping) and not _of_numbers(value.values()):
        for key, one in value.items():
            yield from _entries(one, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and not _of_numbers(value):
        for place, one in enumerate(value):
            yield from _entries(one, f"{name}[{place}]")
    else:
        yield name, value


def _of_numbers(values: Any) -> bool:
    """Whether `values` are one or more numbers and nothing else."""
    found = list(values)
    return bool(found) and all(isinstance(v, Number) for v in found)


def _tensor(value: Any) -> Tensor | None:
    """A tensor, number, array or text as a tensor; None for other values."""
    if isinstance(value, Tensor):
        return _plain(value)
    if isinstance(getattr(value, "tensors", None), Tensor):  # an image list with its sizes
        return _plain(value.tensors)
    if isinstance(value, Mapping):
        value = list(value.values())
    words = isinstance(value, np.ndarray) and value.dtype.kind in "OSU"
    if words or isinstance(value, str | bytes):
        return _text(value)
    if not isinstance(value, Number | np.ndarray | list | tuple):
        return None
    try:
        return torch.as_tensor(np.asarray(value))
    except TypeError:  # a type that torch does not have
        return None


def _plain(value: Tensor) -> Tensor:
    """Without a gradient, sparse storage, quantisation or complex numbers."""
    value = value.detach()
    value = value.to_dense() if value.layout is not torch.strided else value
    value = value.dequantize() if value.is_quantized else value
    return torch.view_as_real(value.resolve_conj()) if value.is_complex() else value


def _text(value: Any) -> Tensor:
    """The bytes of a text, or of an array of texts, which end in a zero each."""
    words = np.asarray(value, dtype=object).ravel()
    parts = [w if isinstance(w, bytes) else str(w).encode() for w in words]
    return torch.frombuffer(bytearray(b"".join(part + b"\0" for part in parts)), dtype=torch.uint8)
