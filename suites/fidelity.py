"""`fidelity`: how much a treatment changes the model, compared with the untreated original.

`top1_agreement`: share of images with the same arg-max of the logits. `feature_cosine`: cosine of
the two targets (all channels and units of an image as one vector), mean over images. Forward passes
only, on the same images. For a model of several weight sets, image i is shown to weight set
i mod members of both, and a sample is a weight set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from ..adapters.model import Outputs
from .base import Context, Estimate, Measurement, Metric, Suite, missing
from .measuring.batching import Batching
from .measuring.bootstrap import bootstrap
from .measuring.forward import why_no_class

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ..adapters.model import Model
    from .base import Array


NOT_FINITE_TARGET = "the target is not finite (NaN or infinite), so it has no direction"

RESIZED_TARGET = "the padded target has fewer units, so the two cannot be compared one by one"


@dataclass(frozen=True)
class Fidelity(Suite):
    """The suite; its module's docstring is the definition."""

    name: ClassVar[str] = "fidelity"
    protocols: ClassVar[Mapping[str, str]] = {"forward": "2"}
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "top1_agreement",
            "share of images with the original's top class",
            "share",
            "higher",
            high=1.0,
            even=1.0,
            label="same top class as untreated",
            caveat="Untrained weights have nearly tied classes: it says little of them.",
            verdicts=("changed", "unchanged"),
        ),
        Metric(
            "feature_cosine",
            "cosine with the original's target",
            "cosine",
            "higher",
            low=-1.0,
            high=1.0,
            even=1.0,
            label="cosine of the features",
            verdicts=("changed", "unchanged"),
        ),
    )
    headline: ClassVar[str] = "top1_agreement"
    random: ClassVar[bool] = True
    question: ClassVar[str] = "how far kernel padding changed the answers"
    topic: ClassVar[str] = "Fidelity"

    def skip(self, model: Model, protocol: str) -> str | None:
        """Only a treated model has an original to compare with."""
        return None if model.original else "the model is not treated"

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Compare `model` with `model.original` on the images."""
        if model.original is None:
            raise ValueError("the model has no original: call `skip` first")
        batching = Batching(context.batch, model.device)
        found = _compare(model, model.original, context, batching)
        return Measurement(found, notes=batching.notes)


def _mean(
    values: list[Tensor], context: Context, why_none: str, *, share: bool = False
) -> Estimate:
    """Mean over samples, `values` holding those of each weight set (images,)."""
    if not values:
        return missing(why_none)
    samples = values[0] if len(values) == 1 else torch.stack([v.mean() for v in values])
    array = samples.double().cpu().numpy()
    resamples = bootstrap(len(array), context.draws, context.seed)
    if share:
        return resamples.share(array)
    return resamples.estimate(resamples.weights @ array, low=-1.0, high=1.0)


def _compare(
    model: Model, original: Model, context: Context, batching: Batching
) -> dict[str, Estimate]:
    """Agreement and cosine, each missing with the reason where an output has no meaning."""
    x = model.spec.prepare(context.images)
    members = min(model.members, len(x))
    agreement: list[Tensor] = []
    cosine: list[Tensor] = []
    faults: dict[str, str | None] = {"logits": None, "target": None}
    for member in range(members):
        own = x[member::members]
        a, b = (_forward(one, member, x, own, batching) for one in (model, original))
        if a.logits is not None and b.logits is not None:
            agreement.append((a.logits.argmax(1) == b.logits.argmax(1)).float())
            faults["logits"] = faults["logits"] or why_no_class(a.logits) or why_no_class(b.logits)
        if a.target is not None and b.target is not None and a.target.shape != b.target.shape:
            faults["target"] = RESIZED_TARGET
        elif a.target is not None and b.target is not None:
            cosine.append(
                torch.nn.functional.cosine_similarity(a.target.flatten(1), b.target.flatten(1))
            )
            finite = a.target.isfinite().all() and b.target.isfinite().all()
            faults["target"] = faults["target"] or (None if finite else NOT_FINITE_TARGET)
    of_logits, of_target = faults["logits"], faults["target"]
    return {
        "top1_agreement": missing(of_logits)
        if of_logits
        else _mean(agreement, context, "the model gives no logits", share=True),
        "feature_cosine": missing(of_target)
        if of_target
        else _mean(cosine, context, "the model has no spatial map"),
    }


def _forward(model: Model, member: int, x: Tensor, own: Tensor, batching: Batching) -> Outputs:
    """Outputs of one weight set for its `own` images, batch by batch."""
    model.select(member, x)
    spatial = model.why_not_spatial is None
    parts = batching.run(
        len(own),
        lambda chunk: model.run(own[chunk].to(model.device), target=spatial, logits=True),
    )
    targets = [p.target for p in parts if p.target is not None]
    logits = [p.logits for p in parts if p.logits is not None]
    return Outputs(
        torch.cat(targets) if targets else None,
        torch.cat(logits) if logits else None,
    )


FIDELITY = Fidelity()
