"""Zhang's shift consistency: the share of pairs of randomly shifted crops with the same class.

Source: Zhang, "Making convolutional networks shift-invariant again", ICML 2019.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..measuring.forward import why_no_class

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ..base import Array
    from ..measuring.forward import MemberImages

STREAM = 35


@dataclass
class ShiftTest:
    """Collects the share of agreeing pairs by image.

    `large` (images, channels, height + shift, width + shift) are the prepared images to crop from,
    or None; offsets along each axis are uniform from 0 to `shift`. `fault` says why the outputs
    name no class.
    """

    large: Tensor | None
    shift: int
    pairs: int
    seed: int
    shares: dict[int, Array] = field(default_factory=dict)
    fault: str | None = None

    def observe(self, member: MemberImages) -> None:
        """Compare the crops of the images of one weight set."""
        if self.large is None or not member.passes.has_logits:
            return
        for index in member.indices:
            image = self.large[index].to(member.passes.model.device)
            answers = list(member.passes.answer(self._crops(image, index)))
            self.fault = self.fault or next(
                filter(None, (why_no_class(logits.flatten()[None]) for logits in answers)), None
            )
            top = [int(one.argmax()) for one in answers]
            same = [a == b for a, b in zip(top[::2], top[1::2], strict=True)]
            self.shares[index] = np.array(np.mean(same))

    def _crops(self, image: Tensor, index: int) -> Iterator[Tensor]:
        height, width = (n - self.shift for n in image.shape[1:])
        rng = np.random.default_rng([self.seed, STREAM, index])
        for top, left in rng.integers(0, self.shift + 1, (2 * self.pairs, 2)):
            yield image[:, top : top + height, left : left + width]
