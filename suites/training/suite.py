"""`training`: the effect of kernel padding on what a network learns (Kim et al. 2023).

Variants are one network with different kernel paddings. With the same seed they share all weights
that they have in common, the order of the images and every random box; new taps are 0 (`zero`:
the variant computes the same function before the first step), random (`fresh`) or computed from
the kernel (`box`).

Protocols
---------
micro_object (the default)
    Is a tiny box somewhere in the image red or black? See `micro_object`.
classification
    The images' own classes.

Metrics
-------
All metrics are computed for each seed, then averaged over seeds with an interval (bootstrap over
seeds; none with fewer than four). An epoch is one pass over the training images; the network is
tested after each.

`accuracy`: share of test images classified correctly after the last epoch. `mean_accuracy`: its
mean over all epochs, which is higher for a network that learns faster, even below 90 %.
`epochs_to_90`: the first epoch after which accuracy is 90 % or more (Kim et al.); missing if a seed
never reaches it. `reached_90`: the share of seeds that do. Only for micro_object: `phase_weakest`:
accuracy of the box's worst phase, mean over epochs, over the mean of all phases; the phase is
chosen on half of the seeds and read on the others (see `unbiased`). `phase_spread`: standard
deviation of that profile over phases, without the variation between seeds; it includes the
difficulty of the test images of a phase, which is the same for all seeds and variants.
`phase_agreement`: correlation over phases of the contrast (the change of the logits from a black to
a red box at one place) after the last epoch with the mean of the dead-pixel profile over the box.
`imbalance_start`, `imbalance_end`, `imbalance_change`, `weakest_*`: those of `deadpixel` (energy)
before the first and after the last epoch, and their difference. `erf_start`, `erf_end`,
`erf_growth`: `luo_size` of `erf` (energy), likewise.

Tables: `seeds` (all numbers of each seed), `curve` (accuracy and loss by epoch), `along` (dead
pixels and ERF at the probed epochs). Maps: `phase_accuracy`, `phase_contrast` (micro_object),
`phase_profile_start`, `phase_profile_end`, `erf_start`, `erf_end`.

The figures of Kim et al. on Caltech-101 with 8 x 8 boxes on 224 x 224 pixels, without and with
kernel padding: 28.2 -> 10.2 epochs to 90 % (ResNet-101), 28.0 -> 14.2 and 21.8 -> 8.8 (two others);
ordinary accuracy 95.28 -> 94.07 %. That the ERF grows during training is from Luo et al. 2016.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..base import Context, Measurement, Metric, Suite, described

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...adapters.model import Model
    from ..base import Array

PROTOCOLS = ("micro_object", "classification")


def _metrics() -> tuple[Metric, ...]:
    share, pixels = "share", "pixels"
    none: Literal["neither"] = "neither"
    return (
        Metric("accuracy", "share of test images classified correctly", share, none, high=1),
        Metric("mean_accuracy", "the same, mean over all epochs", share, none, high=1),
        Metric("epochs_to_90", "first epoch with 90 % of them correct", "epochs", none, low=1.0),
        Metric("reached_90", "share of seeds that reach 90 %", share, none, high=1.0),
        Metric(
            "phase_weakest",
            "accuracy with the box in its worst phase, mean over epochs, over that of all phases",
            "ratio",
            "higher",
            even=1.0,
        ),
        Metric("phase_spread", "standard deviation of it over phases", "ratio", "lower", even=0.0),
        Metric(
            "phase_agreement",
            "correlation over phases of the box's contrast with the dead-pixel profile",
            "correlation",
            none,
            low=-1.0,
            high=1.0,
        ),
        Metric("weakest_start", "deadpixel.weakest before training", "ratio", "higher", even=1.0),
        Metric("weakest_end", "deadpixel.weakest after training", "ratio", "higher", even=1.0),
        Metric("weakest_change", "deadpixel.weakest, end less start", "ratio", none, low=None),
        Metric("imbalance_start", "deadpixel.imbalance before", "ratio", "lower", even=0.0),
        Metric("imbalance_end", "deadpixel.imbalance after training", "ratio", "lower", even=0.0),
        Metric("imbalance_change", "deadpixel.imbalance, end less start", "ratio", none, low=None),
        Metric("erf_start", "erf.luo_size before training", pixels, none),
        Metric("erf_end", "erf.luo_size after training", pixels, none),
        Metric("erf_growth", "erf.luo_size, end less start", pixels, none, low=None),
    )


_METRICS = described(
    _metrics(),
    {
        "accuracy": "accuracy on the test images",
        "mean_accuracy": "the same, mean over the epochs",
        "epochs_to_90": "epochs until 90 % are correct",
        "reached_90": "seeds that reach 90 %",
        "phase_weakest": "accuracy in the worst phase",
        "phase_spread": "its deviation over the phases",
        "phase_agreement": "correlation with the phase profile",
        "weakest_start": "least sensitive phase, before",
        "weakest_end": "least sensitive phase, after",
        "weakest_change": "least sensitive phase, change",
        "imbalance_start": "imbalance of the phases, before",
        "imbalance_end": "imbalance of the phases, after",
        "imbalance_change": "imbalance of the phases, change",
        "erf_start": "receptive field, before",
        "erf_end": "receptive field, after",
        "erf_growth": "receptive field, change",
    },
    caveats={"epochs_to_90": "Seeds that never reach 90 % are left out of it."},
    main=(
        *("accuracy", "mean_accuracy", "epochs_to_90"),
        *("weakest_end", "imbalance_end", "erf_end"),
    ),
)


@dataclass(frozen=True)
class Training(Suite):
    """The suite; its module's docstring is the definition.

    It does not measure a given model: `perimetry train` trains the variants, and
    `summary.summarise` turns their histories into metrics.
    """

    name: ClassVar[str] = "training"
    protocols: ClassVar[Mapping[str, str]] = dict.fromkeys(PROTOCOLS, "2")
    question: ClassVar[str] = "whether unevenness matters in training"
    topic: ClassVar[str] = "Training"
    captions: ClassVar[Mapping[str, str]] = {
        "seeds": "Seed by seed",
        "curve": "Accuracy by epoch",
        "along": "Phases and receptive field along the training",
    }
    metrics: ClassVar[tuple[Metric, ...]] = _METRICS
    headline: ClassVar[str] = "accuracy"
    random: ClassVar[bool] = True

    def skip(self, model: Model, protocol: str) -> str | None:
        """It applies to no given model."""
        return (
            "this suite trains networks instead of measuring one; use the command `perimetry train`"
        )

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Raises `NotImplementedError`: `skip` gives a reason for every model."""
        raise NotImplementedError(self.skip(model, protocol))


TRAINING = Training()
