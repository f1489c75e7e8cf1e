"""Pictures of maps: exact squares, honest scales, the stride grid, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image
from test_show import model, profile, record

from perimetry.bench.figures.canvas import (
    BAR,
    COLOURS,
    GAP,
    LEFT,
    SIDE,
    SIGNED_COLOURS,
    TOP,
    Frame,
    draw_scale,
)
from perimetry.bench.figures.maps import (
    LOG_DECADES,
    MAP_STYLES,
    Pictures,
    draw_change,
    draw_variants,
    drawings,
    on_one_scale,
    over_mean,
    scaled,
    tiled,
)
from perimetry.suites.registry import SUITES

EDGE = 2
"""Screen pixels of the frame that lie over a map's border."""


def pixels(path):
    """(height, width, 3) of a PNG."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"), dtype=int)


def drawn(values, path, scale="mean"):
    """Draw one map alone."""
    draw_scale(scaled(np.asarray(values, dtype=float), scale, ""), path, Frame("t"))


def squares(path, shape):
    """The map's part of a picture as (rows, dot, columns, dot, 3)."""
    dot = max(1, round(SIDE / max(shape)))
    part = pixels(path)[TOP : TOP + shape[0] * dot, LEFT : LEFT + shape[1] * dot]
    return part.reshape(shape[0], dot, shape[1], dot, 3)


def colour(name, share):
    return 255 * np.asarray(colormaps[name](share))[..., :3]


def lightness(rgb):
    """CIE L* of sRGB in [0, 255], by its definition."""
    c = np.asarray(rgb, dtype=float) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


@pytest.mark.parametrize("shape", [(64, 64), (224, 224), (160, 96), (20, 33)])
def test_every_value_is_a_square_of_whole_pixels(tmp_path, shape):
    """A checkerboard comes out as squares of one size and two colours: no moiré, no blur."""
    board = 1.0 + np.indices(shape).sum(0) % 2
    drawn(board, tmp_path / "m.png")
    inner = squares(tmp_path / "m.png", shape)[1:-1, :, 1:-1]
    high = (board / board.mean()).max()
    for value in (1, 2):
        wanted = colour(COLOURS, value / board.mean() / high)
        own = board[1:-1, 1:-1] == value
        found = inner.transpose(0, 2, 1, 3, 4)[own]
        assert np.abs(found - wanted).max() <= 1


def test_magnitudes_rise_evenly_in_lightness():
    """Every step of the scale is lighter than the one before, and no step is much larger."""
    steps = np.diff(lightness(colour(COLOURS, np.linspace(0, 1, 65))))
    assert steps.min() > 0
    assert steps.max() < 3 * steps.mean()


def test_differences_have_symmetric_limits_and_a_neutral_middle():
    """Values from -1 to 3 are shown from -3 to 3; 0 is white, equal sizes are equally dark."""
    found = scaled(np.array([[-1.0, 3.0], [0.0, 1.0]]), "signed", "")
    assert (found.low, found.high, found.colours) == (-3.0, 3.0, SIGNED_COLOURS)
    assert lightness(colour(SIGNED_COLOURS, 0.5)) > 95
    for share in (0.1, 0.25, 0.4):
        one, other = lightness(colour(SIGNED_COLOURS, np.array([0.5 - share, 0.5 + share])))
        assert abs(one - other) < 8


def test_negative_values_are_never_shown_as_magnitudes():
    """A map with a negative value takes the signed scale, whatever was declared."""
    assert scaled(np.array([[1.0, -2.0], [0, 0]]), "mean", "").colours == SIGNED_COLOURS


def test_magnitudes_are_shown_over_their_mean_from_zero():
    """A map of 1 and 3 is shown as 0.5 and 1.5, its bar starts at 0 and names the mean."""
    found = scaled(np.array([[1.0, 3.0], [3.0, 1.0]]), "mean", "sensitivity")
    np.testing.assert_allclose(found.shown, [[0.5, 1.5], [1.5, 0.5]])
    assert (found.low, found.high) == (0.0, 1.5)
    assert found.label == "sensitivity, times the mean (2)"


def test_logarithms_are_decades_below_the_peak():
    """1, 0.1 and 0 of the peak are 0, -1 and the floor."""
    found = scaled(np.array([[10.0, 1.0], [0.0, 10.0]]), "log", "")
    np.testing.assert_allclose(found.shown, [[0, -1], [-LOG_DECADES, 0]])
    assert (found.low, found.high) == (-LOG_DECADES, 0.0)


