"""Records in notebooks: figures of their maps, and HTML with the maps in it."""

from __future__ import annotations

import io

import numpy as np
import planted_boards as planted
import pytest
import toys
from PIL import Image
from test_board import HOSTILE

from perimetry import compare
from perimetry.adapters.errors import InputError, UnknownNameError
from perimetry.bench.comparison.sides import side_of
from perimetry.bench.figures.canvas import COLOURS, SIGNED_COLOURS


def record(**changes):
    maps = {**planted.field(0.5), "border": np.outer([-1.0, 0.5, 2.0], [1.0, 1.0, 1.0])}
    return planted.record("a", 0.5, maps=maps, **changes)


def test_a_record_plots_all_its_maps_or_those_named():
    """Two axes each: the map and its colour bar; maps hold the record's numbers over their mean."""
    figure = record().plot()
    assert len(figure.axes) == 6
    (one,) = record().plot("phase_profile").axes[0].images
    profile = planted.field(0.5)["phase_profile"]
    assert np.asarray(one.get_array()) == pytest.approx(profile / profile.mean())


def test_magnitudes_rise_in_lightness_and_signed_maps_are_white_at_zero():
    """Cividis from 0 up; a diverging map with limits that are symmetric about 0."""
    plain, signed = (record().plot(n).axes[0].images[0] for n in ("sensitivity", "border"))
    assert plain.get_cmap().name == COLOURS
    light = plain.get_cmap()(np.linspace(0, 1, 256))[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > -1e-3).all()
    assert signed.get_cmap().name == SIGNED_COLOURS
    assert signed.get_clim()[0] == -signed.get_clim()[1]


def test_a_notebook_shows_the_figure_as_a_picture():
    """The figure gives its own PNG, of the size it was laid out in."""
    figure = record().plot("sensitivity")
    image = Image.open(io.BytesIO(figure._repr_png_()))
    assert image.size == tuple(round(side) for side in figure.get_size_inches() * figure.dpi)


def test_what_cannot_be_plotted_says_why():
    """Plotting a record without maps, or an unknown map, is an error with the reason."""
    with pytest.raises(InputError, match="has no maps to plot"):
        planted.record("a", 0.5).plot()
    with pytest.raises(UnknownNameError, match="did you mean sensitivity"):
        record().plot("sensitivty")


def test_a_record_s_html_has_its_maps_and_nothing_live():
    """Pictures come as data; hostile names, notes and reasons are only text."""
    for name in HOSTILE:
        text = planted.record(name, 0.5, maps=planted.field(0.5), notes=[name])._repr_html_()
        assert "<script" not in text
        assert "\x1b" not in text
        text.encode()
    assert text.count('src="data:image/png;base64,') == 2
    assert "<img" not in planted.record("a", 0.5)._repr_html_()


def test_a_comparison_shows_both_maps_and_their_difference():
    """A comparison in a notebook shows three pictures per map, the verdict and the table."""
    sides = [
        side_of([planted.record(n, v, maps=planted.field(v))]) for n, v in (("a", 0.4), ("b", 0.9))
    ]
    text = compare(*sides, stages=False, known=toys.SUITES)._repr_html_()
    assert text.count('src="data:image/png;base64,') == 3 * 2
    assert "They differ" in text
    assert "<table>" in text
