"""The state dict in a weights file, as training scripts write it; nothing is unpickled.

Scripts wrap the state dict in a table with options, the epoch and an optimiser, and keep averaged
weights (EMA) beside it. The averaged ones are taken, as by `timm.models.load_checkpoint`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from ..errors import ModelFileError, WeightsError
from ..reference import split_key
from .damage import AGAIN, damage, ends_within_pickle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
"""Keys of averaged weights, the first that is there counts."""

PLAIN = ("state_dict", "model", "model_state_dict", "net", "weights", "params", "module")
"""Keys of other weights."""

HARMLESS: list[Any] = [argparse.Namespace]
"""Classes that torch may build beside tensors: the options of timm's own script."""


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file by name; `note` says which of several sets of weights they are.

    `architecture` is the one that the file names, if it does.
    """

    path: Path
    state: Mapping[str, Tensor]
    note: str | None = None
    architecture: str | None = None


def read_checkpoint(weights: str | Path) -> Checkpoint:
    """Read a state dict from safetensors or a torch file without executing it.

    `weights` is FILE, or FILE#KEY for one of several sets of weights. Raises `WeightsError` when
    there is no such file or set, `ModelFileError` when it cannot be read, contains objects other
    than tensors and numbers, or no tensors.
    """
    path, key = split_key(str(weights))
    if not path.is_file():
        raise WeightsError(f"no weights file {str(path)!r}; give a .safetensors or .pth file")
    content = _content(path)
    named = content.get("arch") if isinstance(content, dict) else None
    state, note = _chosen(content) if key is None else _named(content, key, path)
    if not state:
        raise ModelFileError(f"{path} contains no tensors; expected a state dict")
    return Checkpoint(path, state, note, named if isinstance(named, str) else None)


@contextlib.contextmanager
def tensors_only() -> Iterator[None]:
    """Within it, `torch.load` gives tensors only, whatever the library that calls it asks for."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _content(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelFileError(_refusal(path, error)) from error


def _refusal(path: Path, error: Exception) -> str:
    """Why the file cannot be read: what it is, else the objects in it, else the error's class."""
    early = isinstance(error, EOFError) or "EOF" in str(error) or ends_within_pickle(path)
    objects = "" if early else _object(path, error)
    wrong = None if objects else damage(path)
    if wrong is None and early:
        wrong = f"it ends too early, so it is cut ({path.stat().st_size} bytes): {AGAIN}"
    if wrong is not None:
        kind = "safetensors" if path.suffix == ".safetensors" else "a torch file of tensors only"
        return f"{path} cannot be read as weights: {wrong}; expected {kind}"
    return (
        f"{path} cannot be read as weights ({type(error).__name__}{objects}); "
        "expected safetensors, or a torch file that contains tensors only (pickled objects are "
        "refused): save the state dict alone, torch.save(model.state_dict(), PATH)"
    )


def _object(path: Path, error: Exception) -> str:
    """A clause with the classes of the objects that stood in the way, as far as they are known."""
    if path.suffix == ".safetensors":
        return ""
    allowed = {f"{c.__module__}.{c.__qualname__}" for c in HARMLESS}
    try:
        names = [n for n in get_unsafe_globals_in_checkpoint(path) if n not in allowed]
    except Exception:  # files of old versions of torch, and damaged ones
        names = re.findall(r"GLOBAL ([\w.]+) was not an allowed global", str(error))
    if not names:
        return ""
    more = f" and {len(names) - 4} more classes" if len(names) > 4 else ""
    return f": it contains {', '.join(names[:4])}{more}"


def _chosen(content: Any) -> tuple[dict[str, Tensor], str | None]:
    """The state dict in `content`, and a note if there were several."""
    if not isinstance(content, dict):
        return {}, None
    found = {key: state for key in (*AVERAGED, *PLAIN) if (state := _inner(content.get(key)))}
    if not found:
        return _tensors(content), None
    key, *others = found
    if not others and key in PLAIN:
        return found[key], None
    kind = "averaged weights " if key in AVERAGED else "weights "
    also = ", ".join(map(repr, others))
    beside = f"; the file also has {also}: FILE#{others[0]} takes those" if others else ""
    return found[key], f"{kind}{key!r} taken{beside}"


def _named(content: Any, key: str, path: Path) -> tuple[dict[str, Tensor], str]:
    """The state dict that the table `content` has under `key`. Raises `WeightsError`."""
    sets = {k: found for k, v in content.items() if (found := _inner(v))} if content else {}
    if key not in sets:
        known = ", ".join(map(repr, sets)) or "none: it is one set of weights"
        raise WeightsError(f"{path} has no weights {key!r}; there is {known}")
    return sets[key], f"weights {key!r} taken, as named"


def _inner(value: Any) -> dict[str, Tensor]:
    """The tensors of a table, or of a table in it."""
    if not isinstance(value, dict):
        return {}
    return _tensors(value) or _chosen(value)[0]


def _tensors(table: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {str(k): v for k, v in table.items() if isinstance(v, Tensor)}
