"""What every measurement rests on, checked once per model: that it is a function of one image.

Two images are passed in batches of two, the first in the company of different others:

random
    Two equal passes differ by more than `SAME` of the output's norm. A network that draws random
    numbers, of torch, NumPy or Python, without a difference in two passes (stochastic depth drops
    rarely) is passed `RARE_PASSES` times more.
batch mates
    The output for one image changes with the other image of its batch, with its place in it or
    with the number of images, as after a batch norm without running statistics. A dark image is
    looked at too, beside the first and beside itself: the largest value of a batch may be the
    first's. Quantisation by the range of a batch does so too, by its rounding alone, which is noted
    and tolerated up to `MATES_ROUNDING`.
target
    A pass that stops at the target gives the same map, of the shape that the record names, as one
    that goes on to the logits.

A network may amplify float noise: batch mates, and the place in a batch, change the order of sums.
So a difference of up to `AMPLIFIED` times that which the last bit of the input makes is a note;
where that bit changes more than `CHAOS` of the output's norm, nothing is measured.

state
    The first pass is made again after each suite (`Assumptions.later`): a state kept from pass to
    pass may show after hundreds of them alone, as with a drift of a millionth a pass.

not finite, constant
    An output that is NaN or infinite, or the same for different images, is a note that comes first.

What rests on an output at fault is skipped: gradients on those that their probes read, everything
else on both. The first step at which two passes differ is named where the model can be traced.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ...adapters.errors import CONSTANT, NOT_FINITE
from .paired_passes import PairedPasses, finite_outputs, relative_distance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ...adapters.model import Model, Outputs
    from ..base import Probe

SAME = 1e-5
"""Difference of equal passes, relative to the output's norm, that is float noise."""
MATES = 1e-4
"""Difference by batch mates that is float noise: sums may be in another order."""
MATES_ROUNDING = 0.05
AMPLIFIED = 10.0
CHAOS = 0.5
EIGHT_BITS = 0.25
RARE_PASSES = 14

RANDOM = "the network is random"
DEPENDENT = "the output for an image depends on the other images of its batch"
MISNAMED = "the measured map is not that of the layer that the record names"
CHAOTIC = "rounding decides what the network computes"
FAULTS = (RANDOM, DEPENDENT, MISNAMED, CHAOTIC)
"""How the reasons begin."""


@dataclass(frozen=True)
class Assumptions:
    """Why an output cannot be measured, None where it can; `notes` for every record."""

    target: str | None = None
    logits: str | None = None
    notes: tuple[str, ...] = ()
    first: _First | None = field(default=None, compare=False, repr=False)

    def why_not(self, probes: Sequence[Probe]) -> str | None:
        """Why a measurement by `probes` alone, or by forward passes without any, is skipped."""
        of_target = self.target
        of_logits = self.logits if not probes or any(p.logits for p in probes) else None
        return of_target or of_logits

    def later(self) -> Assumptions:
        """Why what was measured since `check_assumptions` is void.

        The first pass is made again, over two images. Nothing is at fault in a model of several
        weight sets, of which another one may be in use.
        """
        if self.first is None or self.first.passes.model.members > 1:
            return Assumptions()
        try:
            return Assumptions(**self.first.changes())
        except Exception:  # memory may have run out; what was measured is there
            return Assumptions()


@dataclass(frozen=True)
class _First:
    """The outputs `names` of the first of the `passes`, over the batch "together"."""

    passes: PairedPasses
    outputs: Outputs
    names: tuple[str, ...]

    def changes(self) -> dict[str, Any]:
        """Why outputs of that pass are no longer what they were, beyond rounding, by name."""
        again, found = self.passes.run("together"), {}
        for name in self.names:
            a, b = getattr(self.outputs, name), getattr(again, name)
            change = relative_distance(a, b) if bool(b.isfinite().all()) else math.inf
            if change > SAME and _amplified(self.passes, name, change, "together", 0) is None:
                found[name] = (
                    f"{RANDOM}: the first pass, made again after the measurement, changes the "
                    f"{name} by {_percent(change)} of the norm; the likely cause is a state kept "
                    "from pass to pass, such as a running mean or a count"
                )
        return found


