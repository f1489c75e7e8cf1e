"""Dead regions of models without gradients, found by cells that leave no gap."""

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from onnx_files import convnet, node, save
from onnx_table import export

from perimetry import audit
from perimetry.bench.regression.dead_regions import changed_regions, regions_of
from perimetry.suites.padding import silent_pixels
from perimetry.suites.padding.silent_pixels import PixelBlock
from perimetry.suites.padding.suite import PADDING

QUICK = {"count": 4, "draws": 20, "device": "cpu", "size": (56, 56)}


@pytest.fixture(autouse=True)
def black_box(monkeypatch):
    """Files are opened without gradients."""
    monkeypatch.setattr(
        "perimetry.adapters.onnx.model.OnnxModel.why_no_gradients", "no gradient route: planted"
    )


def masked(path, mask):
    """A file that multiplies its image by `mask` (1, 3, 56, 56)."""
    proto = convnet(size=56)
    proto.graph.initializer.append(numpy_helper.from_array(mask, "mask"))
    proto.graph.node[0].input[0] = "masked"
    proto.graph.node.insert(0, node("Mul", ["image", "mask"], ["masked"]))
    return save(proto, path)


def holed(path, *holes, channels=slice(None)):
    """A file that multiplies its image by 0 in `holes`, of some or all `channels`."""
    mask = np.ones((1, 3, 56, 56), np.float32)
    for hole in holes:
        mask[(slice(None), channels, *hole)] = 0
    return masked(path, mask)


def measured(path):
    return audit(path, ("padding",), **QUICK)[0]


@pytest.mark.parametrize(
    "box",
    [
        (20, 24, 32, 40),
        (21, 24, 31, 33),
        (0, 0, 8, 8),
        (3, 5, 10, 13),
        (47, 44, 56, 55),
        (0, 52, 56, 56),
        (0, 55, 56, 56),
        (0, 0, 1, 56),
        (0, 17, 56, 21),
        (30, 0, 31, 56),
    ],
)
def test_a_hole_is_placed_to_the_pixel(tmp_path, box):
    """Holes off the blocks, at corners and borders, single dead columns and rows: exact boxes."""
    top, left, bottom, right = box
    found = measured(holed(tmp_path / "a.onnx", (slice(top, bottom), slice(left, right))))
    (row,) = found.tables["silent_regions"]
    assert row == {
        "channel": "all",
        "pixels": (bottom - top) * (right - left),
        "box": list(box),
    }


def test_a_round_hole_and_a_second_one_are_counted_to_the_pixel(tmp_path):
    """Every pixel of a disc of radius 9 and of a square, and no other one, is silent."""
    rows, columns = np.mgrid[:56, :56]
    mask = np.ones((1, 3, 56, 56), np.float32)
    disc = (rows - 20) ** 2 + (columns - 22) ** 2 <= 81
    mask[..., disc] = 0
    mask[..., 40:49, 41:50] = 0
    found = measured(masked(tmp_path / "a.onnx", mask))
    assert [row["pixels"] for row in found.tables["silent_regions"]] == [int(disc.sum()), 81]


def test_what_is_silent_in_places_that_no_sentence_names_is_counted(tmp_path):
    """Of five holes three are named; the pixels of the two smallest are added up."""
    widths = (30, 25, 20, 15, 10)
    holes = [(slice(10 * i + 2, 10 * i + 10), slice(9, 9 + n)) for i, n in enumerate(widths)]
    found = measured(holed(tmp_path / "a.onnx", *holes))
    *named, rest = PADDING.defects(found)
    assert len(named) == 3
    assert rest == f"dead: {8 * (15 + 10)} pixels in other places"


@pytest.mark.parametrize("gain", [1e-4, 1e-8])
def test_a_hole_that_is_merely_very_weak_is_placed_to_the_pixel(tmp_path, gain):
    """Its change moves the map by a thousandth or less of what others do, and not by 0."""
    mask = np.ones((1, 3, 56, 56), np.float32)
    mask[..., 21:34, 24:35] = gain
    (row,) = measured(masked(tmp_path / "a.onnx", mask)).tables["silent_regions"]
    assert row == {"channel": "all", "pixels": 13 * 11, "box": [21, 24, 34, 35]}


class Foreign(torch.nn.Module):
    """A network with a hole whose result is `read` outside torch: nothing but logits is seen."""

    def __init__(self, read):
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, 2, 1)
        )
        self.head = torch.nn.Linear(8, 5)
        self.read = read

    def forward(self, x):
        mask = torch.ones(1, 1, 56, 56)
        mask[..., 21:34, 24:35] = 0
        scores = self.head(self.body(x * mask).relu().mean((2, 3)))
        return torch.from_numpy(self.read(scores.detach().numpy()))


def test_a_hole_is_found_by_the_logits_of_a_model_without_a_map():
    """A black box whose layers are not seen: the same region, to the pixel."""
    (row,) = measured(Foreign(lambda scores: scores)).tables["silent_regions"]
    assert row == {"channel": "all", "pixels": 13 * 11, "box": [21, 24, 34, 35]}


def test_outputs_that_answer_few_changes_are_not_called_silent():
    """The most probable class stays the same whatever a block does: nothing is said of pixels."""
    best = Foreign(lambda scores: (scores == scores.max(1, keepdims=True)).astype(np.float32))
    assert "silent_regions" not in measured(best).tables


def test_a_dead_border_is_found_on_all_sides(tmp_path):
    """A frame of two pixels: all of it, and nothing inside."""
    full = slice(None)
    ends = (slice(0, 2), slice(54, 56))
    holes = [(e, full) for e in ends] + [(full, e) for e in ends]
    (row,) = measured(holed(tmp_path / "a.onnx", *holes)).tables["silent_regions"]
    assert row["pixels"] == 56**2 - 52**2
    assert row["box"] == [0, 0, 56, 56]


