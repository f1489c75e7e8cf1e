"""The table of all suites. A new suite is a file, a line here, and a test file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .deadpixel import DEADPIXEL
from .erf.suite import ERF
from .fidelity import FIDELITY
from .padding.suite import PADDING
from .perturbation.suite import PERTURBATION
from .structure import STRUCTURE
from .training.suite import TRAINING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .base import Suite

SUITES: Mapping[str, Suite] = {
    "structure": STRUCTURE,
    "erf": ERF,
    "deadpixel": DEADPIXEL,
    "padding": PADDING,
    "perturbation": PERTURBATION,
    "fidelity": FIDELITY,
    "training": TRAINING,
}
