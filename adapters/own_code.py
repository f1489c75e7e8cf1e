"""Modules from the user's own code: `py:package.module:factory`.

`factory` is a module object, or a function or class that gives one when it is called without
arguments. The working folder is on the path of imports.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from .errors import ModelFileError, UnknownNameError, unknown
from .pytorch.inputs import required_arguments
from .seeding import seeded_weights

if TYPE_CHECKING:
    from collections.abc import Iterator


FAULTS = (Exception, SystemExit)
"""What a user's code may raise."""

FORM = "py:package.module:factory"


@dataclass(frozen=True)
class OwnModule:
    """A module, and the (height, width) that its code states; None where it states none."""

    module: nn.Module
    size: tuple[int, int] | None


def build_own(name: str, seed: int) -> OwnModule:
    """Build the module of `py:` + `name`; what it draws at random depends on `seed` alone.

    A function may give the pair (module, size); else `input_size` of the module or the function is
    its size: a side, (height, width) or (channels, height, width). Raises `UnknownNameError` for
    names that do not exist, `ModelFileError` for faults of the code.
    """
    with _seeded(seed), _working_folder():
        found = _find(name)
        made = found if isinstance(found, nn.Module) else _call(found, name)
    module, stated = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module):
        raise ModelFileError(
            f"py:{name} gives an object of type {type(module).__name__}; expected a "
            "torch.nn.Module, or the pair (module, size)"
        )
    for thing in (module, found):
        stated = getattr(thing, "input_size", None) if stated is None else stated
    return OwnModule(module, _size(stated, name))


def check_own(name: str) -> None:
    """Raise `UnknownNameError` for a name that does not exist, `ModelFileError` for arguments.

    Those are arguments that a factory needs. Other faults of the code are left.
    """
    try:
        with _working_folder():
            found = _find(name)
    except ModelFileError:
        return
    _check_arguments(found, name)


def _find(name: str) -> Any:
    """The object that `name` (package.module:factory) names."""
    place, colon, attribute = name.partition(":")
    if not (place and colon and attribute):
        raise UnknownNameError(f"'py:{name}' does not name a factory; expected {FORM}")
    found = _import(place)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UnknownNameError(
                unknown(f"name of {place}", attribute, _givers(found)) + f"; expected {FORM}"
            )
        found = getattr(found, part)
    if not (isinstance(found, nn.Module) or callable(found)):
        near = unknown(f"factory of {place}", attribute, _givers(importlib.import_module(place)))
        raise UnknownNameError(f"{near}; its type is {type(found).__name__}, which gives no module")
    return found


def _import(place: str) -> Any:
    importlib.invalidate_caches()
    try:
        with _seeded(0):  # what a module draws when it is imported is the same in every process
            return importlib.import_module(place)
    except FAULTS as error:
        if isinstance(error, ModuleNotFoundError) and f"{place}.".startswith(f"{error.name}."):
            package = place.rpartition(".")[0]
            raise UnknownNameError(
                unknown("module of Python", place, _modules(package))
                + f"; it is looked for in {str(Path.cwd())!r} and among what is installed"
            ) from error
        raise ModelFileError(
            f"importing {place} failed: {type(error).__name__}: {error}"
        ) from error


def _modules(package: str) -> list[str]:
    """Modules beside the one that is missing: those of its package, or of the working folder."""
    paths = [str(Path.cwd())]
    if package:
        try:
            paths = list(importlib.import_module(package).__path__)
        except (*FAULTS, AttributeError):
            package = ""
    start = f"{package}." if package else ""
    return [start + found.name for found in pkgutil.iter_modules(paths)]


def _givers(place: Any) -> list[str]:
    """Names in a module or class that may give a network."""
    return [
        name
        for name, value in vars(place).items()
        if not name.startswith("_") and (callable(value) or isinstance(value, nn.Module))
    ]


def _check_arguments(found: Any, name: str) -> None:
    """Raise `ModelFileError` for a factory that cannot be called without arguments."""
    needed = () if isinstance(found, nn.Module) else required_arguments(found)
    if needed:
        raise ModelFileError(
            f"py:{name} needs the arguments {', '.join(needed)}; expected a factory without "
            "arguments: write a function that calls it with them, and name that"
        )


def _call(factory: Any, name: str) -> Any:
    _check_arguments(factory, name)
    try:
        return factory()
    except FAULTS as error:
        raise ModelFileError(
            f"calling py:{name} failed: {type(error).__name__}: {error}"
        ) from error


def _size(stated: Any, name: str) -> tuple[int, int] | None:
    """The (height, width) of what was stated: a side, two numbers, or three with the channels."""
    if stated is None:
        return None
    values = [stated] if isinstance(stated, int) else stated
    try:
        numbers = [int(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    if not 1 <= len(numbers) <= 3 or min(numbers) < 1:
        raise ModelFileError(
            f"py:{name} states the size {stated!r}; expected a side, (height, width) or "
            "(channels, height, width)"
        )
    height, width = (numbers * 2 if len(numbers) == 1 else numbers)[-2:]
    return height, width


@contextlib.contextmanager
def _working_folder() -> Iterator[None]:
    """Within it, the working folder comes first on the path of imports."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, numpy and Python; their states come back."""
    plain, array = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        with seeded_weights(seed):
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(array)  # noqa: NPY002
