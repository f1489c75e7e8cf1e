"""`perimetry pad`: a kernel-padded ONNX file beside the vendor's, and what that did to the model.

The new file is written, opened again, and measured like any other: fidelity against the original,
and the phases' imbalance of both by the same route, gradients where both files have them, the
phase comb (`perturbation`: forward passes alone) where not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..adapters.errors import NotApplicableError
from .execution.audit import audit
from .output.text import clean
from .statistics.difference import Difference, metric_difference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ..adapters.model import Model
    from ..adapters.treatment import Fill, Treatment
    from ..suites.base import Estimate
    from .records.record import Record, Value


GRADIENTS, FORWARD = "deadpixel", "perturbation"


METRICS = {
    GRADIENTS: ("imbalance", "weakest"),
    FORWARD: ("comb_imbalance", "comb_weakest"),
}
"""What is told before and after, by suite."""


BRIEF: Mapping[str, Mapping[str, Any]] = {
    FORWARD: {"position_images": 1, "block": 2, "attack_images": 1, "noise_draws": 2}
}
"""The comb in full; the least of what else `perturbation` does."""


@dataclass(frozen=True)
class PadReport:
    """What `pad_file` did and measured; `fidelity` by metric, `before` and `after` of one suite."""

    path: Path
    out: Path
    treatment: Treatment
    written: tuple[Path, ...]
    fidelity: Mapping[str, Estimate]
    before: Record
    after: Record
    notes: tuple[str, ...] = ()

    def change(self, metric: str) -> Difference | None:
        """`metric` after less before, None where either could not be measured."""
        return metric_difference(self.after, self.before, metric)

    def text(self) -> str:
        """For a person: files, layers, fidelity, imbalance, and what to know about them."""
        done = self.treatment
        lines = [f"{clean(str(self.out))}: {len(done.layers)} layers padded with {done.fill}"]
        lines += [
            f"  {clean(p.name)} ({p.kind}): kernel {_pair(p.kernel)} -> {_pair(p.padded_kernel)}"
            for p in done.layers
        ]
        lines += [f"  {clean(name)}: left, {clean(why)}" for name, why in done.left.items()]
        lines += [f"{name}: {_told(e)}" for name, e in self.fidelity.items()]
        lines += [self._line(metric) for metric in METRICS[self.before.suite]]
        lines += [f"note: {clean(note, 400)}" for note in self.notes]
        return "\n".join([*lines, f"written: {', '.join(clean(str(p)) for p in self.written)}"])

    def _line(self, metric: str) -> str:
        name = f"{self.before.suite}.{metric}"
        if self.before.status != "ok" or self.after.status != "ok":
            broken = self.before if self.before.status != "ok" else self.after
            why = broken.reason or (broken.error.message if broken.error else broken.status)
            return f"{name}: not measured ({clean(why, 300)})"
        held = [_told(record.metrics[metric]) for record in (self.before, self.after)]
        change = self.change(metric)
        verdict = ""
        if change is not None and change.low is not None:
            verdict = "; the difference is beyond its interval" if change.separated else ""
            verdict = verdict or "; not shown to differ"
        return f"{name}: {held[0]} before, {held[1]} after{verdict}"


def pad_file(
    path: str | Path,
    out: str | Path,
    fill: Fill = "box",
    *,
    images: str = "dead-leaves",
    count: int = 16,
    seed: int = 0,
    inputs: Mapping[str, Any] | None = None,
    target: str | None = None,
    forward_only: bool = False,
    recalibrate: bool = False,
    device: str = "auto",
    batch: int | None = None,
) -> PadReport:
    """Write the kernel-padded twin of the ONNX file `path` to `out`, and measure both.

    `fill` is `box` or `zero`. `images`, `count`, `seed`, `inputs`, `target`, `device` and `batch`
    are as for `audit`. `forward_only` measures the imbalance by the phase comb even where
    there are gradients. `recalibrate` rescales the layers that grew on these
    images. Raises subclasses of `PerimetryError` where nothing can be written;
    what cannot be measured is told in the report.
    """
    from ..adapters.load import load, pad_onnx
    from ..suites.images import open_images

    path, out = Path(path), Path(out)
    model = load(str(path), device=device, inputs=inputs, target=target)
    seen = open_images(images, count, seed).load(model.spec)
    shown = model.spec.prepare(seen) if recalibrate else None
    done = pad_onnx(model, out, fill, images=shown)
    padded = done.model
    forward = forward_only or model.why_no_gradients or padded.why_no_gradients
    suite = FORWARD if forward else GRADIENTS
    settings: dict[str, Any] = {"images": images, "count": count, "seed": seed, "device": device}
    before, after = (
        audit(one, (suite,), options=BRIEF if suite == FORWARD else {}, batch=batch, **settings)[0]
        for one in (model, padded)
    )
    notes = [*done.notes, *model.notes]
    if not done.treatment.layers:
        notes.insert(0, "no layer could be padded: the new file does what the old one does")
    return PadReport(
        path,
        out,
        done.treatment,
        done.written,
        fidelity(padded, seen, seed=seed, batch=batch),
        before,
        after,
        tuple(dict.fromkeys(notes)),
    )


def fidelity(
    padded: Model, images: Tensor, *, seed: int, batch: int | None
) -> Mapping[str, Estimate]:
    """The suite `fidelity` on `padded` against its original, by metric; `images` as `Context`'s."""
    from ..suites.base import Context, missing
    from ..suites.fidelity import FIDELITY
    from .execution.run_options import default_batch

    context = Context(images, seed, batch or default_batch(padded.device.type))
    try:
        return FIDELITY.measure(padded, "forward", {}, context).metrics
    except NotApplicableError as error:
        return {metric.name: missing(str(error)) for metric in FIDELITY.metrics}


def _told(value: Estimate | Value) -> str:
    if value.value is None:
        return f"not measured ({clean(value.reason or '', 300)})"
    if value.low is None or value.high is None:
        return f"{value.value:.4f}"
    return f"{value.value:.4f} [{value.low:.4f}, {value.high:.4f}]"


def _pair(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"
