"""Dead pixels: planted holes are counted and placed exactly, and ordinary maps have none."""

import numpy as np
import pytest
import torch
from torch import nn

from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.pytorch.model import wrap
from perimetry.bench.execution.audit import audit
from perimetry.suites.deadpixel.dead_pixels import dead_places
from perimetry.suites.measuring.dead_regions import (
    Region,
    connected_regions,
    find_dead_pixels,
    moving_median,
)

HOLES = {
    "one pixel": (slice(30, 31), slice(17, 18)),
    "a square": (slice(20, 42), slice(33, 55)),
    "a corner": (slice(0, 25), slice(0, 25)),
    "a column": (slice(0, 96), slice(40, 41)),
    "a border": (slice(93, 96), slice(0, 96)),
    "a large square": (slice(10, 55), slice(10, 55)),
}


class Masked(nn.Module):
    """A small convnet of stride 4 that sees its input times a mask."""

    def __init__(self, mask):
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("mask", mask)
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()
        )

    def forward(self, x):
        return self.body(x * self.mask)


def measure(mask, count=8, side=96):
    records = audit(
        Masked(mask), ("deadpixel",), count=count, size=(side, side), device="cpu", name="masked"
    )
    return records[0]


@pytest.mark.parametrize("hole", HOLES.values(), ids=HOLES)
@pytest.mark.parametrize("count", [4, 8])
def test_a_planted_hole_is_counted_and_placed_exactly(hole, count):
    """The pixels, the share, and the box of the one region that there is."""
    mask = torch.ones(1, 1, 96, 96)
    mask[..., hole[0], hole[1]] = 0
    record = measure(mask, count)
    pixels = int((mask == 0).sum())
    assert record.metrics["silent_pixels"].value == pixels
    assert record.metrics["dead_pixels@0.1"].value == pixels
    assert record.metrics["dead_region"].value == pixels
    assert record.metrics["dead_share"].value == pytest.approx(pixels / 96**2)
    row = record.tables["dead_regions"][0]
    box = (hole[0].start, hole[1].start, hole[0].stop, hole[1].stop)
    assert (row["channel"], row["pixels"]) == ("all", pixels)
    assert (row["top"], row["left"], row["bottom"], row["right"]) == box
    assert sum(r["channel"] == "all" for r in record.tables["dead_regions"]) == 1


@pytest.mark.parametrize("hole", [np.s_[40:62, 30:52], np.s_[48, :], np.s_[:, 51]])
def test_a_network_with_a_hole_has_the_phases_of_the_rest(hole):
    """Neither expectation nor measurement is lost: both are near those without the hole."""
    mask = torch.ones(1, 1, 96, 96)
    whole, expected = measure(mask), phase_metric(mask)
    mask[..., hole[0], hole[1]] = 0
    found = measure(mask).metrics["weakest"].value
    assert found == pytest.approx(whole.metrics["weakest"].value, abs=0.06)
    assert phase_metric(mask) == pytest.approx(expected, abs=0.06)


def phase_metric(mask):
    """What `structure` expects of the least sensitive phase of the masked network."""
    (record,) = audit(wrap(Masked(mask), spec=InputSpec(96, 96), device="cpu"), ("structure",))
    return record.metrics["weakest"].value


def test_two_thousand_scattered_pixels_are_all_counted():
    """Pixels here and there do not hide in their neighbours' level."""
    rng = np.random.default_rng(0)
    mask = np.ones(96 * 96, dtype=np.float32)
    mask[rng.choice(mask.size, 2000, replace=False)] = 0
    found = measure(torch.from_numpy(mask.reshape(1, 1, 96, 96))).metrics
    assert found["dead_pixels@0.01"].value == 2000


WEAK = {
    "half of the image": (slice(0, 96), slice(48, 96)),
    "every third row": (slice(0, 96, 3), slice(0, 96)),
    "two blocks of rows": (np.r_[0:12, 84:96], slice(0, 96)),
}


