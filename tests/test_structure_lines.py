"""`structure` of maps whose lines are joined, chosen by an index or cut into parts of a batch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx_files import model as onnx_model
from onnx_files import node, save, weights
from structure_nets import Apply
from torch import nn

from perimetry.adapters.load import load
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map, path_count_map

SIDE = 32


def wrapped_by_joining(x):
    x = torch.cat([x[:, :, -1:], x, x[:, :, :1]], 2)
    return torch.cat([x[..., -1:], x, x[..., :1]], 3)


def reflected_by_index(x):
    places = torch.tensor([2, 1, *range(x.shape[2]), x.shape[2] - 2, x.shape[2] - 3])
    return x[:, :, places].index_select(3, places)


def turned_by_joining(x):
    """Windows of four lines that are cut two lines later: means, moved back."""
    x = F.avg_pool2d(torch.cat([x[:, :, 2:], x[:, :, :2]], 2), 4)
    x = x.repeat_interleave(4, 2).repeat_interleave(4, 3)
    return torch.cat([x[:, :, -2:], x[:, :, :-2]], 2)


def windows_convolved(x, layer):
    """A convolution in windows of 4 x 4 units, each an entry of the batch."""
    batch, channels, rows, columns = x.shape
    x = x.view(batch, channels, rows // 4, 4, columns // 4, 4).permute(0, 2, 4, 1, 3, 5)
    x = layer(x.reshape(-1, channels, 4, 4))
    x = x.view(batch, rows // 4, columns // 4, channels, 4, 4).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(batch, channels, rows, columns)


@pytest.mark.parametrize(
    ("function", "modules", "stride"),
    [
        (lambda x, f: f(wrapped_by_joining(x)), {"f": nn.Conv2d(6, 6, 3, 2)}, 4),
        (lambda x, f: f(reflected_by_index(x)), {"f": nn.Conv2d(6, 6, 3, 2)}, 4),
        (turned_by_joining, {}, 2),
        (windows_convolved, {"layer": nn.Conv2d(6, 6, 3, padding=1)}, 2),
        (lambda x: x.index_select(2, torch.arange(1, 16, 3)), {}, (6, 2)),
    ],
    ids=["wrapped", "reflected", "turned", "windows", "every third"],
)
def test_the_stride_is_that_of_the_lines_between(function, modules, stride):
    """Two pixels of the patches, times the step of the layer or of the index behind them."""
    net = Apply(function, patch=2, behind=1, **modules)
    units = path_count_map(light_copy(net.eval()), (3, SIDE, SIDE))[2]
    assert units.stride() == (stride if isinstance(stride, tuple) else (stride, stride))


class Rows(nn.Module):
    """A convolution and a batch norm of lines that are entries of the batch, beside the map."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.line = nn.Conv1d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x):
        x = self.first(x)
        batch, channels, rows, columns = x.shape
        lines = x.permute(0, 2, 1, 3).reshape(batch * rows, channels, columns)
        lines = self.norm(self.line(lines))
        return lines.view(batch, rows, channels, columns).permute(0, 2, 1, 3)


@pytest.mark.parametrize("variants", [1, 2])
def test_a_batch_norm_of_lines_in_the_batch_has_the_statistics_of_the_map(variants):
    """It is one factor for the map, and leaves the map of two convolutions without it."""
    skeleton = light_copy(Rows().eval())
    with_norm = energy_map(skeleton, (3, 8, 8), padded=(None,) * variants)[0].numpy()
    skeleton.norm = nn.Identity()
    without = energy_map(skeleton, (3, 8, 8))[0].numpy()
    np.testing.assert_allclose(with_norm / with_norm.mean(), without / without.mean(), rtol=1e-12)


@pytest.mark.parametrize(("mode", "name"), [("reflect", "reflect"), ("edge", "replicate")])
def test_a_file_with_a_padded_border_has_the_stride_and_layers_of_the_module(mode, name, tmp_path):
    """`Pad` of a file and `F.pad` are one padding: the same stride, and the same windows."""
    nodes = [node("Pad", ["image", "ends"], ["p"], mode=mode)]
    nodes.append(node("Conv", ["p", "w"], ["y"], strides=[2, 2]))
    constants = {"w": weights(4, 3, 3, 3), "ends": np.array([0, 0, 2, 2, 0, 0, 1, 2])}
    proto = onnx_model(nodes, constants, dims=[1, 3, SIDE, SIDE], outputs=["y"])
    model = load(save(proto, tmp_path / "padded.onnx"), device="cpu")
    file = path_count_map(model.skeleton(), (3, SIDE, SIDE))
    plain = nn.Conv2d(3, 4, 3, 2)
    net = Padded(name, plain)
    module = path_count_map(light_copy(net), (3, SIDE, SIDE))
    assert file[2].stride() == module[2].stride() == (2, 2)
    assert file[1].layers[0].windows == module[1].layers[0].windows


class Padded(nn.Module):
    """A layer behind a border of lines that repeat."""

    def __init__(self, mode, layer):
        super().__init__()
        self.mode, self.layer = mode, layer

    def forward(self, x):
        return self.layer(F.pad(x, (2, 2, 2, 1), mode=self.mode))
