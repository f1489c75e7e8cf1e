"""The micro-object task: solvable by colour and by nothing else; and its phases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from perimetry.adapters.errors import InputError, UnknownNameError
from perimetry.suites.training.data import LabelledPictures, TrainingSet, open_training_set
from perimetry.suites.training.micro_object import (
    Boxes,
    box_mean,
    by_phase,
    draw_boxes,
    limit_range,
    paint_boxes,
    resolved_period,
    spread_places,
)
from perimetry.suites.training.tasks import MicroObject, open_task

SIZE = (24, 24)


def detect(images):
    """Whether the linear colour detector of `micro_object` finds a red box: (images,)."""
    response = torch.einsum("nchw,c->nhw", images, images.new_tensor((1.0, -1.0, -1.0)))
    return response.amax((1, 2)) > 0.85


@pytest.fixture(scope="module")
def leaves():
    return open_training_set("dead-leaves", size=SIZE, train=64, test=64)


def micro(data, **changes):
    return MicroObject(data, **{"seed": 0, "period": (2, 2), "side": 1, **changes})


def extreme_set():
    """Pictures of pure black, red, white, green, blue, yellow, magenta and cyan, and noise."""
    colours = torch.tensor([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)])
    flat = colours[:, :, None, None].expand(-1, -1, *SIZE).to(torch.uint8)
    noise = torch.randint(0, 256, (56, 3, *SIZE), generator=torch.Generator().manual_seed(0))
    octets = torch.cat([flat, noise.to(torch.uint8)])
    held = LabelledPictures(octets, torch.zeros(len(octets), dtype=torch.long))
    return TrainingSet("extreme", held, held, ("x",))


@pytest.mark.parametrize("side", [1, 2, 5])
def test_a_linear_colour_detector_is_always_right(leaves, side):
    """A linear detector of colour is right on every box, on all kinds of pictures."""
    for data in (leaves, extreme_set()):
        task = micro(data, side=side)
        seen = [(detect(x), y) for x, y in task.epoch(0, 5, 16)]
        assert all(torch.equal(answer.long(), labels) for answer, labels in seen)
        found = task.evaluate(lambda x: torch.stack([~detect(x), detect(x)], 1).float())
        assert found["accuracy"] == 1.0


def test_without_a_box_the_detector_finds_no_red():
    """No picture, however red, passes for a red box once it is dulled."""
    assert not detect(limit_range(extreme_set().train.images())).any()


def test_whatever_does_not_see_the_colour_is_right_exactly_half_of_the_time(leaves):
    """Answers by image and by the box's place and size, here from grey values, score 0.5."""
    task = micro(leaves, side=2)
    draws = torch.randn(3 * 24 * 24, 2, generator=torch.Generator().manual_seed(1))

    def colour_blind(x):
        hidden = x.clone()
        black = (x == 0).all(1, keepdim=True)
        red = (x[:, :1] == 1) & (x[:, 1:] == 0).all(1, keepdim=True)
        hidden = torch.where(black | red, torch.zeros_like(hidden), hidden)
        return hidden.flatten(1) @ draws

    assert task.evaluate(colour_blind)["accuracy"] == 0.5


def test_places_of_training_boxes_say_nothing_about_their_colour():
    """The best table of answers by row, by column and by both is at chance on new boxes."""
    rng = np.random.default_rng(0)
    fitted, new = (draw_boxes(20_000, SIZE, 2, rng) for _ in range(2))
    for key in (lambda p: p[:, 0], lambda p: p[:, 1], lambda p: p[:, 0] * 24 + p[:, 1]):
        red = np.bincount(key(fitted.places), fitted.red, 600)
        all_ = np.bincount(key(fitted.places), minlength=600)
        answers = (red > all_ / 2)[key(new.places)]
        right = (answers == new.red).mean()
        assert abs(right - 0.5) < 4 * 0.5 / 20_000**0.5


def test_half_of_the_boxes_are_red_and_places_are_uniform():
    """Exactly half are; every place at which a box fits is as likely as any other."""
    boxes = draw_boxes(40_000, (6, 8), 3, np.random.default_rng(0))
    assert boxes.red.sum() == 20_000
    counts = np.bincount(boxes.places[:, 0] * 6 + boxes.places[:, 1], minlength=24)
    assert len(counts) == 4 * 6
    expected = 40_000 / 24
    assert ((counts - expected) ** 2 / expected).sum() < 23 + 4 * (2 * 23) ** 0.5