@pytest.mark.parametrize("gain", [1e-3, 1e-8])
@pytest.mark.parametrize("hole", WEAK.values(), ids=WEAK)
def test_pixels_times_a_thousandth_or_less_are_as_dead_as_silent_ones(hole, gain):
    """However much of the image they fill: they set neither the level nor the spread."""
    mask = torch.ones(1, 1, 96, 96)
    mask[..., hole[0], hole[1]] = gain
    found = measure(mask).metrics
    assert found["silent_pixels"].value == 0
    assert found["dead_pixels@0.1"].value == int((mask < 1).sum())


def test_an_island_in_an_image_that_is_lost_is_alive():
    """Nine tenths of the image times 1e-3: all of them are dead, and the rest is not."""
    mask = torch.full((1, 1, 96, 96), 1e-3)
    mask[..., 30:60, 30:60] = 1
    found = measure(mask).metrics
    assert found["dead_pixels@0.1"].value == 96**2 - 900


def test_pixels_at_the_edge_of_a_weak_region_are_not_counted_with_it():
    """A window that is dead in the mean has pixels of the ordinary level at its edge."""
    samples = np.random.default_rng(0).gamma(6, 1, (8, 64, 64))
    samples[:, 20:40, 8:30] *= 1e-6
    (region,) = find_dead_pixels(samples, (1, 1), None).regions
    assert region == Region(20 * 22, (20, 8, 40, 30))


def test_what_is_dead_in_places_that_no_sentence_names_is_counted():
    """Twelve dead rows: three are named, and the pixels of the other nine are given."""
    mask = torch.ones(1, 1, 96, 96)
    mask[..., ::8, :] = 0
    *rows, rest = dead_places(measure(mask))
    assert rows == [f"dead: 96 pixels in row {row}, columns 0 to 95" for row in (0, 8, 16)]
    assert rest == f"dead: {9 * 96} pixels in other places"


def test_a_dead_colour_channel_is_reported_by_its_own():
    """No pixel is dead, for two channels are read everywhere; the third is silent."""
    mask = torch.ones(1, 3, 96, 96)
    mask[:, 1] = 0
    record = measure(mask)
    assert record.metrics["dead_pixels@0.1"].value == 0
    assert record.metrics["dead_channels"].value == 1
    (row,) = record.tables["dead_regions"]
    assert row["channel"] == "channel 1"
    assert row["pixels"] == 96**2


def test_a_channel_times_a_twentieth_is_faint_and_not_dead():
    """Trained networks have channels of less than a tenth of the energy of another."""
    mask = torch.ones(1, 3, 96, 96)
    mask[:, 1] = 0.05
    assert measure(mask).metrics["dead_channels"].value == 0


@pytest.mark.parametrize("gain", [0.02, 1e-3, 1e-8])
def test_a_channel_times_a_fiftieth_or_less_is_as_dead_as_a_silent_one(gain):
    """It sets no level of its own: the most sensitive channel's counts."""
    mask = torch.ones(1, 3, 96, 96)
    mask[:, 1] = gain
    record = measure(mask)
    assert record.metrics["dead_channels"].value == 1
    assert record.metrics["silent_pixels"].value == 0
    (row,) = record.tables["dead_regions"]
    assert (row["channel"], row["pixels"]) == ("channel 1", 96**2)


def test_a_dead_row_of_each_channel_is_named():
    """Three rows, one in each channel alone: every one has its clause."""
    mask = torch.ones(1, 3, 96, 96)
    for channel, row in enumerate((7, 9, 11)):
        mask[:, channel, row] = 0
    assert dead_places(measure(mask)) == [
        f"dead in channel {channel} alone: 96 pixels in row {row}, columns 0 to 95"
        for channel, row in enumerate((7, 9, 11))
    ]


def test_a_hole_does_not_hide_a_dead_channel():
    """Both are said; what is dead in all channels is not said again of each."""
    mask = torch.ones(1, 3, 96, 96)
    mask[..., 40:50, 60:75] = 0
    assert dead_places(measure(mask)) == ["dead: 150 pixels in rows 40 to 49, columns 60 to 74"]
    mask[:, 1] = 0
    both = dead_places(measure(mask))
    assert [clause.partition(":")[0] for clause in both] == ["dead", "dead in channel 1 alone"]
    assert "9216 pixels" in both[1]


