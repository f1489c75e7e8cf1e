"""The padding suite: planted bias recovered exactly, kinds of models, sizes, settings."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bias_tools import QUICK, SPEC, Circular, approx, classifier, measure, planted, ring, values
from torch import nn

from perimetry.adapters.errors import InputError
from perimetry.adapters.export import export_onnx
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.padding_mode import PADDING_MODES
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.measuring.bootstrap import bootstrap
from perimetry.suites.padding.blind_spots import Stimulus, blind_metrics, grid_places, unseen
from perimetry.suites.padding.suite import PADDING, PaddingSuite
from perimetry.suites.registry import SUITES
from perimetry.suites.settings import configure

# Planted truths


def test_a_network_that_treats_all_places_alike_shows_no_bias_at_all():
    """With equal gains every metric of bias has its even value."""
    found = values(planted(np.ones((5, 5))))
    for metric in PADDING.metrics:
        if metric.name.startswith(("constant", "blind", "border_drop")):
            assert found[metric.name] == approx(metric.even), metric.name


def test_a_blind_corner_is_found_exactly():
    """A gain of 0 in one corner gives the metrics by their closed forms."""
    gain = np.ones((5, 5))
    gain[0, 4] = 0
    measured = planted(gain)
    found = values(measured)
    assert found["blind_weakest"] == 0
    np.testing.assert_allclose(
        measured.maps["blind_spots"], gain * measured.maps["blind_spots"].max()
    )
    assert measured.maps["blind_spots"][0, 4] == 0
    assert found["border_drop"] == approx(1 / 16)
    assert found["constant_border_ratio"] == approx(15 / 16)
    assert found["blind_cv"] == approx(gain.std() / gain.mean())
    assert found["blind_left_right"] == approx((1 - 9 / 10) / gain.mean())
    assert found["constant_top_bottom"] == approx((1 - 9 / 10) / gain.mean())


def test_a_border_gain_is_found_exactly():
    """A gain of 2 at the border gives a border ratio of 2 and a border drop of -1."""
    found = values(planted(ring(2, 1)))
    assert found["border_drop"] == approx(-1)
    assert found["constant_border_ratio"] == approx(2)
    assert found["blind_weakest"] == approx(1 / ring(2, 1).mean())
    assert found["blind_left_right"] == approx(0)


def test_a_half_that_hears_better_is_found_exactly_and_the_tables_say_which():
    """Three times the gain at left shows from left to right only, signed in the table."""
    gain = np.ones((5, 5))
    gain[:, :2] = 3
    measured = planted(gain)
    found = values(measured)
    assert found["blind_left_right"] == approx((3 - 1) / gain.mean())
    assert found["constant_left_right"] == approx((3 - 1) / gain.mean())
    assert found["constant_top_bottom"] == approx(0)
    (stage,) = measured.tables["stages"]
    assert stage["constant_left_right"] == approx(2 / gain.mean())
    mirrored = planted(gain[:, ::-1].copy())
    assert mirrored.tables["stages"][0]["constant_left_right"] == approx(-2 / gain.mean())


def test_a_network_that_ignores_its_input_has_no_bias_instead_of_an_even_one():
    """Without any response the metrics are missing with a reason; they are not 0 or 1."""
    found = planted(np.zeros((5, 5)))
    assert "changes nothing" in found.metrics["blind_weakest"].reason
    assert "0 everywhere" in found.metrics["constant_border_ratio"].reason
    assert "0 everywhere" in found.metrics["left_right"].reason


def test_a_centre_without_response_leaves_the_drop_undefined():
    """The border drop divides by the response at the centre; if that is 0, the drop is missing."""
    found = planted(ring(1, 0))
    assert "centre is 0" in found.metrics["border_drop"].reason
    assert found.metrics["blind_weakest"].value == 0


def test_one_layer_of_zero_padding_darkens_the_border_by_the_share_it_covers():
    """Zero padding scales corners by 4/9 and edges by 6/9, and the border ratio follows."""
    conv = nn.Conv2d(3, 1, 3, 1, 1, bias=False)
    conv.weight.data.fill_(1.0)
    model = wrap(conv, spec=InputSpec(12, 12), device="cpu")
    found = values(measure(model, PaddingSuite(grid=2, stimulus=1, exchange=PADDING_MODES)))
    corners, edges = 4 * 4 / 9, 40 * 6 / 9
    assert found["constant_border_ratio"] == approx((corners + edges) / 44)


def test_circular_padding_leaves_no_place_unlike_another():
    """With circular padding no metric depends on the place."""
    model = wrap(Circular("circular"), spec=InputSpec(24, 24), device="cpu")
    found = values(measure(model, replace(QUICK, stimulus=3)))
    assert found["border_drop"] == approx(0)
    assert found["blind_cv"] == approx(0)
    assert found["blind_weakest"] == approx(1)
    assert found["constant_border_ratio"] == approx(1)


def test_exchanging_for_circular_takes_the_whole_border_drop_away():
    """Circular padding instead of zeros changes the border drop by minus its whole value."""
    model = wrap(Circular("zeros"), spec=InputSpec(24, 24), device="cpu")
    found = measure(model, replace(QUICK, stimulus=3, exchange=PADDING_MODES, grid=3))
    drop = found.metrics["border_drop"].value
    assert abs(drop) > 0.05
    assert found.metrics["exchange_circular"].value == approx(-drop)
    rows = {row["padding"]: row for row in found.tables["exchange"]}
    assert list(rows) == ["zero", *PADDING_MODES]
    assert rows["zero"]["border_drop"] == approx(drop)
    for border in PADDING_MODES:
        assert rows[border]["border_drop"] - drop == approx(
            found.metrics[f"exchange_{border}"].value
        )
        # A plain image has no border once it goes on beyond it.
        assert rows[border]["constant_border_ratio"] == approx(1)
    assert rows["zero"]["constant_border_ratio"] != approx(1)


# Kinds of models


def test_an_onnx_file_gives_the_numbers_of_the_module_it_was_made_from(tmp_path):
    """Metrics and maps of an exported file equal those of its module within 1e-3."""
    net = classifier().eval()
    path = export_onnx(net, torch.zeros(2, 3, 40, 40), tmp_path / "m.onnx", spec=SPEC)
    ours = measure(wrap(net, spec=SPEC, device="cpu"), PaddingSuite(grid=3))
    theirs = measure(load(str(path), device="cpu"), PaddingSuite(grid=3))
    for name, value in values(ours).items():
        assert theirs.metrics[name].value == pytest.approx(value, rel=1e-3, abs=1e-4), name
    for name, found in ours.maps.items():
        np.testing.assert_allclose(theirs.maps[name], found, rtol=1e-3, atol=1e-5)


def test_the_top_logit_has_its_own_map():
    """The logit map is the change of the plain image's top logit."""
    model = wrap(classifier(), spec=SPEC, device="cpu")
    found = measure(model, replace(QUICK, stimulus=4))
    plain = model.run(model.spec.blank(), logits=True).logits[0]
    images = Stimulus(4, (1.0, 1.0, 1.0), 0.5).images([(0, 0)], model.spec)
    shown = model.run(model.spec.prepare(images), logits=True).logits[1]
    top = int(plain.argmax())
    assert found.maps["blind_spots_logit"][0, 0] == pytest.approx(
        float((shown - plain)[top].abs()), rel=1e-3
    )