def check_assumptions(model: Model, images: Tensor) -> Assumptions:
    """Check `model` on the first of `images` (n, 3, height, width).

    An output that is not finite, and a model that cannot be run, are left to the suites to report.
    """
    try:
        return _check(model, images)
    except (
        Exception
    ):  # whatever breaks here breaks again where it is measured, and is reported there
        return Assumptions()


def _check(model: Model, images: Tensor) -> Assumptions:
    passes = PairedPasses(model, images)
    first, second = passes.run("together"), passes.run("other mate")
    faults = {
        name: fault
        for name, a, b in finite_outputs(first, second)
        if (fault := _fault(passes, name, a, b)) is not None
    }
    faults = _faults_of_number(passes, first) | _faults_of_faint(passes, second) | faults
    if "target" not in faults and (misnamed := _misnamed(model, passes, second)) is not None:
        faults["target"] = misnamed
    if "logits" not in faults and (moved := _moved(passes, second)) is not None:
        faults["logits"] = moved
    reasons = {name: fault.text for name, fault in faults.items() if not fault.tolerated}
    notes = [*_meaningless(passes, first, images), *(fault.text for fault in faults.values())]
    every = tuple(dict.fromkeys(notes))
    names = tuple(name for name, _, _ in finite_outputs(first, first) if name not in faults)
    found = _First(passes, first, names)
    return Assumptions(reasons.get("target"), reasons.get("logits"), every, found)


def _meaningless(passes: PairedPasses, first: Outputs, images: Tensor) -> list[str]:
    """Notes on outputs that are not finite, or the same for different images, by their names.

    `first` is that of the first image and a bright one; all other images are passed too.
    """
    found = [first, *passes.others(images)]
    notes = []
    for name in ("target", "logits"):
        outputs = [value for one in found if (value := getattr(one, name)) is not None]
        if not all(bool(output.isfinite().all()) for output in outputs):
            notes.append(NOT_FINITE + _extent(name, outputs) + _first_step(passes, outputs))
        elif outputs and all(bool((output == outputs[0][:1]).all()) for output in outputs):
            notes.append(f"{CONSTANT}different images give the same {name}")
    return notes


def _extent(name: str, outputs: Sequence[Tensor]) -> str:
    """How many values of an output, and of how many images, are not finite."""
    rows = torch.cat([(~output.isfinite()).flatten(1).sum(1).cpu() for output in outputs])
    own = torch.cat([rows[:1], rows[2:]])  # the second is the bright one
    if not bool(own.any()):
        return f"values of the {name} for a bright random image"
    text = f"{int(own.sum())} of {len(own) * outputs[0][0].numel()} values of the {name}"
    bad = own.nonzero().flatten().tolist()
    some = f" for {len(bad)} of {len(own)} images, such as number {bad[0] + 1}"
    return text if len(bad) == len(own) else text + some


def _first_step(passes: PairedPasses, outputs: Sequence[Tensor]) -> str:
    """A clause with the first step that is not finite, for the images that show it first."""
    place = next(i for i, one in enumerate(outputs) if not bool(one.isfinite().all()))
    steps = _first_not_finite(passes, [passes.inputs["together"], *passes.pairs][place])
    return f", first in {steps[0]}" if steps else ""


def _first_not_finite(passes: PairedPasses, x: Tensor) -> list[str]:
    """The first step whose output for `x` is not finite, if the model can be traced."""
    found: list[str] = []

    def read(step: str, output: Tensor) -> None:
        if not found and output.is_floating_point() and not bool(output.isfinite().all()):
            found.append(step)

    try:
        passes.model.trace(x, read)
    except Exception:  # naming the step is a service
        return found
    return found


@dataclass(frozen=True)
class _Fault:
    """A reason; `tolerated` if suites are measured all the same."""

    text: str
    tolerated: bool = False


