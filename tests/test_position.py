"""Position in features: planted ramps, no padding, circular padding, outlying norms, embeddings."""

import numpy as np
import pytest
import torch
from onnx_files import convnet, save
from test_opaque import unknown
from torch import nn
from validation.outputs import Ramp

from perimetry import audit
from perimetry.adapters.blocks import Blocks
from perimetry.adapters.errors import InputError
from perimetry.adapters.export import export_onnx
from perimetry.adapters.feature_grid import Grid
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.base import Context
from perimetry.suites.images import open_images
from perimetry.suites.position.embedding import (
    border_over_interior,
    embedding_norms,
    embedding_shapes,
)
from perimetry.suites.position.probe import (
    PENALTIES,
    _errors,
    coordinates,
    features,
    held_out_r2,
    second_moments,
)
from perimetry.suites.position.stages import bimodality, evenly_spaced
from perimetry.suites.position.study import rolled
from perimetry.suites.position.suite import POSITION, Position

GREY = InputSpec(24, 24, channels=1, mean=(0.0,), std=(1.0,))


def opened(module, spec=GREY):
    return wrap(module.eval(), spec=spec, device="cpu", precision="float64")


def measured(model, count=8, kind="dead-leaves", **settings):
    images = open_images(kind, count).load(model.spec)
    context = Context(images, draws=100, batch=3)
    return Position(**settings).measure(model, "rolled", {}, context)


def values(found):
    return {name: one.value for name, one in found.metrics.items()}


def strided(mode="zeros", padding=1):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, padding, padding_mode=mode),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, 1, padding, padding_mode=mode),
        nn.ReLU(),
    )


def test_a_planted_ramp_is_found_by_the_probe_and_by_the_share():
    """Noise of variance 1 plus a ramp of variance 2: both explain two thirds, by rows alone."""
    found = measured(opened(Ramp(24, 2.0)), count=12, kind="noise")
    assert values(found)["row_r2"] == pytest.approx(2 / 3, abs=0.03)
    assert values(found)["position_share"] == pytest.approx(2 / 3, abs=0.03)
    assert values(found)["column_r2"] < 0.01


@pytest.mark.parametrize(("mode", "padding"), [("zeros", 0), ("circular", 1)])
def test_without_padding_or_with_circular_padding_there_is_no_position(mode, padding):
    """R^2 and share of position have intervals that contain 0, at both resolutions."""
    found = measured(opened(strided(mode, padding)))
    for name in ("row_r2", "column_r2", "position_share"):
        assert found.metrics[name].low == 0, name
        assert found.metrics[name].value < 0.03, name


def test_zero_padding_writes_position_into_the_features():
    """The same network with zeros at its borders has a share of position that is not 0."""
    found = measured(opened(strided()))
    assert found.metrics["position_share"].low > 0.02
    assert found.metrics["row_r2"].low > 0


def test_the_share_is_the_product_of_different_images_over_the_square_of_each():
    """Loops over pairs of images, units and channels."""
    model = opened(strided())
    x = rolled(model.spec.prepare(open_images("dead-leaves", 5).load(GREY)), 0)
    maps = model.run(x).target.numpy()
    across = same = 0.0
    for a in range(5):
        for b in range(5):
            total = 0.0
            for c in range(maps.shape[1]):
                one, other = maps[a, c], maps[b, c]
                total += ((one - one.mean()) * (other - other.mean())).sum()
            across += total / 20 if a != b else 0.0
            same += total / 5 if a == b else 0.0
    assert values(measured(model, count=5))["position_share"] == pytest.approx(across / same)


def ridge_by_hand(train, train_places, test, test_places, penalty):
    """1 - R^2 on `test` of ridge regression on standardised features, solved directly."""
    mean, deviation = train.mean(0), train.std(0)
    z = (train - mean) / deviation
    y = train_places - train_places.mean()
    weights = np.linalg.solve(z.T @ z / len(z) + penalty * np.eye(z.shape[1]), z.T @ y / len(z))
    guess = (test - mean) / deviation @ weights + train_places.mean()
    spread = ((test_places - test_places.mean()) ** 2).sum()
    return ((test_places - guess) ** 2).sum() / spread


