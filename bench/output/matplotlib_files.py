"""Where matplotlib keeps its settings and its list of fonts."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from functools import cache
from pathlib import Path

from ...adapters.scratch import scratch_folder


@cache
def keep_matplotlib_out_of_home() -> None:
    """Give matplotlib a temporary folder for its files, where the user has none for it yet.

    It would otherwise make folders in the user's home when it is first imported. Must be called
    before every first import of matplotlib.
    """
    if "matplotlib" in sys.modules or "MPLCONFIGDIR" in os.environ or _has_own_folder():
        return
    kept = contextlib.ExitStack()
    os.environ["MPLCONFIGDIR"] = str(kept.enter_context(scratch_folder()))
    atexit.register(kept.close)


def _has_own_folder() -> bool:
    """Whether matplotlib has been used by this user before."""
    places = (("XDG_CACHE_HOME", "~/.cache"), ("XDG_CONFIG_HOME", "~/.config"))
    roots = (os.environ.get(name) or Path(default).expanduser() for name, default in places)
    return any((Path(root) / "matplotlib").is_dir() for root in roots)