def _faults_of_faint(passes: PairedPasses, second: Outputs) -> dict[str, _Fault]:
    """What is wrong with outputs for the dark image, in the company of the first and of itself.

    The range or the largest value of a batch may be that of the first image, whatever its mates.
    """
    found = {}
    for name, a, b in finite_outputs(second, passes.run("both dark")):
        change = relative_distance(a[1:], b[1:])
        if change > MATES:
            found[name] = _dependent(passes, name, change, ("other mate", "both dark"), 1.0)
    return found


def _moved(passes: PairedPasses, second: Outputs) -> _Fault | None:
    """What is wrong with logits that change if the images of the pair `second` change places.

    `_misnamed` looks at the target.
    """
    moved = passes.run("other place")
    found = {name: (a, b) for name, a, b in finite_outputs(second, moved)}
    if "logits" not in found:
        return None
    change = relative_distance(found["logits"][0][:1], found["logits"][1][1:])
    if change <= MATES:
        return None
    again = passes.run("other place").logits
    if again is None or relative_distance(found["logits"][1], again) > SAME:
        return None  # random, which was looked for
    if (noise := _amplified(passes, "logits", change, "other mate", 0)) is not None:
        return noise
    by = f"changes the logits by {_percent(change)} of the norm"
    if change <= EIGHT_BITS and passes.quantised:
        text = "steps in eight bits are rounded otherwise at another place in the batch: it"
        return _Fault(f"{text} {by}", tolerated=True)
    return _Fault(f"{DEPENDENT}: its place among them {by}")


def _faults_of_number(passes: PairedPasses, first: Outputs) -> dict[str, _Fault]:
    """What is wrong with outputs that change if a third image joins the first two."""
    try:
        three = passes.run("three")
    except Exception:  # a network of pairs alone: suites run it in pairs
        return {}
    found: dict[str, _Fault] = {}
    for name, a, b in finite_outputs(first, three):
        for place in (0, 1):
            change = relative_distance(a[place : place + 1], b[place : place + 1])
            if change <= MATES or (name in found and not found[name].tolerated):
                continue
            text = f"{DEPENDENT}: a third one changes the {name} by {_percent(change)} of the norm"
            noise = _amplified(passes, name, change, "together", place)
            found[name] = noise or _Fault(text)
    return found


def _repeated(passes: PairedPasses, name: str, output: Tensor, count: int) -> float:
    """The largest distance of `output` to that of `count` equal passes."""
    again = (getattr(passes.run("together"), name) for _ in range(count))
    return max(relative_distance(output, other) for other in again)


def _fault(passes: PairedPasses, name: str, first: Tensor, second: Tensor) -> _Fault | None:
    """What is wrong with an output, of two passes over one image with different mates."""
    change = relative_distance(first[:1], second[:1])
    draws = passes.random_steps or passes.generators
    if change <= SAME and not draws:
        return None
    apart = _repeated(passes, name, first, RARE_PASSES if draws else 1)
    if draws and change > MATES:  # a rare draw of the second pass is not its other mate's doing
        again = getattr(passes.run("other mate"), name)
        apart = max(apart, relative_distance(second, again))
    if apart > SAME:
        steps = passes.random_steps or _first_difference(passes, "together", "together")
        steps = steps or passes.generators
        what = {"target": "maps of the target"}.get(name, name)
        text = f"{RANDOM}: two equal passes give different {what}"
        return _Fault(text + _where(steps, "a random operator, or a state kept from pass to pass"))
    if change <= MATES:
        return None
    return _dependent(passes, name, change, ("together", "other mate"), MATES_ROUNDING)


def _dependent(
    passes: PairedPasses, name: str, change: float, pair: tuple[str, str], most: float
) -> _Fault:
    """The fault of an output that differs by `change` between the passes `pair`.

    A change up to `most` by rounding to the range of the batch is tolerated.
    """
    place = int(pair[0] != "together")
    if (noise := _amplified(passes, name, change, pair[0], place)) is not None:
        return noise
    steps = _first_difference(passes, *pair, place=place)
    rounds = any(map(_rounds_by_range, steps)) and change <= most
    text = f"{DEPENDENT}: another one changes the {name} by {_percent(change)} of the norm"
    return _Fault(text + _where(steps, "an operation over the batch"), tolerated=rounds)