def test_a_network_without_holes_has_none():
    """The same network with a mask of ones has no dead region."""
    record = measure(torch.ones(1, 1, 96, 96))
    for name in ("silent_pixels", "dead_pixels@0.01", "dead_pixels@0.1", "dead_region"):
        assert record.metrics[name].value == 0
    assert record.tables["dead_regions"] == []


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_mambaout"]
)
def test_ordinary_untrained_networks_have_no_dead_pixels(name):
    """Initial states of five families have no dead pixel."""
    record = audit(f"timm:{name}@init", ("deadpixel",), count=4, members=4, device="cpu")[0]
    assert record.status == "ok", record.reason
    assert record.metrics["dead_pixels@0.1"].value == 0


def test_a_corner_where_two_borders_fall_off_is_no_hole():
    """Borders at a quarter make a corner of a sixteenth; an area at 1 % there is still found."""
    edge = np.ones(96)
    edge[-8:] = 0.25
    samples = np.random.default_rng(0).chisquare(40, (16, 96, 96)) * np.outer(edge, edge)
    assert not find_dead_pixels(samples, (1, 1), None).dead[0.1].any()
    samples[:, 90:94, 89:95] *= 0.01
    assert [r.box for r in find_dead_pixels(samples, (1, 1), None).regions] == [(90, 89, 94, 95)]


@pytest.mark.parametrize(
    ("lines", "factor"),
    [
        (slice(0, 1), 0.0),
        (slice(0, 6), 0.0),
        (slice(93, 96), 0.0),
        (slice(40, 41), 0.0),
        (slice(40, 41), 0.02),
        (slice(3, 4), 0.02),
        (slice(90, 92), 0.02),
    ],
)
def test_dead_rows_do_not_set_their_own_standard(lines, factor):
    """A silent border, and a row inside that is silent or merely weak, are found whole."""
    samples = np.random.default_rng(0).chisquare(40, (16, 96, 96))
    samples[:, lines] *= factor
    for axes, box in (
        ((0, 1, 2), (lines.start, 0, lines.stop, 96)),
        ((0, 2, 1), (0, lines.start, 96, lines.stop)),
    ):
        (region,) = find_dead_pixels(samples.transpose(axes), (1, 1), None).regions
        assert region.box == box


SILENCED = {
    "region": (slice(20, 42), slice(10, 32)),
    "row": (slice(31, 32), slice(0, 64)),
    "column": (slice(0, 64), slice(5, 6)),
}


@pytest.mark.parametrize("hole", SILENCED)
def test_what_may_be_silent_by_chance_is_counted_apart_and_a_hole_is_not(hole):
    """One pixel in five is 0 in a sample: of 4,096 some 7 are so in four, which chance explains."""
    rng = np.random.default_rng(0)
    samples = rng.chisquare(3, (4, 64, 64)) * (rng.random((4, 64, 64)) > 0.2)
    literal = sum(not samples[:, i, j].any() for i in range(64) for j in range(64))
    found = find_dead_pixels(samples, (2, 2), None)
    assert found.by_chance == found.silent.sum() == literal > 0
    before = found.silent.copy()
    samples[:, SILENCED[hole][0], SILENCED[hole][1]] = 0
    before[SILENCED[hole]] = False
    found = find_dead_pixels(samples, (2, 2), None)
    assert found.silent[SILENCED[hole]].all()
    assert before.sum() - 2 <= found.by_chance <= before.sum()


def test_one_silent_pixel_among_those_that_always_answer_is_no_chance():
    """Where no other pixel is ever 0, one that is 0 twice is silent for certain."""
    samples = np.random.default_rng(0).chisquare(3, (2, 64, 64))
    samples[:, 9, 9] = 0
    found = find_dead_pixels(samples, (4, 4), None)
    assert (found.silent.sum(), found.by_chance) == (1, 0)


