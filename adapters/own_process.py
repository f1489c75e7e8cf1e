"""Calls of one function in a process of its own, which may crash, or take too long.

A new interpreter runs it, and not `multiprocessing`, which would run the user's main script again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = """
import importlib, json, sys
sys.path[:], module, function, arguments = json.load(sys.stdin)
getattr(importlib.import_module(module), function)(*arguments)
"""


def run_in_own_process(
    function: Callable[..., None], *arguments: Any, limit_s: float
) -> subprocess.CompletedProcess[bytes]:
    """Call a function of a module with arguments that JSON can hold; what it prints is the result.

    Raises `subprocess.TimeoutExpired` after `limit_s` seconds, with what was printed until then.
    """
    given = [sys.path, function.__module__, function.__qualname__, arguments]
    return subprocess.run(  # noqa: S603 - this interpreter and this module
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(given).encode(),
        capture_output=True,
        timeout=limit_s,
        check=False,
    )
