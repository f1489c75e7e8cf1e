"""`torch` for commands that only read records: imported when something of it is first used.

It takes several times as long to import as such a command takes to run. Python 3.15 has this as
`lazy import` (PEP 810).
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

READING = ("board", "list", "pack", "publish", "show")
"""Commands that measure nothing."""


class Deferred(ModuleType):
    """Stands in `sys.modules` for the module of its name until an attribute is asked for."""

    def __getattr__(self, name: str) -> Any:
        """An attribute of the module, which is imported now."""
        # what else begins with two underscores is asked for by the import itself
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def defer_torch(arguments: list[str]) -> None:
    """Defer the import of torch where the command is one of `READING`."""
    if arguments[:1] and arguments[0] in READING and "torch" not in sys.modules:
        sys.modules["torch"] = Deferred("torch")