def test_a_box_covers_exactly_its_pixels():
    """Those of the square from its upper left pixel, in red or black; no other pixel changes."""
    images = torch.rand(2, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    laid = paint_boxes(images, Boxes(np.array([[1, 2], [4, 5]]), np.array([True, False])), 2)
    expected = images.clone()
    expected[0, 0, 1:3, 2:4], expected[0, 1:, 1:3, 2:4] = 1, 0
    expected[1, :, 4:6, 5:7] = 0
    assert torch.equal(laid, expected)


@pytest.mark.parametrize(("side", "period"), [(1, (4, 4)), (3, (4, 2)), (2, (8, 8))])
def test_test_boxes_take_all_phases_alike(side, period):
    """Each phase has equally many test boxes, and every box lies inside the image."""
    count = 5 * period[0] * period[1]
    places = spread_places(count, SIZE, side, period, np.random.default_rng(0))
    phases = (places % period) @ (period[1], 1)
    assert (np.bincount(phases, minlength=period[0] * period[1]) == 5).all()
    assert (places >= 0).all()
    assert (places + side <= SIZE).all()


def test_means_by_phase_are_those_of_a_literal_loop():
    """Means by phase equal those of a literal loop."""
    rng = np.random.default_rng(0)
    places, values = rng.integers(0, 20, (200, 2)), rng.random(200)
    slow = np.zeros((4, 2))
    for i in range(4):
        for j in range(2):
            own = [v for v, (r, c) in zip(values, places, strict=True) if (r % 4, c % 2) == (i, j)]
            slow[i, j] = sum(own) / len(own)
    np.testing.assert_allclose(by_phase(values, places, (4, 2)), slow)


def test_a_network_that_ignores_one_phase_is_found_to_ignore_it(leaves):
    """A detector without pixels of phase (1, 0) is at chance there, and correct elsewhere."""

    def constant(x):
        x = x.clone()
        x[:, :, 1::2, 0::2] = 0.5
        red = detect(x)
        return torch.stack([~red, red], 1).float()

    found = micro(leaves).evaluate(constant)
    assert found["phase_accuracy"] == [[1.0, 1.0], [0.5, 1.0]]
    assert found["phase_contrast"][1][0] == 0.0
    assert found["accuracy"] == 0.875


def test_the_contrast_is_the_rise_from_black_to_red_over_its_mean(leaves):
    """A network that sums red up, weighted by phase, has those weights as its contrast."""
    weights = torch.tensor([[1.0, 2.0], [3.0, 6.0]])

    def weighted(x):
        red = (x[:, 0] * weights.repeat(12, 12)).sum((1, 2))
        return torch.stack([-red, red], 1)

    found = np.array(micro(leaves).evaluate(weighted)["phase_contrast"])
    np.testing.assert_allclose(found, weights.numpy() / 3, rtol=1e-4)


def test_periods_are_divisors_that_leave_images_enough():
    """The period is a divisor of the stride that leaves enough images per phase."""
    assert resolved_period((32, 32), 512) == (8, 8)
    assert resolved_period((32, 32), 10**5) == (32, 32)
    assert resolved_period((8, 8), 31) == (1, 1)
    assert resolved_period((6, 6), 100) == (2, 2)


def test_what_a_box_meets_is_the_mean_over_its_pixels():
    """A box of 2 x 2 meets four neighbouring phases, round the corner too."""
    profile = np.arange(16.0).reshape(4, 4)
    met = box_mean(profile, 2)
    assert met[0, 0] == (0 + 1 + 4 + 5) / 4
    assert met[3, 3] == (15 + 12 + 3 + 0) / 4
    assert (box_mean(profile, 4) == profile.mean()).all()


def test_every_epoch_draws_anew_and_can_be_had_alone(leaves):
    """Epochs differ in order, places and colours; skipped batches are those of the whole epoch."""
    task = micro(leaves)
    first, second = (list(task.epoch(number, 3, 16)) for number in (0, 1))
    assert not torch.equal(first[0][0], second[0][0])
    rest = list(task.epoch(1, 3, 16, skip=2))
    assert len(rest) == 2
    for (a, b), (c, d) in zip(rest, second[2:], strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)


@pytest.mark.parametrize("side", [0, 13])
def test_a_box_that_does_not_fit_is_refused(leaves, side):
    """A box below one pixel or above half a side is refused."""
    with pytest.raises(InputError):
        micro(leaves, side=side)


def test_dead_leaves_cannot_be_classified(leaves):
    """They have no classes, and the error says what has."""
    with pytest.raises(InputError, match="1 classes"):
        open_task("classification", leaves)


def test_unknown_tasks_get_near_names(leaves):
    """A misspelt task gets near names."""
    with pytest.raises(UnknownNameError, match=r"'micro_objects'.*micro_object"):
        open_task("micro_objects", leaves)