def test_a_plain_image_leans_in_percent_of_its_mean():
    """0.9 and 1.1 of the mean are -10 % and +10 %."""
    found = scaled(np.array([[0.9, 1.1], [1.1, 0.9]]), MAP_STYLES["constant_feature_map"].scale, "")
    np.testing.assert_allclose(found.shown, [[-10, 10], [10, -10]])


def test_a_few_outliers_do_not_take_all_colours_and_the_bar_says_so():
    """With one value of 1000 among ones the scale ends below it, in an arrow."""
    values = np.ones((40, 40))
    values[0, 0] = 1000
    found = scaled(values, "mean", "")
    assert found.high < 2
    assert found.beyond == "max"
    assert scaled(np.array([[1.0, 3.0], [3.0, 1.0]]), "mean", "").beyond == "neither"
    assert scaled(values - 500, "signed", "").beyond in ("neither", "max")


def test_the_bar_shows_the_scale_from_end_to_end(tmp_path):
    """The colour bar runs from the scale's lowest colour to its highest."""
    drawn(np.arange(64.0).reshape(8, 8), tmp_path / "m.png")
    column = LEFT + SIDE + GAP + BAR // 2
    bar = pixels(tmp_path / "m.png")[TOP + EDGE : TOP + SIDE - EDGE, column]
    rising = lightness(bar[::-1])
    assert np.diff(rising).min() > -1
    assert np.abs(bar[-1] - colour(COLOURS, 0.0)).max() < 12
    assert np.abs(bar[0] - colour(COLOURS, 1.0)).max() < 12


def sensitivity(period=8, side=64):
    values = np.ones((side, side))
    values[:, :8] = 2
    maps = {
        "sensitivity": values,
        "phase_profile": profile(0.5, (1, 2), (period, period)),
    }
    return record("deadpixel", {"weakest": 0.5}, maps=maps)


def test_light_lines_mark_the_stride_cells(tmp_path):
    """On a flat part of a map the only lighter rows lie between the cells."""
    found = sensitivity()
    paths = {p.name.split(".")[-2]: p for p in draw_variants([found], Pictures(tmp_path))}
    part = squares(paths["sensitivity"], (64, 64))
    dot = part.shape[1]
    rows = lightness(part.reshape(64 * dot, 64 * dot, 3))[:, 20 * dot + 3]
    lines = {
        round(i / dot) for i in np.nonzero(rows > rows[EDGE + 2] + 3)[0] if 2 < i < 64 * dot - 2
    }
    assert lines == set(range(8, 64, 8))


def test_a_map_without_phases_has_no_grid(tmp_path):
    """Without a phase profile there are no cells to mark."""
    found = record("deadpixel", {}, maps={"sensitivity": np.ones((64, 64))})
    (path,) = draw_variants([found], Pictures(tmp_path))
    inner = squares(path, (64, 64))[1:-1, :, 1:-1]
    assert np.ptp(inner.reshape(-1, 3), axis=0).max() == 0


def test_fields_of_a_grid_of_units_are_laid_out_as_the_units_lie():
    """The field of unit (row, column) stands in that row and column of the picture."""
    fields = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    laid = tiled(fields)
    assert laid.shape == (8, 15)
    for i, j, y, x in np.ndindex(fields.shape):
        assert laid[4 * i + y, 5 * j + x] == fields[i, j, y, x]


@pytest.mark.parametrize(
    "values",
    [np.ones(4), np.ones((1, 4)), np.ones((2, 3, 4)), np.full((4, 4), np.nan), np.array(1.0)],
)
def test_what_is_no_map_is_left_out(tmp_path, values):
    """Vectors, single rows, stacks and maps that are not finite are not drawn."""
    assert draw_variants([record("deadpixel", {}, maps={"x": values})], Pictures(tmp_path)) == []


def test_a_change_is_the_difference_of_the_maps_over_their_means(tmp_path):
    """Twice the same map is no change whatever its level; a shifted one is blue and red."""
    values = 1 + np.arange(16.0).reshape(4, 4)
    for factor, shifted in ((3.0, False), (1.0, True)):
        after = np.roll(values, 2, 0) if shifted else values * factor
        variant = record("structure", {}, maps={"sensitivity": values, "other": np.ones((3, 3))})
        treated = record(
            "structure", {}, fill="box", maps={"sensitivity": after, "other": np.ones((4, 4))}
        )
        (path,) = draw_change(treated, variant, Pictures(tmp_path))
        assert path.name.endswith(".box.structure-expected.sensitivity.change.png")
        part = squares(path, (4, 4))[:, 12, :, 12]
        change = over_mean(after) - over_mean(values)
        for i, j in np.ndindex(4, 4):
            red_less_blue = part[i, j, 0] - part[i, j, 2]
            if abs(change[i, j]) < 1e-9:
                assert abs(red_less_blue) < 8
            else:
                assert red_less_blue * change[i, j] > 0


