"""Fidelity of a treated model to its original."""

import pytest
import torch
from torch import nn

from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.base import Context
from perimetry.suites.fidelity import FIDELITY
from perimetry.suites.images import open_images

SPEC = InputSpec(32, 32, mean=(0.5,) * 3, std=(0.25,) * 3)


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 9)
    )


def compare(variant, original, count=12):
    variant.original = original
    images = open_images("dead-leaves", count).load(SPEC)
    return FIDELITY.measure(variant, "forward", {}, Context(images, batch=5)).metrics


def test_a_model_agrees_with_itself():
    """A copy of a model has the same top classes and a feature cosine of 1."""
    found = compare(wrap(classifier(), spec=SPEC), wrap(classifier(), spec=SPEC))
    assert found["top1_agreement"].value == 1
    assert found["feature_cosine"].value == pytest.approx(1)


def test_a_negated_target_has_cosine_minus_one_before_its_activation():
    """Negated weights give a cosine of -1, and without logits the agreement is missing."""
    module, mirror = nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.Conv2d(3, 4, 3, 2, 1, bias=False)
    with torch.no_grad():
        mirror.weight.copy_(-module.weight)
    found = compare(wrap(mirror, spec=SPEC), wrap(module, spec=SPEC))
    assert found["feature_cosine"].value == pytest.approx(-1)
    assert "no logits" in found["top1_agreement"].reason


def test_agreement_is_the_share_of_equal_top_classes():
    """The agreement is the mean of equal argmax over the images."""
    module, other = classifier(), classifier()
    with torch.no_grad():
        other[-1].weight.copy_(torch.roll(other[-1].weight, 1, 0))
        other[0].weight.mul_(-1)
    images = open_images("dead-leaves", 12).load(SPEC)
    x = SPEC.prepare(images)
    expected = float((module(x).argmax(1) == other(x).argmax(1)).float().mean())
    found = compare(wrap(other, spec=SPEC), wrap(module, spec=SPEC))
    assert found["top1_agreement"].value == pytest.approx(expected)
    assert expected < 1


def test_an_untreated_model_is_skipped_with_the_reason():
    """A model without kernel padding is skipped: there is nothing to compare it with."""
    assert FIDELITY.skip(wrap(classifier(), spec=SPEC), "forward") == "the model is not treated"