@pytest.mark.parametrize(("channel", "colour"), [(0, "red"), (1, "green"), (2, "blue")])
def test_a_dead_colour_channel_is_named(tmp_path, channel, colour):
    """A channel that is multiplied by 0 is one row, with its number and colour."""
    full = (slice(None), slice(None))
    found = measured(holed(tmp_path / "a.onnx", full, channels=channel))
    (row,) = found.tables["silent_regions"]
    assert row["channel"] == f"channel {channel} ({colour})"
    assert row["pixels"] == 56**2


def test_refinement_is_bounded_and_says_how_far_it_came(tmp_path, monkeypatch):
    """With 40 cells the edges are placed to 2 pixels or more: fewer pixels, and a note."""
    monkeypatch.setattr(silent_pixels, "MOST_REFINING", 40)
    hole = (slice(13, 39), slice(14, 43))
    found = measured(holed(tmp_path / "a.onnx", hole))
    (row,) = found.tables["silent_regions"]
    assert 20 * 24 <= row["pixels"] < 26 * 29
    assert any("edges are placed to" in note for note in found.notes)


def test_an_ordinary_file_has_no_silent_pixel(tmp_path):
    """No false alarm, and what can hide is said in pixels."""
    found = measured(save(convnet(size=56), tmp_path / "a.onnx"))
    assert found.tables["silent_regions"] == []
    assert any("at most 6 pixels" in note for note in found.notes)
    assert PADDING.unseen(found) == (
        "holes of up to 6 pixels along their shorter side and holes of any size in one colour "
        "channel alone can hide"
    )


@pytest.mark.parametrize("side", [2, 3])
def test_a_hole_as_small_as_the_stimulus_is_found_at_its_places_to_the_pixel(tmp_path, side):
    """Blocks of 4 pixels and whole lines miss it; a stimulus of 2 pixels in the corner does not."""
    path = holed(tmp_path / "a.onnx", (slice(0, side), slice(0, side)))
    found = measured(path)
    assert found.metrics["blind_weakest"].value == 0
    assert found.tables["silent_regions"] == [
        {"channel": "all", "pixels": side**2, "box": [0, 0, side, side]}
    ]
    assert found.tables["blind_place"][0]["silent"] is True
    (clause,) = PADDING.defects(found)
    assert clause == f"dead: {side**2} pixels in rows 0 to {side - 1}, columns 0 to {side - 1}"
    whole = found.model_copy(update={"tables": found.tables | {"silent_regions": []}})
    (new,) = changed_regions(regions_of(whole), regions_of(found), 0)
    assert new == f"new dead region: {clause.removeprefix('dead: ')}"


@pytest.mark.parametrize("regions", [[], [{"channel": "all", "pixels": 4, "box": [0, 0, 2, 2]}]])
def test_a_record_that_never_tried_its_place_without_response_again_names_it(tmp_path, regions):
    """As in records of before: the stimulus is named once, by its place or by the region there."""
    found = measured(holed(tmp_path / "a.onnx", (slice(0, 2), slice(0, 2))))
    place = {k: v for k, v in found.tables["blind_place"][0].items() if k != "silent"}
    older = found.tables | {"blind_place": [place], "silent_regions": regions}
    (clause,) = PADDING.defects(found.model_copy(update={"tables": older}))
    what = "4 pixels in rows 0 to 1, columns 0 to 1"
    stimulus = "a stimulus of 2 x 2 pixels in rows 0 to 1, columns 0 to 1 changes nothing"
    assert clause == f"dead: {what if regions else stimulus}"


def test_a_model_with_gradients_is_searched_where_a_stimulus_changes_nothing(tmp_path, monkeypatch):
    """Without such a place it is not: `deadpixel` finds its regions from gradients."""
    monkeypatch.setattr("perimetry.adapters.onnx.model.OnnxModel.why_no_gradients", None)
    found = measured(holed(tmp_path / "a.onnx", (slice(0, 3), slice(0, 3))))
    assert found.tables["silent_regions"][0]["box"] == [0, 0, 3, 3]
    even = measured(save(convnet(size=56), tmp_path / "b.onnx"))
    assert "silent_regions" not in even.tables


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto"])
def test_ordinary_networks_have_no_silent_pixel(name, tmp_path):
    """Three untrained networks of timm, as files without gradients: no region and no channel."""
    import timm

    options = {"img_size": 96} if name.startswith("vit") else {}
    torch.manual_seed(0)
    net = timm.create_model(name, pretrained=False, **options).eval()
    for (
        layer
    ) in net.modules():  # a last norm of 0 would leave the shortcuts alone, which skip pixels
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(layer.weight)
    path = tmp_path / f"{name}.onnx"
    export(net, torch.zeros(2, 3, 96, 96), path, "torchscript 17", free=True)
    found = audit(path, ("padding",), **{**QUICK, "count": 2, "size": (96, 96)})[0]
    assert found.status == "ok", found.reason
    assert found.tables["silent_regions"] == []


def test_cells_are_halved_without_gap_or_overlap():
    """The parts of a cell have as many pixels together as it has, down to single ones."""
    parts = PixelBlock(0, 0, 5, 3).quarters()
    seen = np.zeros((5, 3), int)
    for part in parts:
        seen[part.pixels] += 1
    assert (seen == 1).all()
    assert PixelBlock(2, 2, 3, 3).quarters() == [PixelBlock(2, 2, 3, 3)]
