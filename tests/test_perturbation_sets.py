"""Several weight sets of unlike gains: each counts alike in everything that is averaged."""

import numpy as np
import pytest
import torch
from planted import GREY, classifier, copying, measure, measure_model, private
from torch import nn

from perimetry.adapters.pytorch.model import TorchModel
from perimetry.suites.measuring.step_size import (
    MAX_STEP_ERROR,
    STEPS,
    Disagreement,
    StepSize,
    why_step_unusable,
)
from perimetry.suites.perturbation import comb_responses as comb

PROFILES = np.array([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 3.0], [2.0, 4.0]], [[1.0, 1.0], [1.0, 2.0]]])
"""Gains by phase of three initial states."""
FEW = {"comb_draws": 3, "position_images": 3, "attack_images": 3, "block": 4}


class Claim(torch.autograd.Function):
    """The identity, whose gradient is `claim` times what it should be."""

    @staticmethod
    def forward(ctx, x, claim):
        ctx.claim = claim
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return ctx.claim * gradient, None


class Claiming(nn.Module):
    """`body` with a gradient that is wrong by a factor."""

    def __init__(self, body, claim):
        super().__init__()
        self.body, self.claim, self.last = body, claim, copying(4)

    def forward(self, x):
        return self.last(Claim.apply(self.body(x), self.claim))


def ensemble(build):
    """A model of three weight sets, as a random initial state has them."""
    return TorchModel(
        build(0),
        build,
        reference="ensemble",
        spec=GREY,
        device=torch.device("cpu"),
        source={"runtime": "torch"},
        members=3,
        precision="float64",
    )


def found_with(gain):
    """What the suite finds where the third weight set is `gain` times as loud."""
    gains = np.array([1.0, 1.0, gain])
    built = [classifier(private((g * p).tolist())) for g, p in zip(gains, PROFILES, strict=True)]
    return measure_model(ensemble(lambda member: built[member]), count=3, **FEW)


@pytest.fixture(scope="module")
def found():
    return {gain: found_with(gain) for gain in (1.0, 100.0)}


def test_a_gain_of_one_weight_set_moves_nothing_but_the_output_units(found):
    """A weight set of 100 times the gain changes only the metric in output units."""
    quiet, loud = found[1.0].metrics, found[100.0].metrics
    for name, estimate in quiet.items():
        factor = 100 ** (1 / 3) if name == "position_mean" else 1.0
        if estimate.value is None:
            assert loud[name].reason == estimate.reason
        else:
            assert loud[name].value == pytest.approx(factor * estimate.value, rel=1e-3, abs=1e-5)
    for name, shown in found[1.0].maps.items():
        np.testing.assert_allclose(found[100.0].maps[name], shown, rtol=1e-3)


def test_a_profile_is_the_mean_of_those_of_the_weight_sets(found):
    """Literal: squared gains over their mean, weight set by weight set, and the mean of these."""
    profile = np.mean([p**2 / np.mean(p**2) for p in PROFILES], axis=0)
    for route in ("comb", "gradient"):
        np.testing.assert_allclose(found[100.0].maps[f"{route}_profile"], profile, rtol=1e-3)
    assert found[100.0].metrics["comb_imbalance"].value < 1


def test_responses_to_one_pixel_are_averaged_relative_to_their_weight_set(found):
    """The mean response is a geometric mean, and the map a mean of relative responses."""
    means = [gain * p.mean() * 0.1 / 256 for gain, p in zip((1, 1, 100), PROFILES, strict=True)]
    places = np.mean([np.tile(p / p.mean(), (2, 2)) for p in PROFILES], axis=0)
    value = found[100.0].metrics["position_mean"].value
    assert value == pytest.approx(np.prod(means) ** (1 / 3), rel=1e-3)
    np.testing.assert_allclose(found[100.0].maps["positions"], places, rtol=1e-3)


def test_a_wrong_gradient_of_a_quiet_weight_set_is_not_drowned_by_a_loud_one():
    """Literal: the claimed gradient is twice the true one, so that they differ by half the claim.

    Two weight sets agree; lengths are relative to the longer, the claim.
    """
    built = [Claiming(private((g * PROFILES[0]).tolist()), c) for g, c in ((1, 2), (1, 1), (99, 1))]
    found = measure_model(ensemble(lambda member: built[member]), count=3, **FEW)
    expected = np.sqrt((0.5**2 + 0 + 0) / 3)
    assert found.metrics["agreement_direction"].value == pytest.approx(expected, rel=1e-3)


def test_a_weight_set_that_hears_nothing_leaves_the_others_their_profile():
    """A weight set of zero gain leaves the profile that the others share as it is."""
    built = [private((g * PROFILES[0]).tolist()) for g in (1.0, 0.0, 5.0)]
    found = measure_model(ensemble(lambda member: built[member]), count=3, **FEW)
    profile = PROFILES[0] ** 2 / (PROFILES[0] ** 2).mean()
    np.testing.assert_allclose(found.maps["comb_profile"], profile, rtol=1e-3)
    assert found.metrics["position_mean"].value == 0
    assert found.metrics["comb_error"].value < 1e-3


def test_responses_that_depend_on_the_step_more_than_not_tell_nothing():
    """Half of the squared response is the limit: 1 / 2 for a difference, over a longer of 1."""
    for square, stated in ((0.49, False), (0.51, True)):
        reason = why_step_unusable(Disagreement(square, 0.9, 1.0), StepSize(2**-7, rounded=True))
        assert (reason is not None) == stated
    assert "0.0078125 of the pixel range" in reason
    assert f"more than {MAX_STEP_ERROR}" in reason
    assert why_step_unusable(Disagreement(0.0, 0.0, 0.0), StepSize(2**-7)) is None


class Steps(nn.Module):
    """Units that a pixel moves by a whole step of `height`, or not at all."""

    def __init__(self, height):
        super().__init__()
        self.body, self.last, self.height = private(), nn.Identity(), height

    def forward(self, x):
        return self.last((self.body(x) / self.height).round() * self.height)


def test_a_comb_that_measures_its_step_is_missing_with_the_reason(monkeypatch):
    """The step was chosen on one image; over all of them responses do not keep to it."""
    monkeypatch.setattr(comb, "choose_comb_step", lambda *_: StepSize(STEPS[0]))
    found = measure(Steps(3.0))
    assert found.metrics["comb_error"].value > MAX_STEP_ERROR
    assert found.metrics["comb_step"].value == STEPS[0]
    lost = {n: e.reason for n, e in found.metrics.items() if n.startswith(("comb", "det", "agr"))}
    del lost["comb_step"], lost["comb_error"]
    assert all(f"more than {MAX_STEP_ERROR}" in reason for reason in lost.values())
    assert "comb_profile" not in found.maps
    assert found.metrics["position_mean"].value is not None
