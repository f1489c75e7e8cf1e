"""Detection thresholds rest on enough draws of noise, and on responses without float noise."""

import numpy as np
import pytest
import torch
from planted import GREY, measure, measure_model
from torch import nn

from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.perturbation.suite import Perturbation

QUICK = {"count": 6, "period": 2, "block": 2, "attack_images": 1, "position_images": 1}


def small():
    """Two strided convolutions with kinks between them."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1))


def test_few_draws_bias_the_ratio_by_less_than_a_tenth_of_its_half_width():
    """Over 16 seeds, the mean log ratio with 6 draws is that with 60, within chance and a tenth."""
    few, many, half = [], [], []
    for seed in range(16):
        one = measure(small(), seed=seed, noise_draws=6, **QUICK).metrics["detect_ratio"]
        other = measure(small(), seed=seed, noise_draws=60, **QUICK).metrics["detect_ratio"]
        few.append(np.log(one.value))
        many.append(np.log(other.value))
        half.append((one.high - one.low) / 2 / one.value)
    difference = np.array(few) - np.array(many)
    chance = difference.std(ddof=1) / np.sqrt(len(difference))
    assert abs(difference.mean()) < 0.1 * np.mean(half) + 2 * chance
    assert np.std(few) > np.std(many)


def test_the_default_number_of_draws_spreads_thresholds_half_as_much_as_six():
    """n (m - 1) degrees of freedom: 24 draws halve the spread of six, and are the default."""
    assert Perturbation().noise_draws == 24
    spread = {}
    for draws in (6, 24):
        exact = measure(small(), noise_draws=400, **QUICK).metrics["detect_weakest"].value
        found = []
        for noise_seed in range(16):
            model = wrap(small(), spec=GREY, device="cpu", precision="float64")
            found.append(_with_noise(model, draws, noise_seed) / exact)
        spread[draws] = np.std(found)
    assert 0.3 < spread[24] / spread[6] < 0.75


def _with_noise(model, draws, noise_seed):
    """The threshold of the weakest phase, where only the draws of noise depend on the seed."""
    from perimetry.suites.perturbation import comb_responses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comb_responses, "NOISE_STREAM", 1000 + noise_seed)
        found = measure_model(model, noise_draws=draws, **QUICK)
    return found.metrics["detect_weakest"].value


@pytest.mark.parametrize("batch", [1, 5])
def test_batch_size_moves_thresholds_by_float_noise_alone(batch):
    """In single precision too, all metrics of the comb agree to 0.2 % at any batch size."""
    one, other = (
        measure_model(wrap(small(), spec=GREY, device="cpu"), batch=b, **QUICK).metrics
        for b in (64, batch)
    )
    for name in ("detect_weakest", "detect_strongest", "detect_ratio", "comb_weakest"):
        assert other[name].value == pytest.approx(one[name].value, rel=2e-3)
    assert other["comb_step"].value == one["comb_step"].value
