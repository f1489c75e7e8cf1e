"""The table of all suites. A new suite is a file, a line here, and a test file."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from .deadpixel.suite import DEADPIXEL
from .erf.suite import ERF
from .fidelity import FIDELITY
from .frequency import FREQUENCY
from .halo.suite import HALO
from .objects.suite import OBJECTS
from .output.suite import OUTPUT
from .padding.suite import PADDING
from .perturbation.suite import PERTURBATION
from .position.suite import POSITION
from .shift.suite import SHIFT
from .structure import STRUCTURE
from .training.suite import TRAINING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .base import Suite

OURS: Mapping[str, Suite] = {
    "structure": STRUCTURE,
    "erf": ERF,
    "deadpixel": DEADPIXEL,
    "padding": PADDING,
    "perturbation": PERTURBATION,
    "halo": HALO,
    "output": OUTPUT,
    "shift": SHIFT,
    "frequency": FREQUENCY,
    "position": POSITION,
    "objects": OBJECTS,
    "fidelity": FIDELITY,
    "training": TRAINING,
}

GROUP = "perimetry.suites"
"""Entry points of other packages; the value is a `Suite`, whose name is that of the entry."""

SUITES: Mapping[str, Suite] = {
    **{entry.name: entry.load() for entry in entry_points(group=GROUP)},
    **OURS,
}
"""All suites by name: ours, which cannot be replaced, and those of other packages."""
