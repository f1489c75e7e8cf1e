"""What decides each model of a run, found before it starts: in a process with limits.

Hashing large files takes long, graphs can be hostile, and a `py:` reference runs the user's code.
What is quick is done in this process.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ...adapters.errors import PerimetryError, UnknownNameError
from ...adapters.load import is_quick_to_identify
from ...adapters.names import check_reference
from ..records.hashing import stamp
from .engines.process import each_bounded
from .plan import file_identity
from .settings import standard

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .settings import RunOptions, Settings


def find_identities(
    references: Sequence[str], settings: Settings, run: RunOptions
) -> Mapping[str, str]:
    """The identity (see `plan.file_identity`) of each reference for which that may take long.

    If it cannot be found within the limits of `run`, it is that of size, time of change and ends of
    the file; measuring the model will say why.
    """
    slow = [r for r in dict.fromkeys(references) if not is_quick_to_identify(r)]
    found = each_bounded([partial(file_identity, one, settings) for one in slow], run)
    return {
        name: stamp(name) if isinstance(value, PerimetryError) else value
        for name, value in zip(slow, found, strict=True)
    }


def check_references(references: Iterable[str], run: RunOptions) -> list[str]:
    """A sentence for each reference to the user's own code that cannot be measured.

    Called before anything is measured, so that a typo costs nothing. The user's own code is looked
    up in a process with the limits of `run`. Raises one `UnknownNameError` that names every
    reference which cannot exist, or all if none can be measured.
    """
    names = list(dict.fromkeys(references))
    own = [name for name in names if name.startswith("py:")] if run.toolkit is standard else []
    found: dict[str, object] = dict(
        zip(own, each_bounded([partial(check_reference, name) for name in own], run), strict=True)
    )
    for name in (name for name in names if name not in found):
        try:
            check_reference(name)
        except PerimetryError as error:
            found[name] = error
    faults = [name for name in names if isinstance(found.get(name), PerimetryError)]
    absent = [n for n in faults if n not in own or isinstance(found[n], UnknownNameError)]
    if len(faults) == len(names):
        absent = faults
    if absent:
        texts = "; ".join(f"{name!r}: {found[name]}" for name in absent)
        raise UnknownNameError(f"nothing was measured; {texts}")
    return [f"{name!r} cannot be measured: {found[name]}" for name in faults]