def _amplified(
    passes: PairedPasses, name: str, change: float, pair: str, place: int
) -> _Fault | None:
    """The note on a `change` of an output that may be float noise; None if it is too large.

    A fault where rounding changes so much of the output that it can be told from nothing else.
    """
    rounding = passes.rounding(pair, place, name)
    if change > AMPLIFIED * rounding:
        return None
    chaotic = rounding > CHAOS
    start = CHAOTIC if chaotic else "the network amplifies rounding"
    text = f"the last bit of the input changes the {name} by {_percent(rounding)} of the norm"
    return _Fault(f"{start}: {text}", tolerated=not chaotic)


def _rounds_by_range(step: str) -> bool:
    """Whether a step is ONNX's, or one of torch's, that quantises by the range of what it gets."""
    return "DynamicQuantizeLinear" in step or re.search(r"_dynamic\b", step) is not None


def _first_difference(passes: PairedPasses, one: str, other: str, place: int = 0) -> list[str]:
    """The first step whose output for image `place` differs between two passes, if traceable."""
    try:
        pairs = list(zip(passes.sums(one, place), passes.sums(other, place), strict=False))
    except Exception:  # naming the step is a service; the fault is certain without it
        return []
    for (step, a), (same, b) in pairs:
        if step != same:
            return []
        if abs(a - b) > SAME * max(abs(a), abs(b)):
            return [step]
    return []


CAUSES = {
    "dropout": "dropout that was left on",
    "bernoulli": "dropout that was left on",
    "batch_norm": "a batch norm without running statistics",
    "batchnorm": "a batch norm without running statistics",
    "dynamicquantize": "quantisation by the range of the batch",
}
"""The likely cause by part of a step's name."""


def _where(steps: Sequence[str], unknown: str) -> str:
    """Clauses: the first of `steps`, and the likely cause."""
    if not steps:
        return f"; the likely cause is {unknown}"
    words = [cause for word, cause in CAUSES.items() if word in steps[0].lower()]
    words += [CAUSES["dynamicquantize"]] if _rounds_by_range(steps[0]) else []
    return f", first in {steps[0]}; the likely cause is {next(iter(words), unknown)}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share > 0.1 else f"{100 * share:.2g} %"


def _misnamed(model: Model, passes: PairedPasses, whole: Outputs) -> _Fault | None:
    """What is wrong with the target of a pass that stops there, beside one to the logits."""
    stopped = passes.run("other place", logits=False).target
    grid = model.target
    if stopped is None or whole.target is None or grid is None:
        return None
    named = (grid.channels, grid.height, grid.width)
    if tuple(stopped.shape[1:]) != named or tuple(whole.target.shape[1:]) != named:
        shown = " and ".join(
            dict.fromkeys(" x ".join(map(str, t.shape[1:])) for t in (stopped, whole.target))
        )
        return _Fault(f"{MISNAMED}: {grid.name!r} is {' x '.join(map(str, named))}, not {shown}")
    if not bool(stopped.isfinite().all() and whole.target.isfinite().all()):
        return None  # NaN differs from itself; a note says so
    apart = relative_distance(stopped[1:], whole.target[:1])
    if apart <= MATES:
        return None
    if (noise := _amplified(passes, "target", apart, "other place", 1)) is not None:
        return noise
    moved = passes.run("other place").target
    if moved is not None and relative_distance(moved, stopped) <= MATES:
        return _Fault(f"{DEPENDENT}: its place in the batch changes the target")
    if apart <= EIGHT_BITS and passes.quantised:
        return _Fault(
            "the steps in eight bits are rounded otherwise in a pass that stops at the target: it "
            f"changes by {_percent(apart)} of the norm",
            tolerated=True,
        )
    return _Fault(
        f"{MISNAMED}: a pass that stops at {grid.name!r} gives another map than one that goes on; "
        "name another layer with --target"
    )
