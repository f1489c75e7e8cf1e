"""The entry point of `perimetry`: what must be so before anything else is imported.

An interrupt ends the imports without a traceback, a termination signal lets temporary folders be
removed, and a working folder that has gone, or output that nobody reads any more, is a sentence.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType


TERMINATED = 128 + signal.SIGTERM
"""Exit code after a termination signal, as shells report it."""

GONE = (
    "perimetry: the working folder does not exist any more; change to one that does, and give the "
    "command again"
)

READING = ("board", "list", "pack", "publish", "show")
"""Commands that measure nothing."""


def main() -> None:
    """Run the command line.

    OpenMP threads sleep while they wait, here and in the workers, unless the environment says
    otherwise: spinning threads would take the cores of a shared machine from one another.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if not _has_working_folder():
        sys.exit(GONE)
    prepare_reading(sys.argv[1:])
    app = import_module(f"{__package__}.main").app
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _end)
    try:
        app()
    finally:
        _let_go_of_output()


def _has_working_folder() -> bool:
    try:
        return bool(os.getcwd())  # noqa: PTH109 - `Path.cwd` is the same, after an import
    except FileNotFoundError:
        return False


def _end(_number: int, _frame: FrameType | None) -> None:
    """Leave as if the program had ended: what is open is closed, and temporary folders go."""
    raise SystemExit(TERMINATED)


def _let_go_of_output() -> None:
    """Give up output that nobody reads, which Python would report when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def prepare_reading(arguments: list[str]) -> None:
    """Skip what takes longer than a command of `READING` does itself.

    Its import of torch is deferred, and cycles of references are not searched for: records have
    none, and a search looks at all of them.
    """
    if arguments[:1] and arguments[0] in READING:
        gc.disable()
        atexit.register(gc.freeze)  # nor when the process ends, with which all of them go
        sys.modules.setdefault("torch", Deferred("torch"))


class Deferred(ModuleType):
    """Stands in `sys.modules` for the module of its name until an attribute is asked for.

    Python 3.15 has this as `lazy import` (PEP 810).
    """

    def __getattr__(self, name: str) -> Any:
        """An attribute of the module, which is imported now."""
        # what else begins with two underscores is asked for by the import itself
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)