def test_the_probe_is_ridge_regression_on_standardised_features():
    """Errors from second moments are those of regression on the units themselves."""
    rng = np.random.default_rng(0)
    places = coordinates(4, 5)
    units = rng.standard_normal((3, 20, 6)) + places[:, :1]
    moments = second_moments(units, places)
    found = _errors(moments[:2], moments[2:])
    train = units[:2].reshape(40, 6)
    for k in (0, 7, 14):
        for axis in (0, 1):
            expected = ridge_by_hand(
                train, np.tile(places[:, axis], 2), units[2], places[:, axis], PENALTIES[k]
            )
            assert found[k, 0, axis] == pytest.approx(expected, rel=1e-6)


def test_a_probe_of_noise_is_worth_nothing_on_other_images():
    """With more features than units the training error is 0, and R^2 elsewhere not above 0."""
    rng = np.random.default_rng(0)
    places = coordinates(5, 5)
    units = rng.standard_normal((40, 25, 60))
    r2 = held_out_r2(second_moments(units, places))
    assert r2.shape == (40, 2)
    assert r2.mean() < 0.02


def test_units_and_channels_are_read_at_even_distances():
    """Of 100 x 3 units 24 x 3 are kept, borders included, and of 1800 channels every third."""
    maps = torch.arange(100.0)[:, None].expand(1, 1800, 100, 3)
    kept = features(maps)
    assert kept.shape == (1, 72, 600)
    places = coordinates(100, 3)
    np.testing.assert_allclose(kept[0, :, 0], (places[:, 0] + 1) / 2 * 99, atol=1e-9)
    assert places.min() == -1
    assert places.max() == 1


class Loud(nn.Module):
    """Sixteen channels of ones, ten times as large at two planted places."""

    def __init__(self, places=((0, 0), (3, 2))):
        super().__init__()
        self.conv, self.places = nn.Conv2d(1, 16, 4, 4), places

    def forward(self, x):
        y = self.conv(x) * 1e-3 + 1
        for row, column in self.places:
            y = y * torch.where(self.spot(y, row, column), 10.0, 1.0)
        return y

    @staticmethod
    def spot(y, row, column):
        spot = torch.zeros(y.shape[2:], dtype=torch.bool)
        spot[row, column] = True
        return spot


def test_planted_loud_units_are_counted_and_placed():
    """Two of 36 units stand out, in all images, at the planted places."""
    found = measured(opened(Loud()))
    assert values(found)["outlier_share"] == pytest.approx(2 / 36)
    placed = [(row["row"], row["column"]) for row in found.tables["outliers"]]
    assert placed == [(0, 0), (3, 2)]
    assert all(row["share_of_images"] == 1 for row in found.tables["outliers"])
    assert values(found)["bimodality"] > 0.95
    assert values(measured(opened(Loud(()))))["outlier_share"] == 0


class Later(nn.Module):
    """Four residual blocks of one resolution; the third adds a ramp, one token is loud till a norm.

    The blocks see three units of a circle and add noise, so that without the ramp no position is
    known.
    """

    def __init__(self, side=12):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Conv2d(1, 8, 2, 2)
        self.mix = nn.ModuleList(
            nn.Conv1d(8, 8, 3, padding=1, padding_mode="circular") for _ in range(4)
        )
        self.norm = nn.LayerNorm(8)
        ramp = torch.linspace(-3, 3, side)[:, None].expand(side, side).reshape(1, -1, 1)
        self.register_buffer("ramp", ramp)
        self.register_buffer("loud", torch.ones(1, side * side, 1))
        self.loud[0, 29] = 1000.0

    def forward(self, x):
        y = self.embed(x).flatten(2).transpose(1, 2)
        for k, mix in enumerate(self.mix):
            z = mix(y.transpose(1, 2)).transpose(1, 2)
            y = y + (z + self.ramp if k == 2 else z * self.loud if k == 3 else z)
        return self.norm(y)


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_stages_of_one_resolution_show_in_which_block_position_is_added(tmp_path, kind):
    """Rows cannot be read before the third block and can behind it; tokens are those of a graph."""
    model = opened(Later())
    if kind == "onnx":
        path = export_onnx(Later(), GREY.blank(), tmp_path / "later.onnx", spec=GREY)
        model = load(str(path), device="cpu")
    found = measured(model, kind="noise")
    stages = found.tables["stages"]
    assert [row["units"] for row in stages] == [(12, 12)] * 6  # embedding, four blocks, norm
    assert max(row["row_r2"] for row in stages[:3]) < 0.05
    assert stages[3]["row_r2"] > 0.5
    assert max(row["column_r2"] for row in stages[:4]) < 0.05


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_norms_of_tokens_are_those_before_the_final_norm(tmp_path, kind):
    """A token a thousand times as loud stands out in front of the norm, which hides it behind."""
    model = opened(Later())
    if kind == "onnx":
        path = export_onnx(Later(), GREY.blank(), tmp_path / "later.onnx", spec=GREY)
        model = load(str(path), device="cpu")
    found = measured(model, count=4)
    assert [(row["row"], row["column"]) for row in found.tables["outliers"]] == [(2, 5)]
    shares = [row["outlier_share"] for row in found.tables["stages"]]
    assert shares[-2] == values(found)["outlier_share"] == pytest.approx(1 / 144)
    assert shares[-1] == 0


