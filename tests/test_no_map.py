"""Tensors that are no map of units, although they have the shape of one, are never the target."""

import pytest
import torch
from corpus import export
from torch import nn

from perimetry import audit
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.pytorch.model import wrap

SIDE = 64
SPEC = InputSpec(SIDE, SIDE)


class Pixels(nn.Module):
    """A linear layer of all pixels behind a normalisation; of 77 pixels it reads nothing."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * SIDE * SIDE, 5)
        with torch.no_grad():
            self.fc.weight.view(5, 3, SIDE, SIDE)[:, :, 20:31, 37:44] = 0

    def forward(self, x):
        return self.fc(((x - 0.4) / 0.2).clamp(-2, 2).flatten(1))


class Frames(nn.Module):
    """Four equal frames through a 3-D convolution, behind a normalisation."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, (3, 4, 4), (1, 4, 4))

    def forward(self, x):
        return self.conv(((x - 0.4) / 0.2)[:, :, None].repeat(1, 1, 4, 1, 1)).mean((2, 3, 4))


class RowsAsChannels(nn.Module):
    """The 64 columns as a sequence, through 1-D convolutions: 64, 32 and 16 places in a row."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(3 * SIDE, 8, 3, 2, 1), nn.Conv1d(8, 8, 3, 2, 1)

    def forward(self, x):
        return self.b(self.a(x.flatten(1, 2)).relu()).mean(2)


class RowsAsTokens(nn.Module):
    """The 64 rows of the grey image as tokens of 64 numbers."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(SIDE, 16), nn.Linear(16, 5)

    def forward(self, x):
        return self.b(self.a(x.mean(1)).relu().mean(1))


class Columns(nn.Module):
    """Sixteen sums over the columns of each row; rows and colours could be 3 x 64 units of 16."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(SIDE, 16), nn.Linear(3 * SIDE * 16, 5)

    def forward(self, x):
        return self.b(self.a(x).relu().flatten(1))


NETS = {net.__name__: net for net in (Pixels, Frames, RowsAsChannels, RowsAsTokens, Columns)}


@pytest.mark.parametrize("name", NETS)
def test_what_is_no_map_is_no_target_of_modules_and_files(name, tmp_path):
    """Dead pixels are then not looked for, where none were found in what the network never read."""
    torch.manual_seed(0)
    net = NETS[name]().eval()
    assert wrap(net, spec=SPEC).target is None
    (record,) = audit(wrap(net, spec=SPEC), ("deadpixel",), count=2)
    assert record.status == "skipped"
    assert "no layer gives a grid of units" in record.reason
    file = open_onnx(export(net, (SIDE, SIDE), tmp_path / "a.onnx"), device="cpu", spec=SPEC)
    assert file.target is None


class Patches(nn.Module):
    """Patches of 8 x 8 pixels by views alone, then a linear layer of each."""

    def __init__(self, order):
        super().__init__()
        self.order = order
        self.embed, self.head = nn.Linear(3 * 64, 16), nn.Linear(16, 5)

    def forward(self, x):
        n = SIDE // 8
        split = (x - 0.4).reshape(-1, 3, n, 8, n, 8).permute(self.order)
        return self.head(self.embed(split.reshape(-1, n * n, 192)).relu().mean(1))


class Mixed(nn.Module):
    """A product over the channels with channels first, and one over the columns of all units."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, 4)
        self.across, self.along = nn.Parameter(torch.rand(8, 6)), nn.Linear(16, 16)

    def forward(self, x):
        y = torch.einsum("bchw,dc->bdhw", self.stem(x), self.across)
        return self.along(y).relu().mean((2, 3))


def test_patches_by_views_and_products_of_maps_stay_maps():
    """Views of six axes gather blocks; a product keeps the order of the axes that it keeps."""
    target = wrap(Patches((0, 2, 4, 1, 3, 5)), spec=SPEC).target
    assert (target.height, target.width, target.channels) == (8, 8, 16)
    target = wrap(Mixed(), spec=SPEC).target
    assert (target.kind, target.channels, target.height, target.width) == ("NCHW", 8, 16, 16)


def test_an_image_that_is_only_changed_point_by_point_is_the_target_of_a_network_without_layers():
    """Nothing is read behind it that it could hide."""

    class Points(nn.Module):
        def forward(self, x):
            return (x * 2).relu()

    target = wrap(Points(), spec=SPEC).target
    assert (target.channels, target.height, target.width) == (3, SIDE, SIDE)
