"""`perimetry pad`: write a kernel-padded copy of an ONNX file and measure what changed.

The new file is written, opened again, and measured like any other: fidelity against the original,
and the imbalance of the phases of both by the same method: by gradients where both files have them,
else by the phase comb (`perturbation`), which takes forward passes alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from ..adapters.errors import InputError, NotApplicableError
from ..adapters.reference import Reference
from .execution.audit import measure_here
from .execution.keywords import read_keywords
from .execution.settings import RunOptions, Settings, SettingsFields
from .output.text import clean, counted
from .statistics.difference import Difference, metric_difference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ..adapters.model import Model
    from ..adapters.treatment import Fill, Treatment
    from ..suites.base import Estimate
    from .records.parts import Value
    from .records.record import Record


GRADIENTS, FORWARD = "deadpixel", "perturbation"

METRICS = {
    GRADIENTS: ("imbalance", "weakest"),
    FORWARD: ("comb_imbalance", "comb_weakest"),
}
"""Metrics that are reported before and after, by suite."""

BRIEF: Mapping[str, Mapping[str, Any]] = {
    FORWARD: {"position_images": 1, "block": 2, "attack_images": 1, "noise_draws": 2}
}
"""Settings that measure the whole comb and as little else as `perturbation` allows."""


@dataclass(frozen=True)
class PadReport:
    """What `pad_file` wrote and measured: `fidelity` by metric, and one suite before and after."""

    path: Path
    out: Path
    treatment: Treatment
    written: tuple[Path, ...]
    fidelity: Mapping[str, Estimate]
    before: Record
    after: Record
    notes: tuple[str, ...] = ()

    def change(self, metric: str) -> Difference | None:
        """`metric` after minus before; None where either could not be measured."""
        return metric_difference(self.after, self.before, metric)

    def text(self) -> str:
        """The report for a terminal: files, layers, fidelity, imbalance and notes."""
        done = self.treatment
        lines = [
            f"{clean(str(self.out))}: {counted(len(done.layers), 'layer')} padded with {done.fill}"
        ]
        lines += [
            f"  {clean(p.name)} ({p.kind}): kernel {_pair(p.kernel)} -> {_pair(p.padded_kernel)}"
            for p in done.layers
        ]
        lines += [
            f"  {clean(name)}: not padded, {clean(why)}"
            for name, why in done.refused_layers.items()
        ]
        lines += [f"{name}: {_with_interval(e)}" for name, e in self.fidelity.items()]
        lines += [self._line(metric) for metric in METRICS[self.before.suite]]
        lines += [f"note: {clean(note, 400)}" for note in self.notes]
        return "\n".join([*lines, f"written: {', '.join(clean(str(p)) for p in self.written)}"])

    def _line(self, metric: str) -> str:
        name = f"{self.before.suite}.{metric}"
        if self.before.status != "ok" or self.after.status != "ok":
            broken = self.before if self.before.status != "ok" else self.after
            return f"{name}: not measured ({clean(broken.why, 300)})"
        values = [_with_interval(record.metrics[metric]) for record in (self.before, self.after)]
        change = self.change(metric)
        verdict = ""
        if change is not None and change.low is not None:
            verdict = "; the difference is beyond its interval" if change.separated else ""
            verdict = verdict or "; not shown to differ"
        return f"{name}: {values[0]} before, {values[1]} after{verdict}"


def pad_file(
    path: str | Path,
    out: str | Path,
    fill: Fill = "box",
    *,
    forward_only: bool = False,
    device: str = "auto",
    batch: int | None = None,
    **settings: Unpack[SettingsFields],
) -> PadReport:
    """Write a kernel-padded copy of the ONNX file `path` to `out`, and measure both.

    `fill` is `box` or `zero`. `settings` are `images`, `count`, `seed`, `inputs`, `target` and
    `recalibrate` of `Settings`; the last rescales the padded layers on the images. `forward_only`
    measures the imbalance by the phase comb even where there are gradients. Raises subclasses of
    `PerimetryError` where nothing can be written; the report says what could not be measured.
    """
    from ..adapters.load import load, pad_onnx
    from ..suites.images import open_images

    path, out = Path(path), Path(out)
    chosen = read_keywords(pad_file, Settings, settings)
    if Reference.parse_any(str(path)).runtime not in ("onnx", ""):
        raise InputError(f"{str(path)!r} is not an ONNX file; only those can be padded as files")
    model = load(str(path), device=device, inputs=chosen.inputs, target=chosen.target)
    images = open_images(chosen.images, chosen.count, chosen.seed).load(model.spec)
    done = pad_onnx(
        model, out, fill, images=model.spec.prepare(images) if chosen.recalibrate else None
    )
    padded = done.model
    black_box = forward_only or model.why_no_gradients or padded.why_no_gradients
    suite = FORWARD if black_box else GRADIENTS
    run = RunOptions(device, batch)
    before, after = (_measure(one, suite, chosen, run) for one in (model, padded))
    notes = [*done.notes, *model.notes]
    if not done.treatment.layers:
        notes.insert(0, "no layer could be padded: the new file computes the same as the old one")
    return PadReport(
        path,
        out,
        done.treatment,
        done.written,
        fidelity(padded, images, seed=chosen.seed, batch=batch),
        before,
        after,
        tuple(dict.fromkeys(notes)),
    )


def _measure(model: Model, suite: str, settings: Settings, run: RunOptions) -> Record:
    """The record of one suite on an opened model."""
    own = Settings(
        images=settings.images,
        count=settings.count,
        seed=settings.seed,
        options=BRIEF if suite == FORWARD else {},
    )
    return measure_here(model, (suite,), ("none",), own, run)[0]


def fidelity(
    padded: Model, images: Tensor, *, seed: int, batch: int | None
) -> Mapping[str, Estimate]:
    """The metrics of the suite `fidelity` for a padded model against its original.

    `images` (count, 3, height, width) are in [0, 1].
    """
    from ..suites.base import Context, missing
    from ..suites.fidelity import FIDELITY
    from .execution.settings import default_batch

    context = Context(images, seed, batch or default_batch(padded.device.type))
    try:
        return FIDELITY.measure(padded, "forward", {}, context).metrics
    except NotApplicableError as error:
        return {metric.name: missing(str(error)) for metric in FIDELITY.metrics}


def _with_interval(value: Estimate | Value) -> str:
    if value.value is None:
        return f"not measured ({clean(value.reason or '', 300)})"
    if value.low is None or value.high is None:
        return f"{value.value:.4f}"
    return f"{value.value:.4f} [{value.low:.4f}, {value.high:.4f}]"


def _pair(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"
