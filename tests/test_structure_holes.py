"""`structure` of networks with a hole: pixels that a fixed mask removes, however it is written."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from perimetry.adapters.export import export_onnx
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map, path_count_map
from perimetry.suites.architecture.receptive_field import (
    field_period,
    layer_table,
    summarise_field,
)
from perimetry.suites.structure import measure_skeleton

SIDE = 64
HOLE = (slice(10, 20), slice(28, 50))


def written(x):
    x = x.clone()
    x[:, :, HOLE[0], HOLE[1]] = 0
    return x


def written_by_mask(x):
    x = x.clone()
    x[:, :, mask()[0, 0] == 0] = 0
    return x


def mask():
    found = torch.ones(1, 1, SIDE, SIDE)
    found[..., HOLE[0], HOLE[1]] = 0
    return found


HOLES = {
    "product": lambda x: x * mask().to(x),
    "where": lambda x: torch.where(mask() > 0, x, torch.zeros((), dtype=x.dtype)),
    "masked_fill": lambda x: x.masked_fill(mask() == 0, 0.0),
    "written": written,
    "written by a mask": written_by_mask,
}


def joined(x):
    x = torch.cat([x, torch.zeros_like(x[:, :, :1])], 2)
    return torch.cat([x, torch.zeros_like(x[..., :1])], 3)


def written_into(x):
    y = x.new_zeros(len(x), x.shape[1], x.shape[2] + 1, x.shape[3] + 1)
    y[:, :, :-1, :-1] = x
    return y


PADDED = {
    "pad": lambda x: F.pad(x, (0, 1, 0, 1)),
    "pad of channels last": lambda x: F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, 1, 0, 1)).permute(
        0, 3, 1, 2
    ),
    "crop": lambda x: F.pad(x, (1, 1, 1, 1))[:, :, 1:, 1:],
    "joined": joined,
    "written into zeros": written_into,
}


class Holed(nn.Module):
    """Three strided layers, padded one by one, that see an image with or without a hole."""

    def __init__(self, padded, hole=None):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, 2)
        self.third = nn.Conv2d(8, 8, 3, 2)
        self.padded, self.hole = padded, hole

    def forward(self, x):
        x = x if self.hole is None else self.hole(x)
        x = self.norm(self.first(self.padded(x))).relu()
        return self.third(self.padded(self.second(self.padded(x)).relu()))


@pytest.mark.parametrize("padded", PADDED)
@pytest.mark.parametrize("hole", HOLES)
def test_a_hole_changes_neither_stride_nor_layers_nor_fields(hole, padded):
    """Those of the same network without the hole, whose pixels alone lose their sensitivity."""
    plain, holed = (light_copy(Holed(PADDED[padded], way).eval()) for way in (None, HOLES[hole]))
    size = (3, SIDE, SIDE)
    (_, _, expected), (_, _, found) = path_count_map(plain, size), path_count_map(holed, size)
    assert found.steps() == expected.steps() == (8, 8)
    assert found.nominal == expected.nominal
    assert summarise_field(found) == summarise_field(expected)
    assert summarise_field(found).at((7, 7)) == summarise_field(expected).at((7, 7))
    assert field_period(found, 0, SIDE) is not None
    np.testing.assert_array_equal(found.low, expected.low)
    np.testing.assert_array_equal(found.high, expected.high)
    blank = torch.zeros(1, *size)
    assert layer_table(holed, blank) == layer_table(plain, blank)
    whole, left = energy_map(plain, size)[0], energy_map(holed, size)[0]
    expected = (whole * mask()[0, 0]).numpy()
    np.testing.assert_allclose(left / left.mean(), expected / expected.mean(), rtol=1e-12)


@pytest.mark.parametrize("hole", HOLES)
def test_pixels_at_the_edge_of_a_field_that_a_mask_removes_are_no_part_of_it(hole):
    """The central unit's 15 x 15 pixels begin at row 32, behind the hole."""
    found = path_count_map(light_copy(Holed(PADDED["pad"], HOLES[hole]).eval()), (3, SIDE, SIDE))
    units = found[2]
    assert summarise_field(units).size == (15, 15)
    assert summarise_field(units).at((2, 4)).size == (11, 15)  # of rows 16 to 30, 20 to 30
    assert units.low[0, 2, 4] == 16


def test_two_masked_branches_have_the_field_of_the_one_that_is_read():
    """A quarter of the map from wide windows, the rest from narrow ones."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.narrow = nn.Conv2d(3, 4, 3, padding=1)
            self.wide = nn.Conv2d(3, 4, 9, padding=4)
            self.register_buffer("corner", torch.zeros(1, 1, 24, 24))
            self.corner[..., :12, :12] = 1

        def forward(self, x):
            return self.wide(x) * self.corner + self.narrow(x) * (1 - self.corner)

    field = summarise_field(path_count_map(light_copy(Branches().eval()), (3, 24, 24))[2])
    assert [field.at(unit).size for unit in ((5, 5), (5, 18), (18, 18))] == [(9, 9), (3, 3), (3, 3)]


def test_a_file_with_a_hole_has_the_stride_of_the_file_without(tmp_path):
    """Padding whose width the file computes from its input's size, as exporters write it."""

    def same(x):
        short = [max((-(-n // 2) - 1) * 2 + 3 - n, 0) for n in (x.shape[3], x.shape[2])]
        return F.pad(x, (0, short[0], 0, short[1]))

    strides = []
    for name, hole in (("plain", None), ("holed", HOLES["product"])):
        net = nn.Sequential(Holed(same, hole), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
        path = export_onnx(net, torch.zeros(1, 3, SIDE, SIDE), tmp_path / f"{name}.onnx")
        model = load(str(path), device="cpu")
        units = path_count_map(model.skeleton(), model.spec.shape)[2]
        strides.append((units.steps(), units.nominal, summarise_field(units).size))
    assert strides[0] == strides[1] == ((8, 8), (8, 8), (15, 15))


def test_a_central_unit_in_a_hole_has_no_field_and_says_so():
    """It is reached by local paths, from pixels that are all removed; the stride is that of all."""
    middle = torch.ones(1, 1, SIDE, SIDE)
    middle[..., SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4] = 0
    net = Holed(PADDED["pad"], lambda x: x * middle.to(x)).eval()
    metrics = measure_skeleton(light_copy(net), (3, SIDE, SIDE)).metrics
    assert metrics["receptive_field"].value is None
    assert "a fixed mask removes all pixels" in metrics["receptive_field"].reason
    assert metrics["target_stride"].value == 8
