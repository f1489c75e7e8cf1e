"""Real trained weights: EfficientNet-Lite0 through every suite."""

import pytest
from trained_weights import IMAGES, SUITES, audited

from perimetry import audit

FILLS = ("none", "box")


@pytest.mark.parametrize("fill", FILLS)
def test_every_suite_measures_trained_weights(fill):
    """Each suite gives an ok record whose headline is a number."""
    for suite in SUITES:
        record = audited()[fill, suite]
        assert record.status == "ok", record.error
    assert audited()[fill, "deadpixel"].metrics["weakest"].value > 0
    assert audited()[fill, "perturbation"].metrics["comb_weakest"].value > 0
    assert audited()[fill, "padding"].metrics["blind_weakest"].value > 0


@pytest.mark.parametrize("fill", FILLS)
def test_finite_differences_and_gradients_agree_on_trained_weights(fill):
    """The phase profiles differ by their standard errors, derivatives by the step's error."""
    found = audited()[fill, "perturbation"].metrics
    assert found["agreement_gradient_z"].value < 2
    assert found["agreement_direction"].value < 2 * found["comb_error"].value
    assert found["comb_error"].value < 0.1


def test_box_lowers_the_imbalance_of_trained_weights():
    """Box padding lowers the imbalance, beyond both intervals at the first stride's period."""
    none, box = (audited()[fill, "deadpixel"].metrics for fill in FILLS)
    assert box["imbalance"].value < none["imbalance"].value
    assert box["by_period_2"].high < none["by_period_2"].low
    none, box = (audited()[fill, "perturbation"].metrics for fill in FILLS)
    assert box["comb_imbalance"].value < none["comb_imbalance"].value


def test_training_has_evened_what_the_architecture_implies():
    """The measured imbalance lies, interval and all, below that expected of random weights."""
    expected = audited()["none", "structure"].metrics["imbalance"].value
    assert audited()["none", "deadpixel"].metrics["imbalance"].high < expected


def test_recalibration_gives_most_of_a_trained_net_back():
    """With box alone most images change class; with the norms' moments matched few do."""
    alone = audited()["box", "fidelity"].metrics
    (matched,) = audit(
        audited()["box", "fidelity"].model.reference,
        ("fidelity",),
        kernel_padding=("box",),
        count=IMAGES,
        device="cpu",
        recalibrate=True,
    )
    assert alone["top1_agreement"].value < 0.3
    assert matched.metrics["top1_agreement"].value > 0.7
    assert matched.metrics["feature_cosine"].low > alone["feature_cosine"].high
