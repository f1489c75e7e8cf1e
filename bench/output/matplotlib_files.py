"""Where matplotlib keeps its settings and its list of fonts."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path


@cache
def keep_matplotlib_out_of_home() -> None:
    """Give matplotlib a temporary folder for its files, where the user has none for it yet.

    It would otherwise make folders in the user's home when it is first imported. Must be called
    before every first import of matplotlib.
    """
    if "matplotlib" in sys.modules or "MPLCONFIGDIR" in os.environ or _has_own_folder():
        return
    folder = tempfile.mkdtemp(prefix="perimetry-matplotlib-")
    os.environ["MPLCONFIGDIR"] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _has_own_folder() -> bool:
    """Whether matplotlib has been used by this user before."""
    places = (("XDG_CACHE_HOME", "~/.cache"), ("XDG_CONFIG_HOME", "~/.config"))
    roots = (os.environ.get(name) or Path(default).expanduser() for name, default in places)
    return any((Path(root) / "matplotlib").is_dir() for root in roots)
