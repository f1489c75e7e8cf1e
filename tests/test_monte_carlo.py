"""What structure expects, against gradients of real random weights; and what `box` does to both."""

import numpy as np
import pytest
from validation.monte_carlo import compare

from perimetry import audit

ODD = (
    "resnet18",
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
    """Phase profiles correlate to 0.95 and imbalances agree to a quarter, over 8 weight sets."""
    assert [check.verdict for check in compare(name)] == ["agrees", "agrees"]


@pytest.mark.parametrize("name", ["regnety_002", "mobilenetv3_small_100"])
def test_box_lowers_the_imbalance_of_odd_kernels(name):
    """Box padding divides the imbalance by more than 3, expected and measured."""
    found = records(name, ("none", "box"), count=8, members=4)
    for suite in ("structure", "deadpixel"):
        before, after = (found[fill, suite].metrics["imbalance"].value for fill in ("none", "box"))
        assert after < before / 3


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224"])
def test_even_kernels_are_untouched_and_say_so(name):
    """Without an odd strided kernel, the padded record has the same map and a note."""
    found = records(name, ("none", "box"), ("structure",))
    none, box = (found[fill, "structure"] for fill in ("none", "box"))
    assert np.array_equal(none.maps["sensitivity"], box.maps["sensitivity"])
    assert any("untouched by kernel padding" in note for note in box.notes)