def test_a_model_without_a_spatial_map_still_shows_its_filters():
    """A model without a grid has filter metrics, and the others are missing with a reason."""
    net = nn.Sequential(nn.Conv2d(3, 4, 40), nn.Flatten(), nn.Linear(4, 2))
    model = wrap(net, spec=SPEC, device="cpu")
    assert QUICK.skip(model, "forward") is None
    found = measure(model)
    assert found.metrics["filter_left_right"].value >= 0
    assert "no layer gives a grid" in found.metrics["blind_weakest"].reason
    assert "no spatial map" in found.metrics["exchange_reflect"].reason
    bare = wrap(nn.Sequential(nn.Flatten(), nn.Linear(4800, 2)), spec=SPEC, device="cpu")
    assert "no layer gives a grid" in QUICK.skip(bare, "forward")


def test_a_model_without_padding_or_filters_says_which_metrics_it_lacks():
    """Without padding or learned kernels those metrics are missing with a reason."""
    found = planted(np.ones((5, 5)), PaddingSuite(grid=5, stimulus=8))
    assert "no layer before the target pads" in found.metrics["exchange_reflect"].reason
    assert "no convolution has kernels" in found.metrics["filter_left_right"].reason


def test_padding_modes_that_were_not_requested_are_missing_with_that_reason():
    """Only the modes in `exchange` are measured; the others name the setting."""
    model = wrap(Circular("zeros"), spec=SPEC, device="cpu")
    found = measure(model, PaddingSuite(grid=3, exchange=("circular",)))
    assert "does not contain reflect" in found.metrics["exchange_reflect"].reason
    assert found.metrics["exchange_circular"].value is not None


def test_uneven_layers_are_named_with_the_sizes_that_cure_them():
    """Layers of uneven padding are listed with even sizes, at which none is left."""
    found = measure(wrap(classifier(), spec=SPEC, device="cpu"))
    assert found.metrics["uneven_layers"].value == 2
    first = found.tables["uneven"][0]
    assert (first["name"], first["rows"], first["columns"]) == ("0", 1, 1)
    assert first["even_heights"] == first["even_widths"] == (37, 41)
    cured = measure(wrap(classifier(), spec=InputSpec(41, 37), device="cpu"))
    assert cured.metrics["uneven_layers"].value == 0


# Input sizes