def test_of_many_maps_evenly_spaced_ones_are_stages():
    """Of 15 maps about 4: evenly spaced, the last of each resolution, the one before the norm."""
    sizes = [8] * 5 + [4] * 10
    maps = tuple(Grid(f"{k}", "NLC", 2, side, side) for k, side in enumerate(sizes))
    blocks = Blocks(maps, maps[13])
    assert evenly_spaced(blocks, 15) == list(maps)
    found = [int(grid.name) for grid in evenly_spaced(blocks, 4)]
    assert found == [0, 4, 5, 9, 13, 14]


def test_sarles_coefficient_of_known_laws():
    """1 of two values, 5/9 of a uniform law, 1/3 of a normal one, on the logarithms."""
    rng = np.random.default_rng(0)
    assert bimodality(np.exp([0.0, 1.0] * 50)) == pytest.approx(1)
    assert bimodality(np.exp(np.linspace(0, 1, 10_000))) == pytest.approx(5 / 9, abs=1e-3)
    assert bimodality(np.exp(rng.standard_normal(100_000))) == pytest.approx(1 / 3, abs=0.02)
    assert bimodality(np.ones(4)) is None
    assert bimodality(np.zeros(4)) is None


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_the_norms_of_a_position_embedding_are_read_off_the_weights(tmp_path, kind):
    """A ViT whose embedding has a planted norm of 3 at the border and 1 inside, 6 at one place."""
    model = load("timm:test_vit@init", device="cpu", members=1)
    side, module = model.target.height, model.module()
    norms = torch.full((side, side), 3.0)
    norms[1:-1, 1:-1] = 1.0
    norms[4, 5] = 6.0
    with torch.no_grad():
        table = torch.ones(side * side, 64) / 8 * norms.view(-1, 1)
        module.pos_embed[0, 1:] = table
    if kind == "onnx":
        path = export_onnx(module, model.spec.blank(), tmp_path / "vit.onnx", spec=model.spec)
        model = load(str(path), device="cpu")
    found = measured(model, count=4)
    inside = (side - 2) ** 2
    expected = 3 / ((inside - 1 + 6) / inside)
    assert values(found)["embedding_border"] == pytest.approx(expected, rel=1e-5)
    assert values(found)["embedding_largest"] == pytest.approx(6, rel=1e-5)
    before_the_norm = found.tables["stages"][-2]["stage"]
    assert f"norms of units are those of {before_the_norm!a}" in found.notes


@pytest.mark.parametrize("shape", [(1, 13, 5), (13, 5), (13, 1, 5), (1, 12, 5), (1, 5, 3, 4)])
def test_embeddings_of_every_layout_are_read_by_place(shape):
    """The norm of place (row, column) is planted; class tokens are left out."""
    grid = Grid("t", "NLC", 5, 3, 4, prefix=1)
    assert shape in embedding_shapes(grid)
    planted = torch.arange(1.0, 13.0).view(3, 4)
    tokens = torch.cat([torch.full((13 - 12, 5), 99.0), planted.view(12, 1).expand(12, 5)])
    tensor = (
        planted.expand(1, 5, 3, 4)
        if len(shape) == 4
        else tokens[-(12 if 12 in shape else 13) :].reshape(shape)
    )
    np.testing.assert_allclose(embedding_norms(tensor, grid), planted.numpy() * 5**0.5, rtol=1e-6)


