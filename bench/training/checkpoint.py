"""Checkpoints of training: one safetensors file, tensors and facts, written atomically.

Facts are JSON in the file's own metadata. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ...adapters.errors import ModelFileError
from ..output.files import FULL, StoreError, explain, write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor


FACTS = "perimetry"


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write `path` atomically: the previous checkpoint stays until then. Raises `StoreError`."""
    from safetensors.torch import save

    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    data = save(plain, {FACTS: json.dumps(facts, sort_keys=True)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda stream: stream.write(data))
    except OSError as error:
        if error.errno in FULL:
            raise StoreError(
                f"no space left for the checkpoint {path}; expected some free space: free some and "
                "run the same command again, which resumes from the previous checkpoint"
            ) from error
        raise explain(error, path) from error


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors by name, and facts. Raises `ModelFileError` if it is not a checkpoint."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[FACTS])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelFileError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}: {error}); remove it "
            "to train this network from the beginning"
        ) from error