def test_the_sweep_measures_each_size_as_a_model_of_that_size_would_be():
    """Each row of the size sweep equals a measurement at that size alone."""
    model = wrap(classifier(), spec=SPEC, device="cpu")
    found = measure(model, replace(QUICK, sizes=(40, 41)))
    rows = found.tables["sizes"]
    assert [row["size"] for row in rows] == [40, 41]
    for row, spec in zip(rows, (SPEC, InputSpec(41, 41)), strict=True):
        alone = values(measure(wrap(classifier(), spec=spec, device="cpu")))
        for name, value in row.items():
            assert name == "size" or value == pytest.approx(alone[name], rel=1e-5, abs=1e-7), name
    assert (rows[0]["uneven_layers"], rows[1]["uneven_layers"]) == (2, 0)
    assert "filter_left_right" not in rows[0]


def test_a_size_that_the_model_refuses_names_the_sizes_it_takes():
    """The error has the size that was given and the size that the model takes."""
    model = load("timm:vit_tiny_patch16_224@init", device="cpu", members=1)
    with pytest.raises(InputError, match=r"225 x 225 .*224 x 224"):
        measure(model, PaddingSuite(grid=2, exchange=(), sizes=(225,)), count=1)


# Settings

BAD = {
    "stimulus of nothing": ({"stimulus": 0}, "padding.stimulus = 0; expected at least 1"),
    "one place": ({"grid": 1}, "padding.grid = 1; expected at least 2"),
    "no weights": ({"weight_sets": 0}, "padding.weight_sets = 0; expected at least 1"),
    "no size": ({"sizes": (224, 0)}, "padding.sizes = 0; expected at least 1"),
    "too bright": ({"colour": 1.5}, "padding.colour = 1.5 .* expected levels from 0 to 1"),
    "one channel too dark": ({"colour": (1.0, -0.1, 0.0)}, "expected levels from 0 to 1"),
    "background out of range": ({"background": 255.0}, "expected levels from 0 to 1"),
    "invisible": ({"colour": 0.5}, "must differ from its background"),
    "unknown border": ({"exchange": ("mirror",)}, "'mirror' .* reflect, replicate, circular"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_setting_is_refused_with_what_is_allowed(case):
    """A setting out of range is an InputError with the setting and the allowed values."""
    setting, text = BAD[case]
    with pytest.raises(InputError, match=text):
        PaddingSuite(**setting)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"stimulus": 41}, "41 pixels does not fit 7 x 7 places in an image of 40 x 40; allowed"),
        ({"stimulus": 35}, "allowed are 1 to 34 pixels"),
        ({"grid": 41}, "allowed are grids of fewer places"),
    ],
)
def test_a_stimulus_that_does_not_fit_the_image_is_refused_with_what_does(setting, text):
    """A stimulus that does not fit is an InputError with the sizes that do."""
    model = wrap(classifier(), spec=SPEC, device="cpu")
    with pytest.raises(InputError, match=text):
        measure(model, PaddingSuite(exchange=(), **setting))


def test_settings_come_from_the_command_line_as_text():
    """Texts of the command line become values of the settings' types, or an InputError."""
    options = {"colour": "1,0,0", "exchange": "reflect,circular", "sizes": "224,225", "grid": "9"}
    suite = configure(SUITES, {"padding": options})["padding"]
    assert suite == PaddingSuite(
        colour=(1.0, 0.0, 0.0), exchange=("reflect", "circular"), sizes=(224, 225), grid=9
    )
    assert configure(SUITES, {"padding": {"colour": "0"}})["padding"].colour == 0
    with pytest.raises(InputError, match=r"padding\.grid"):
        configure(SUITES, {"padding": {"grid": "many"}})


@pytest.mark.parametrize(
    ("size", "side", "grid", "gaps"),
    [((224, 224), 8, 7, (28, 28)), ((28, 28), 4, 7, (0, 0)), ((20, 40), 4, 3, (4, 14))],
)
def test_what_no_stimulus_covers_is_counted_in_pixels(size, side, grid, gaps):
    """The longest run of rows and columns without any stimulus, counted one by one."""
    spec = InputSpec(*size)
    places = grid_places(spec, side, grid)
    assert unseen(spec, side, places) == gaps
    for axis in (0, 1):
        seen = np.zeros(size[axis], dtype=bool)
        for place in places:
            seen[place[axis] : place[axis] + side] = True
        runs = "".join(map(str, seen.astype(int))).split("1")
        assert max(map(len, runs)) == gaps[axis]


def test_the_least_of_even_responses_is_one_at_most_within_an_interval():
    """Four weight sets of pure noise: no value above the mean, no empty interval, 1 inside."""
    inside = 0
    for seed in range(100):
        noisy = 1 + 0.05 * np.random.default_rng(seed).normal(size=(4, 5, 5))
        shares = noisy / noisy.mean((1, 2), keepdims=True)
        found = blind_metrics(shares, bootstrap(4, 200, seed))["blind_weakest"]
        assert found.value <= 1
        assert found.low < found.high <= 1
        inside += found.high == 1
    assert inside >= 93