class Interpolated(nn.Module):
    """Tokens of 12 x 12 places, to which a stored embedding of 9 x 9 is interpolated."""

    def __init__(self, table):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.norm = nn.Conv2d(1, 8, 2, 2), nn.LayerNorm(8)
        self.mix = nn.MultiheadAttention(8, 2, batch_first=True)
        self.places = nn.Parameter(table)

    def forward(self, x):
        table = self.places.transpose(1, 2).reshape(1, 8, 9, 9)
        table = nn.functional.interpolate(table, (12, 12), mode="bilinear")
        y = (self.embed(x) + table).flatten(2).transpose(1, 2)
        return self.norm(y + self.mix(y, y, y)[0])


def test_an_embedding_of_another_size_is_read_on_its_own_grid():
    """A norm of 3 at the border and 1 inside, 6 at one place, of 9 x 9 places."""
    norms = torch.full((9, 9), 3.0)
    norms[1:-1, 1:-1] = 1.0
    norms[4, 5] = 6.0
    model = opened(Interpolated(torch.ones(1, 81, 8) / 8**0.5 * norms.view(1, -1, 1)))
    found = measured(model, count=4)
    assert values(found)["embedding_border"] == pytest.approx(3 / ((48 + 6) / 49), rel=1e-5)
    assert values(found)["embedding_largest"] == pytest.approx(6, rel=1e-5)
    assert found.maps["embedding"].shape == (9, 9)


def test_a_map_without_interior_has_no_border_ratio():
    """Two rows have no place inside the border."""
    assert border_over_interior(np.ones((2, 5))) is None
    assert border_over_interior(np.ones((3, 3))) == 1


def test_what_cannot_be_measured_has_a_reason():
    """Few images, features that are the same everywhere, a network without an embedding."""
    few = measured(opened(strided()), count=3)
    assert "4 images" in few.metrics["row_r2"].reason
    assert few.metrics["position_share"].value is not None
    flat = nn.Conv2d(1, 2, 4, 4)
    nn.init.zeros_(flat.weight)
    found = measured(opened(flat))
    assert found.metrics["position_share"].reason
    assert found.metrics["embedding_border"].reason
    assert measured(opened(strided()), count=1).metrics["position_share"].reason


@pytest.mark.parametrize("make", [convnet, unknown], ids=["file", "black box"])
def test_files_are_measured_by_forward_passes_alone(tmp_path, make):
    """ONNX files, one with an operator that has no rule, have probes and shares."""
    found = measured(load(save(make(), tmp_path / "m.onnx"), device="cpu"), count=6)
    assert values(found)["position_share"] > 0
    assert values(found)["row_r2"] is not None


def test_weight_sets_are_samples_that_see_all_images():
    """Of four initial states of a ResNet, padded with zeros, position is found with an interval."""
    found = measured(load("timm:test_resnet@init", device="cpu", members=4), count=6)
    assert found.metrics["position_share"].low > 0
    assert found.metrics["row_r2"].low is not None
    assert len(found.tables["stages"]) > 2


def test_on_trained_weights_position_is_found():
    """EfficientNet-Lite0 (trained): position explains a part of the last features' variance."""
    import trained_weights

    found = measured(load(f"timm:tf_efficientnet_lite0@{trained_weights.LITE0}", device="cpu"))
    assert found.metrics["position_share"].low > 0.05


def test_at_least_one_weight_set_is_asked_for():
    """No weight sets are an `InputError`."""
    with pytest.raises(InputError):
        Position(weight_sets=0)


def test_the_suite_runs_in_an_audit():
    """An audit records every metric and the stages."""
    model = opened(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU()), InputSpec(32, 32))
    (record,) = audit(model, ("position",), count=4, device="cpu")
    assert record.status == "ok", record.error
    assert set(record.metrics) == {metric.name for metric in POSITION.metrics}
    assert record.tables["stages"]
