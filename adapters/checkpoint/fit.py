"""Match the tensors of a weights file to those of an architecture: by name, else by order.

A prefix that wrappers add to all names (`module.`, `model.`, `_orig_mod.`) is dropped. What does
not fit is named, with both shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from .read import Checkpoint


WRAPPERS = ("module.", "model.", "_orig_mod.", "net.", "backbone.", "encoder.")
"""Prefixes of data-parallel, compiled, averaged and training modules, alone or in a row."""

DEPTH = 3
"""Most prefixes in a row."""

NAMED = 4
"""Most tensors that a message names."""


@dataclass(frozen=True)
class Fitted:
    """Tensors for every entry of an architecture, and notes for the record."""

    state: Mapping[str, Tensor]
    notes: tuple[str, ...]


def without_prefix(
    state: Mapping[str, Tensor], names: Sequence[str]
) -> tuple[dict[str, Tensor], str]:
    """Return the entries below the prefix under which most of `names` are found, and the prefix.

    Entries elsewhere, such as those of a loss, are left out.
    """
    prefix = max(_prefixes(), key=lambda p: sum(f"{p}{name}" in state for name in names))
    inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return inner, prefix


def _prefixes() -> Iterator[str]:
    """All rows of wrappers, the shortest first."""
    rows = [""]
    for _ in range(DEPTH + 1):
        yield from rows
        rows = [row + wrapper for row in rows for wrapper in WRAPPERS]


def fit(checkpoint: Checkpoint, own: Mapping[str, Tensor], architecture: str) -> Fitted:
    """Match the tensors of `checkpoint` to the entries `own` of `architecture`.

    Step counters of batch norm may be missing. Raises `WeightsError`, which names tensors that are
    missing, unexpected, or of another shape or kind of numbers.
    """
    counters = {k: v for k, v in own.items() if k.endswith("num_batches_tracked")}
    wanted = {k: v for k, v in own.items() if k not in counters}
    state, prefix = without_prefix(checkpoint.state, list(wanted))
    given = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    notes = [checkpoint.note] if checkpoint.note else []
    notes += [f"prefix {prefix!r} of the names in the file dropped"] if prefix else []
    outside = [k for k in checkpoint.state if not k.startswith(prefix)]
    notes += [f"not used: {_some(outside)} of the file"] if outside else []
    if _fits_by_order(checkpoint, given, wanted):
        notes.append("weights matched by order and shape, as their names differ")
        given = dict(zip(wanted, given.values(), strict=True))
    faults = [*_missing(given, wanted), *_different(given, wanted)]
    if faults:
        raise WeightsError(_refusal(checkpoint, architecture, faults))
    return Fitted({**counters, **{k: given[k] for k in wanted}}, tuple(notes))


def _fits_by_order(
    checkpoint: Checkpoint, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> bool:
    """Whether other names stand in the same order, with the same shapes.

    safetensors files have an order of their own.
    """
    if given.keys() == wanted.keys() or len(given) != len(wanted):
        return False
    pairs = list(zip(given.items(), wanted.items(), strict=True))
    return checkpoint.path.suffix != ".safetensors" and all(
        value.shape == own.shape and (key == name or key not in wanted)
        for (key, value), (name, own) in pairs
    )


def _missing(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterator[str]:
    missing = [k for k in wanted if k not in given]
    unknown = [k for k in given if k not in wanted]
    if missing:
        yield f"{_some(missing)} of the architecture {_is(missing)} missing"
    if unknown:
        yield f"{_some(unknown)} of the file {_is(unknown)} not in the architecture"


def _different(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterator[str]:
    """Shapes and kinds of numbers that differ; int8 and complex weights are not cast."""
    shared = [k for k in wanted if k in given]
    shapes = [k for k in shared if given[k].shape != wanted[k].shape]
    kinds = [k for k in shared if not same_kind(given[k], wanted[k])]
    for key in shapes[:NAMED]:
        file, own = (_shape(table[key]) for table in (given, wanted))
        yield f"{key} is {file} in the file and {own} in the architecture"
    for key in kinds[:NAMED]:
        file, own = (str(table[key].dtype).removeprefix("torch.") for table in (given, wanted))
        yield f"{key} is {file} in the file and {own} in the architecture, and is not converted"
    more = len(shapes[NAMED:]) + len(kinds[NAMED:])
    if more:
        yield f"{more} more tensors differ"


def same_kind(a: Tensor, b: Tensor) -> bool:
    """Whether both have real floats, complex numbers, booleans or integers; of any width."""
    if a.is_quantized or b.is_quantized:
        return a.dtype == b.dtype
    return _kind(a) == _kind(b)


def _kind(x: Tensor) -> tuple[bool, bool, bool]:
    return x.is_floating_point(), x.is_complex(), str(x.dtype) == "torch.bool"


def _shape(x: Tensor) -> str:
    return " x ".join(map(str, x.shape)) or "one number"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _refusal(checkpoint: Checkpoint, architecture: str, faults: Sequence[str]) -> str:
    named = checkpoint.architecture
    other = (
        f"; the file names the architecture {named!r}" if named not in (None, architecture) else ""
    )
    return (
        f"the {len(checkpoint.state)} tensors of {checkpoint.path} do not fit {architecture!r}: "
        f"{'; '.join(faults)}{other}"
    )