def test_phases_that_are_dead_as_a_whole_are_no_holes():
    """A 1 x 1 convolution of stride 2 reads a quarter of the pixels; only a hole there counts."""
    torch.manual_seed(0)
    samples = np.zeros((8, 64, 64))
    samples[:, ::2, ::2] = np.random.default_rng(0).chisquare(3, (8, 32, 32))
    profile = np.array([[4.0, 0.0], [0.0, 0.0]])
    found = find_dead_pixels(samples, (2, 2), profile)
    assert found.left_out == 3 * 32 * 32
    assert not found.silent.any()
    samples[:, 10, 20] = 0
    assert find_dead_pixels(samples, (2, 2), profile).silent.sum() == 1


def test_a_region_that_is_merely_weak_is_found_where_samples_suffice():
    """An area at 1 % of its surroundings is dead at 0.1 with 64 samples."""
    samples = np.random.default_rng(0).chisquare(3, (64, 64, 64))
    samples[:, 20:40, 8:30] *= 0.01
    (region,) = find_dead_pixels(samples, (1, 1), None).regions
    assert region == Region(20 * 22, (20, 8, 40, 30))


def test_a_slow_decay_towards_the_border_is_not_dead():
    """The level is that of the neighbourhood: a vignette to a fifth has no dead pixels."""
    rows = np.linspace(-1, 1, 96) ** 2
    vignette = 1 - 0.4 * (rows[:, None] + rows[None])
    samples = np.random.default_rng(0).chisquare(3, (8, 96, 96)) * vignette
    assert not find_dead_pixels(samples, (1, 1), None).dead[0.1].any()


def test_connected_regions_take_diagonals_and_come_largest_first():
    """Three pixels on a diagonal are one region, listed before a region of one pixel."""
    mask = np.zeros((6, 6), dtype=bool)
    mask[0, 0] = mask[1, 1] = mask[2, 2] = mask[5, 4] = True
    assert connected_regions(mask) == [Region(3, (0, 0, 3, 3)), Region(1, (5, 4, 6, 5))]
    assert Region(3, (0, 0, 3, 3)).text == "3 pixels in rows 0 to 2, columns 0 to 2"
    assert Region(1, (5, 4, 6, 5)).text == "1 pixel in row 5, column 4"


def test_the_moving_median_is_the_median_of_half_the_image_around_a_place():
    """Literal medians at the centre and in a corner, where the window is shifted inwards."""
    values = np.random.default_rng(0).random((56, 56))
    values[3, 3] = np.nan
    found = moving_median(values)
    assert found[0, 0] == np.nanmedian(values[:28, :28])
    assert found[28, 28] == np.nanmedian(values[15:43, 15:43])


def test_the_moving_median_counts_finite_values_alone():
    """Literal medians around every pixel; 0 where a window has none; infinite ones are left out."""
    values = np.random.default_rng(0).random((13, 20))
    values[:, :12] = np.nan
    values[3, 3], values[::4, ::3] = 0.25, np.inf
    expected = np.zeros_like(values)
    for row, column in np.ndindex(values.shape):
        top, left = min(max(0, row - 3), 13 - 6), min(max(0, column - 5), 20 - 10)
        window = values[top : top + 6, left : left + 10]
        known = sorted(window[np.isfinite(window)])
        if known:
            expected[row, column] = (known[(len(known) - 1) // 2] + known[len(known) // 2]) / 2
    assert not expected.all()
    assert np.array_equal(moving_median(values), expected)


def test_a_model_that_reads_nothing_of_the_image_fails_aloud():
    """All silent is no hole: the gradient is refused before dead pixels are counted."""
    records = audit(
        wrap(Masked(torch.zeros(1, 1, 96, 96)), spec=InputSpec(96, 96)), ("deadpixel",), count=4
    )
    assert records[0].status == "skipped"


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (8, 8), (14, 40)])
def test_maps_smaller_than_the_largest_window_are_searched_by_those_that_fit(shape):
    """A silent pixel is found in a map of any size; windows larger than the map are not used."""
    samples = np.random.default_rng(0).uniform(0.9, 1.1, (4, *shape))
    assert not find_dead_pixels(samples, (1, 1), None).silent.any()
    samples[:, 0, 0] = 0
    found = find_dead_pixels(samples, (1, 1), None).silent
    assert found[0, 0]
    assert found.sum() == 1
