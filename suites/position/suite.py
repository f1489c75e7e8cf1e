"""`position`: how much of a feature map is position instead of content.

Zero padding writes position into the features of convolutional networks, position embeddings into
those of transformers. Each image is rolled by a random offset, so that its content does not depend
on the position, and passed forward.

Stages
    The maps on the way to the target that are measured: those behind each block, by one rule for
    modules and ONNX graphs (see `adapters.blocks`). A block ends at the last map that every path
    passes through before units are mixed again by a kernel, attention or a change of resolution: a
    transformer has its embedding, each block, the last sum before the final norm, and the norm; a
    residual network the sums. Of more than `stages` maps evenly spaced ones are taken, with the
    last of each resolution and the one before the final norm.
Metrics of the target; the table `stages` has the first three and `outlier_share` for every stage
    `row_r2`, `column_r2`: R^2 of a linear probe that predicts the row, or column, of a unit from
    its features (ridge regression; see `probe`), trained on one half of the images and tested on
    the other; 1 minus squared error over variance, mean over test images, not below 0. 0: a linear
    probe finds no position, 1: it finds all.
    `position_share`: the share of the features' variance over the map that position explains,
    sum |E f(i) - E m|^2 over E sum |f(i) - m|^2: the sums are over units i and channels, m is the
    mean of f over the units of an image, and E is over images. The numerator is the mean product
    of different images, so that noise does not add to it (see `measuring.unbiased`).
Norms of units: of the target, or of the map before the final norm where channels are last (tokens)
    `outlier_share`: share of units whose norm over channels is above 3 times the median of the
    image. `bimodality`: Sarle's coefficient of the logarithms of the norms, mean over images: 1/3
    of a normal law, 1 of two values. The table `outliers` has the places that stand out most often.
Position embedding, from the weights alone
    `embedding_border`: mean norm over channels in the outermost ring over that of the other places.
    `embedding_largest`: largest norm over the median. Of a stored tensor with the shape of the
    target's tokens; missing where there is none.

Maps of more than 24 x 24 units are read by the probe at evenly spaced ones, of more than 768
channels at every k-th, which costs the probe: position is spread over all channels. The map
`norms` is the mean over images of norms over their median.

Samples are images; for several weight sets, of which the first `weight_sets` are used, all images
are shown to each, and a sample is a weight set. At least four images are needed for the probe. Its
test images share a training half, so that the interval is a little too narrow where R^2 is between
0 and 1.

Cost: one forward pass per image for every six stages.

Sources: probe, Islam et al., "How much position information do convolutional neural networks
encode?" (arXiv 2001.08248), with rolled images, which are ours; norms, Darcet et al., "Vision
transformers need registers" (arXiv 2309.16588). The share of variance without noise is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..base import Context, Measurement, Metric, Suite, described, require_at_least
from .embedding import read_embedding
from .study import PositionStudy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...adapters.model import Model
    from ..base import Array

_METRICS = described(
    (
        Metric("row_r2", "R^2 of the row by a linear probe", "share", "neither", high=1.0),
        Metric("column_r2", "R^2 of the column by a linear probe", "share", "neither", high=1.0),
        Metric("position_share", "variance that position explains", "share", "neither", high=1.0),
        Metric("outlier_share", "units of a norm above 3 medians", "share", "lower", high=1.0),
        Metric("bimodality", "Sarle's coefficient of log norms", "ratio", "neither"),
        Metric("embedding_border", "norm at the border over the rest", "ratio", "neither"),
        Metric("embedding_largest", "largest norm over the median", "ratio", "neither"),
    ),
    {
        "row_r2": "row read off the features, R²",
        "column_r2": "column read off the features, R²",
        "position_share": "variance explained by position",
        "outlier_share": "units whose norm stands out",
        "bimodality": "bimodality of the norms",
        "embedding_border": "position embedding, border",
        "embedding_largest": "position embedding, largest place",
    },
    caveats={
        "row_r2": "A probe of few images misses what one of many would find.",
        "position_share": "Few channels of a strong pattern weigh as much as many of a weak one.",
        "bimodality": "Heavy tails and few units raise it too.",
    },
    exact={"embedding_border": "always", "embedding_largest": "always"},
    main=("row_r2", "column_r2", "position_share", "outlier_share"),
)


@dataclass(frozen=True)
class Position(Suite):
    """The suite; its module's docstring is the definition and explains the settings."""

    weight_sets: int = 4
    stages: int = 24
    name: ClassVar[str] = "position"
    protocols: ClassVar[Mapping[str, str]] = {"rolled": "2"}
    metrics: ClassVar[tuple[Metric, ...]] = _METRICS
    headline: ClassVar[str] = "position_share"
    random: ClassVar[bool] = True
    question: ClassVar[str] = "how much of the features is position"
    topic: ClassVar[str] = "Position"
    captions: ClassVar[Mapping[str, str]] = {
        "stages": "Position behind the blocks on the way to the target",
        "outliers": "Places whose norm stands out most often",
    }
    setting_help: ClassVar[Mapping[str, str]] = {
        "weight_sets": "maximum number of weight sets of an untrained model",
        "stages": "maximum number of maps behind blocks, besides the last of each resolution",
    }

    def __post_init__(self) -> None:
        require_at_least(self, 1, "weight_sets", "stages")

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Pass the rolled images, and read position off their features."""
        found = Measurement({})
        study = PositionStudy(model, context, found, self.weight_sets, self.stages)
        study.run()
        study.report()
        read_embedding(model, found)
        return found


POSITION = Position()
