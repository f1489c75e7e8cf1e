"""Kernel padding of timm models, one of each kind; `results/kernel-padding/zoo.py` does all."""

from __future__ import annotations

import pytest
import timm
import torch
from padding_tools import FILLS, padded, random

FAMILIES = [
    "resnet18",
    "resnetv2_50x1_bit",
    "resnetblur50",
    "regnety_002",
    "tf_mixnet_s",
    "tf_efficientnet_cc_b0_4e",
    "inception_v4",
    "nfnet_l0",
    "seresnext26d_32x4d",
    "volo_d1_224",
    "levit_128s",
    "convnext_atto",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_timm_take_every_fill_with_shapes_unchanged(name):
    """Each family pads at every fill with its output shape kept; ConvNeXt has nothing to pad."""
    with torch.device("meta"):
        module = timm.create_model(name).eval()
    x = torch.zeros(2, *module.pretrained_cfg["input_size"], device="meta")
    even = name == "convnext_atto"
    for fill in FILLS:
        variant, treatment = padded(module, fill, x)
        with torch.no_grad():
            assert variant(x).shape == module(x).shape
        assert bool(treatment.layers) != even
        assert {p.name for p in treatment.layers} <= dict(module.named_modules()).keys()


@pytest.mark.parametrize("name", ["resnet18", "tf_mixnet_s", "test_nfnet"])
def test_a_timm_model_padded_with_zeros_gives_the_same_logits(name):
    """Padding with `zero` changes no logit beyond rounding."""
    torch.manual_seed(0)
    module = timm.create_model(name).eval().double()
    x = random(2, 3, 95, 96)
    variant, treatment = padded(module, "zero", x)
    assert treatment.layers
    with torch.no_grad():
        assert torch.allclose(variant(x), module(x), rtol=1e-9, atol=1e-9)
