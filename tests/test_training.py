"""The suite `training`: what many seeds' histories come to, against literal formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from perimetry.suites.training.suite import TRAINING
from perimetry.suites.training.summary import TrainingHistory, correlation, epochs_to, summarise

ACCURACY = [
    [0.50, 0.85, 0.95],
    [0.55, 0.92, 0.97],
    [0.60, 0.91, 0.99],
    [0.52, 0.70, 0.93],
]


def history(seed, accuracy, *, phases=None, contrast=None, profile=None, end=None):
    phases = [[1.0, 1.0], [1.0, 1.0]] if phases is None else phases
    epochs = [
        {
            "epoch": place + 1,
            "loss": 1 - value,
            "accuracy": value,
            "phase_accuracy": (np.array(phases) * value).tolist(),
            "phase_contrast": phases if contrast is None else contrast,
        }
        for place, value in enumerate(accuracy)
    ]
    profile = [[0.5, 1.5], [1.0, 1.0]] if profile is None else profile
    erf = np.eye(4).tolist()
    at = {"radius": 4.0, "profile": profile, "erf": erf}
    probes = [
        {"epoch": 0, "weakest": 0.2, "imbalance": 1.0, "luo_size": 3.0, **at},
        {"epoch": len(accuracy), "weakest": 0.4, "imbalance": 0.7, "luo_size": 5.0 + seed, **at},
    ]
    probes[-1] |= end or {}
    return TrainingHistory(seed, epochs, probes)


def four(**changes):
    return [history(seed, row, **changes) for seed, row in enumerate(ACCURACY)]


def test_values_are_means_over_seeds_and_intervals_those_of_student():
    """Mean, and t times the standard error, up to the draws of the bootstrap."""
    found = summarise(four(), "micro_object", draws=4000).metrics["accuracy"]
    last = np.array(ACCURACY)[:, -1]
    half = student.ppf(0.975, 3) * last.std(ddof=1) / 2
    assert found.value == pytest.approx(last.mean())
    assert found.high - found.value == pytest.approx(min(half, 1 - found.value), rel=0.05)
    assert found.value - found.low == pytest.approx(half, rel=0.05)


def test_every_number_of_a_seed_is_what_its_name_says():
    """Accuracy, its mean over epochs, epochs to 90 %, and starts, ends and changes of probes."""
    metrics = summarise(four(), "micro_object").metrics
    expected = {
        "mean_accuracy": np.mean(ACCURACY),
        "epochs_to_90": np.mean([3, 2, 2, 3]),
        "weakest_start": 0.2,
        "weakest_end": 0.4,
        "weakest_change": 0.2,
        "imbalance_start": 1.0,
        "imbalance_end": 0.7,
        "imbalance_change": -0.3,
        "erf_start": 3.0,
        "erf_end": 6.5,
        "erf_growth": 3.5,
    }
    assert {name: metrics[name].value for name in expected} == pytest.approx(expected)


def test_a_seed_that_never_gets_there_makes_the_epochs_missing():
    """A mean over those that did would flatter; the reason says how many did not."""
    seeds = [*four(), history(9, [0.5, 0.5, 0.5])]
    found = summarise(seeds, "micro_object").metrics
    assert found["epochs_to_90"].value is None
    assert found["epochs_to_90"].reason == ("1 of 5 seeds did not reach 90 % accuracy")
    assert found["mean_accuracy"].value is not None
    assert found["reached_90"].value == 0.8


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [([0.9], 1), ([0.899, 0.9], 2), ([0.5, 0.95, 0.5], 2), ([0.89, 0.8], None)],
)
def test_the_first_epoch_at_90_percent_counts(accuracy, expected):
    """The first epoch at 90 % or more counts, from 1, whatever follows."""
    assert epochs_to(np.array(accuracy)) == expected


def test_a_planted_weak_phase_is_reported_as_planted():
    """Accuracy over the mean of phases: 0.4 in one of four is 0.4 / 0.85, its spread literal."""
    phases = [[1.0, 1.0], [0.4, 1.0]]
    found = summarise(four(phases=phases), "micro_object")
    assert found.metrics["phase_weakest"].value == pytest.approx(0.4 / 0.85)
    spread = np.std(np.array(phases) / 0.85)
    assert found.metrics["phase_spread"].value == pytest.approx(spread)
    shown = np.array(phases) * np.mean(ACCURACY)
    np.testing.assert_allclose(found.maps["phase_accuracy"], shown)


def test_noise_of_counting_is_no_spread():
    """Phases that differ by chance alone, other ones in every seed: 0 lies in the interval."""
    rng = np.random.default_rng(0)
    seeds = [
        history(seed, [0.8], phases=rng.binomial(16, 0.8, (8, 8)) / 16 / 0.8) for seed in range(8)
    ]
    found = summarise(seeds, "micro_object").metrics
    naive = np.mean([np.std(s.epochs[0]["phase_accuracy"]) for s in seeds]) / 0.8
    assert naive > 0.1
    assert found["phase_spread"].low == 0.0
    assert found["phase_spread"].high < naive
    assert found["phase_weakest"].low < 1 < found["phase_weakest"].high


@pytest.mark.parametrize(("factor", "expected"), [(1, 1.0), (-1, -1.0)])
def test_contrast_that_follows_the_profile_agrees_with_it(factor, expected):
    """Contrast in proportion to the profile agrees with it, and the reverse disagrees."""
    profile = np.array([[0.2, 1.4], [0.8, 1.6]])
    contrast = (1 + factor * 0.1 * (profile - 1)).tolist()
    found = summarise(four(profile=profile.tolist(), contrast=contrast), "micro_object")
    assert found.metrics["phase_agreement"].value == pytest.approx(expected)


def test_a_wide_box_is_held_against_what_it_meets():
    """A box of 2 pixels meets pairs of phases: of a checkerboard it meets nothing uneven."""
    profile = [[0.5, 1.5], [1.5, 0.5]]
    found = summarise(four(profile=profile, contrast=profile), "micro_object", side=2)
    assert "do not vary" in found.metrics["phase_agreement"].reason


def test_correlation_is_taken_at_the_coarser_period():
    """4 x 4 is folded to 2 x 2 before it is compared; unlike periods do not compare."""
    coarse = np.array([[1.0, 2.0], [3.0, 5.0]])
    assert correlation(coarse, np.tile(coarse, (2, 2))) == pytest.approx(1.0)
    assert correlation(coarse, np.ones((3, 3))) is None
    assert correlation(np.ones((1, 1)), coarse) is None


def test_ordinary_classification_has_no_boxes():
    """What is about boxes is missing with the reason, the rest is there."""
    found = summarise(four(), "classification").metrics
    assert set(found) == {m.name for m in TRAINING.metrics}
    for name in ("phase_weakest", "phase_spread", "phase_agreement"):
        assert found[name].reason == "ordinary classification has no box"


def test_what_could_not_be_probed_is_missing_and_costs_nothing_else():
    """A network without phases has no imbalance, no profile, and still an accuracy."""
    blind = {"weakest": None, "imbalance": None, "profile": None}
    found = summarise(four(end=blind), "micro_object")
    assert found.metrics["imbalance_end"].reason == "4 of 4 seeds could not be probed"
    assert found.metrics["phase_agreement"].reason == "the network has no phase profile"
    assert found.metrics["accuracy"].value is not None
    assert "phase_profile_end" not in found.maps


def test_one_seed_has_values_and_no_intervals():
    """A training with one seed has values without intervals."""
    found = summarise([history(0, ACCURACY[0])], "micro_object").metrics["accuracy"]
    assert found.value == 0.95
    assert found.low is None


def test_tables_tell_seeds_curve_and_probes():
    """A row for each seed, epoch and probe, with the means the metrics have."""
    tables = summarise(four(), "micro_object").tables
    assert [row["seed"] for row in tables["seeds"]] == [0, 1, 2, 3]
    assert [row["epoch"] for row in tables["curve"]] == [1, 2, 3]
    assert tables["curve"][1]["accuracy"] == pytest.approx(np.mean(ACCURACY, 0)[1])
    assert [row["epoch"] for row in tables["along"]] == [0, 3]
    assert tables["along"][1]["luo_size"] == 6.5
