"""What structure expects, against gradients of real random weights; and what `box` does to both."""

import numpy as np
import pytest

from perimetry.bench import audit

ODD = (
    "resnet18",
    "resnet50",
    "resnet50d",
    "densenet121",
    "regnety_004",
    "mobilenetv3_small_100",
    "efficientnet_lite0",
)


def records(name, fills, suites=("structure", "deadpixel"), **settings):
    options = {"count": 16, "members": 8, "device": "cpu", **settings}
    found = audit(f"timm:{name}@init", suites, fills, **options)
    assert all(r.status == "ok" for r in found), [r.error for r in found]
    return {(r.fill, r.suite): r for r in found}


@pytest.mark.parametrize("name", ODD)
def test_the_expected_profile_is_that_of_gradients_over_random_weights(name):
    found = records(name, ("none",))
    expected, measured = (
        found["none", suite].maps["phase_profile"] for suite in ("structure", "deadpixel")
    )
    assert np.corrcoef(expected.ravel(), measured.ravel())[0, 1] >= 0.95
    metric = "imbalance"
    exact = found["none", "structure"].metrics[metric].value
    assert found["none", "deadpixel"].metrics[metric].value == pytest.approx(exact, rel=0.25)


@pytest.mark.parametrize("name", ["resnet18", "regnety_002", "mobilenetv3_small_100"])
def test_box_lowers_the_imbalance_of_odd_kernels(name):
    found = records(name, ("none", "box"), count=8, members=4)
    for suite in ("structure", "deadpixel"):
        before, after = (found[fill, suite].metrics["imbalance"].value for fill in ("none", "box"))
        assert after < before / 3


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224"])
def test_even_kernels_are_untouched_and_say_so(name):
    found = records(name, ("none", "box"), ("structure",))
    none, box = (found[fill, "structure"] for fill in ("none", "box"))
    assert np.array_equal(none.maps["sensitivity"], box.maps["sensitivity"])
    assert any("untouched by kernel padding" in note for note in box.notes)


@pytest.mark.parametrize(
    ("name", "fill", "side"),
    [("resnet18", "none", 435), ("resnet50", "none", 427), ("resnet50", "box", 458)],
)
def test_theoretical_receptive_fields_are_the_known_ones(name, fill, side):
    found = records(name, (fill,), ("structure",))[fill, "structure"]
    assert found.metrics["receptive_field"].value == side
