"""Dead pixels of networks that read few pixels of an image, and of phases that are hardly read."""

import numpy as np
import pytest
import torch
from torch import nn

from perimetry.bench.execution.audit import audit
from perimetry.suites.deadpixel.suite import DEADPIXEL
from perimetry.suites.measuring.dead_regions import find_dead_pixels


class PoolFirst(nn.Module):
    """A network that reads only the largest pixel of each window; a mask makes a hole."""

    def __init__(self, kernel, stride, hole):
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("mask", torch.from_numpy(~hole).float())
        self.body = nn.Sequential(
            nn.MaxPool2d(kernel, stride, padding=(kernel - stride) // 2 + (kernel > stride)),
            nn.Conv2d(3, 16, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, x):
        return self.body(x * self.mask)


def measure(net, count, size=(64, 64)):
    (record,) = audit(
        net, ("deadpixel",), kernel_padding=("none",), count=count, size=size, device="cpu"
    )
    return record


def square():
    hole = np.zeros((64, 64), dtype=bool)
    hole[20:42, 10:32] = True
    return hole


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (4, 4)])
@pytest.mark.parametrize("count", [1, 2, 4, 16])
def test_pixels_that_chance_leaves_out_are_not_dead(kernel, stride, count):
    """A network that begins with a max-pool has silent pixels, and no dead one."""
    record = measure(PoolFirst(kernel, stride, np.zeros((64, 64), dtype=bool)), count)
    values = {name: metric.value for name, metric in record.metrics.items()}
    assert values["dead_pixels@0.1"] == values["dead_region"] == values["dead_share"] == 0
    assert not [row for row in record.tables["dead_regions"] if row["channel"] == "all"]
    if values["silent_pixels"]:
        said = f"since few units read them: {values['silent_pixels']:.0f};"
        assert any(said in note for note in record.notes)


def test_one_sample_names_what_may_be_silent_by_chance():
    """It shows no rate of zeros: nothing silent is certain, and a report says what it may be."""
    record = measure(PoolFirst(2, 2, square()), 1)
    silent = f"{record.metrics['silent_pixels'].value:.0f}"
    assert record.metrics["dead_region"].value == 0
    said = f"silent, perhaps by chance: {silent} pixels; take more images"
    assert DEADPIXEL.unseen(record) == said
    assert any("silent in this sample by chance" in note for note in record.notes)


@pytest.mark.parametrize("count", [4, 16])
def test_a_hole_among_pixels_that_chance_leaves_out_is_placed_exactly(count):
    """The hole is dead, what chance leaves out is not."""
    record = measure(PoolFirst(2, 2, square()), count)
    found = record.maps["dead_pixels"] > 0
    assert (found == square()).all()
    assert record.metrics["dead_region"].value == 22 * 22


def test_a_mean_over_few_samples_that_are_not_zero_is_not_certain():
    """Over many maps of samples that are mostly 0, no pixel is called dead."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        samples = rng.chisquare(2, (16, 48, 48)) * (rng.random((16, 48, 48)) > 0.5)
        assert not find_dead_pixels(samples, (2, 2), None).dead[0.1].any()
        samples[:, 10:25, 10:25] *= 1e-3
        dead = find_dead_pixels(samples, (2, 2), None).dead[0.1]
        assert dead[10:25, 10:25].mean() > 0.9
        assert dead.sum() == dead[10:25, 10:25].sum()


def test_silent_pixels_of_a_phase_that_is_hardly_read_are_a_hole():
    """A phase of 0.005 that answers everywhere else is no phase that is dead as a whole."""
    samples = np.random.default_rng(0).chisquare(40, (8, 64, 64))
    samples[:, ::4, ::4] *= 0.005
    hole = np.zeros((64, 64), dtype=bool)
    hole[21:33, 9:17] = True
    samples[:, hole] = 0
    profile = np.ones((4, 4))
    profile[0, 0] = 0.005
    found = find_dead_pixels(samples, (4, 4), profile / profile.mean())
    assert (found.dead[0.1] == hole).all()
    assert (found.silent == hole).all()
    assert found.left_out == 16 * 16 - hole[::4, ::4].sum()


def test_a_hole_over_the_interior_is_counted_though_there_are_no_phases():
    """The numbers of phases are missing, with the reason, and three quarters are dead."""
    hole = np.zeros((96, 61), dtype=bool)
    hole[:, :45] = True
    record = measure(PoolFirst(2, 2, hole), 8, (96, 61))
    assert record.status == "ok"
    assert record.metrics["dead_region"].value == hole.sum()
    assert record.metrics["weakest"].value is None
    assert "zero throughout the interior" in record.metrics["weakest"].reason


def test_the_field_of_a_unit_in_a_hole_says_that_nothing_reaches_it():
    """The target is not constant, and is not called so."""
    hole = np.zeros((64, 64), dtype=bool)
    hole[:, 16:] = True
    (record,) = audit(PoolFirst(2, 2, hole), ("erf",), kernel_padding=("none",), size=(64, 64))
    assert record.status == "skipped"
    assert "no pixel reaches the unit" in record.reason
