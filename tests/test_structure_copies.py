"""`structure` follows `copy_` into a constant and its parts, as detectors batch their images."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from perimetry import audit
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.pytorch.model import wrap


def padded(x):
    return F.pad(x, (2, 2, 1, 1))


def canvas(x):
    return x.new_zeros(len(x), 3, x.shape[2] + 2, x.shape[3] + 4)


def copied(x):
    made = canvas(x)
    made[:, :, 1:-1, 2:-2].copy_(x)
    return made


def one_by_one(x):
    made = canvas(x)
    for place in range(len(x)):
        made[place, :, 1:-1, 2:-2].copy_(x[place])
    return made


def whole(x):
    made = torch.empty_like(x)
    made.copy_(x)
    return padded(made)


class Net(nn.Module):
    def __init__(self, batch):
        super().__init__()
        self.batch, self.layer = batch, nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, x):
        return self.layer(self.batch(x))


@pytest.mark.parametrize("batch", [copied, one_by_one, whole])
def test_what_is_copied_has_the_maps_of_what_is_padded(batch):
    """Expected sensitivity and numbers of paths are equal, pixel by pixel."""
    options = {"spec": InputSpec(16, 16), "device": "cpu"}
    found, expected = (
        audit(wrap(Net(one), **options), ("structure",), count=1, device="cpu")[0]
        for one in (batch, padded)
    )
    assert found.status == expected.status == "ok", found.reason
    for name in ("sensitivity", "path_count"):
        np.testing.assert_allclose(found.maps[name], expected.maps[name], rtol=1e-6)


def test_a_detector_of_torchvision_has_a_structure():
    """Its images are resized and copied into a batch before the backbone."""
    (record,) = audit(
        "torchvision:ssdlite320_mobilenet_v3_large@init",
        ("structure",),
        size=(64, 64),
        members=1,
        count=1,
        device="cpu",
    )
    assert record.status == "ok", record.reason