def test_a_stimulus_stands_at_its_own_pixel():
    """Squares of side 8 at 7 places of 64 pixels are centred on 4, 13.3, ..., 60."""
    from perimetry.bench.figures.maps import stimulus_spans

    found = record("padding", {}, settings={"stimulus": 8})
    (top, bottom), _ = stimulus_spans(found, (7, 7))
    square = (bottom - top) / 7
    centres = [top + square * (i + 0.5) for i in range(7)]
    np.testing.assert_allclose(centres, [(64 - 8) * i / 6 + 4 for i in range(7)])


def test_every_map_of_a_suite_has_its_own_look():
    """What the suites publish is drawn with words of its own, not as pixels by default."""
    for name in ("sensitivity", "path_count", "erf", "blind_spots", "positions", "comb_profile"):
        assert MAP_STYLES[name].what
    assert set(SUITES) >= {"structure", "erf", "deadpixel", "padding", "perturbation"}


def test_hostile_names_become_plain_titles(tmp_path):
    """Formula marks, escapes, line breaks and other scripts in a model's name all draw."""
    name = "$x^{2$ \x1b[31m\n模型/../../up"
    found = record("erf", {}, maps={"erf": np.eye(8)}, model=model(name))
    (path,) = draw_variants([found], Pictures(tmp_path))
    assert path.parent == tmp_path
    assert pixels(path).shape[2] == 3


def test_equal_maps_give_equal_bytes(tmp_path):
    """A map drawn twice gives the same file."""
    for i in (0, 1):
        for name in (f"{i}.png", f"{i}again.png"):
            drawn(np.arange(64.0).reshape(8, 8), tmp_path / name, "signed" if i else "mean")
        assert (tmp_path / f"{i}.png").read_bytes() == (tmp_path / f"{i}again.png").read_bytes()
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()


def test_variants_of_one_model_have_one_colour_scale(tmp_path):
    """The same value has the same colour with and without padding, whatever else is in the map."""
    low, high = np.full((4, 4), 1.0), np.full((4, 4), 1.0)
    low[0, 0], high[0, 0] = 2.0, 9.0
    variants = [
        record("structure", {}, fill=fill, maps={"sensitivity": values / values.mean()})
        for fill, values in (("none", low), ("box", high))
    ]
    paths = draw_variants(variants, Pictures(tmp_path))
    own = [drawings(one)["sensitivity"][0] for one in variants]
    assert own[0].high < own[1].high
    both = on_one_scale(own[0], own)
    assert (both.low, both.high) == (0.0, own[1].high)
    brightest = [squares(path, (4, 4))[0, 12, 0, 12] for path in paths]
    alone = squares(draw_variants(variants[:1], Pictures(tmp_path / "alone"))[0], (4, 4))
    assert (brightest[0] != alone[0, 12, 0, 12]).any()


@pytest.mark.parametrize("form", ["svg", "pdf"])
def test_pictures_for_papers_are_vectors_and_equal_for_equal_maps(tmp_path, form):
    """SVG and PDF of the chosen maps alone, the same bytes each time, without a date."""
    maps = {"sensitivity": np.random.default_rng(0).random((4, 4)), "other": np.eye(4)}
    made = []
    for place in ("a", "b"):
        pictures = Pictures(tmp_path / place, ("sensitivity",), form)
        (path,) = draw_variants([record("structure", {}, maps=maps)], pictures)
        assert path.name.endswith(f".sensitivity.{form}")
        made.append(path.read_bytes())
    assert made[0] == made[1]
    assert made[0].startswith({"svg": b"<?xml", "pdf": b"%PDF"}[form])


@pytest.mark.parametrize(("dpi", "times"), [(30, 1), (110, 1), (111, 2), (300, 3)])
def test_a_higher_resolution_keeps_values_as_whole_pixels(tmp_path, dpi, times):
    """The resolution is the next multiple of the usual one, so that squares stay whole."""
    one = record("structure", {}, maps={"sensitivity": np.ones((4, 4))})
    sizes = []
    for place, asked in (("plain", 110), ("fine", dpi)):
        (path,) = draw_variants([one], Pictures(tmp_path / place, dpi=asked))
        with Image.open(path) as picture:
            sizes.append(picture.size)
    assert sizes[1] == (times * sizes[0][0], times * sizes[0][1])
