"""Sample ONNX files that ship with the package: small networks trained for results/training.

Each is an ONNX file of a few hundred kilobytes for 40 x 40 images: `tiny-resnet` (0.08 million
parameters) with and without kernel padding, trained to distinguish a red box of 3 x 3 pixels from a
black one (`micro-object`, two classes) or to name articles of clothing (`classification`, ten
classes).
"""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from .output.files import explain

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


FOLDER = "sample_models"


def sample_files() -> Mapping[str, Path]:
    """Paths of the sample files by name without suffix."""
    folder = Path(str(resources.files(__package__) / FOLDER))
    return {path.stem: path for path in sorted(folder.glob("*.onnx"))}


def copy_samples(folder: Path, names: Collection[str] | None = None) -> list[Path]:
    """Copy the sample files, or those of `names`, into `folder`; their paths there.

    Raises `StoreError` where they cannot be written.
    """
    wanted = [path for name, path in sample_files().items() if names is None or name in names]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy(path, folder)) for path in wanted]
    except OSError as error:
        raise explain(error, folder) from error
