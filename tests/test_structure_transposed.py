"""`structure` behind transposed convolutions: the stride is theirs, whatever they crop or add."""

import numpy as np
import pytest
from structure_nets import Apply
from test_structure_attention_fields import support
from torch import nn

from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import path_count_map
from perimetry.suites.architecture.receptive_field import nearest_even_sizes
from perimetry.suites.structure import measure_skeleton

ROWS, COLUMNS = 32, 40


def of_lines(x, layer, *, columns=False):
    """A layer over one axis, on every line of the map by itself."""
    x = x.mT if columns else x
    batch, channels, lines, length = x.shape
    x = layer(x.transpose(1, 2).reshape(batch * lines, channels, length))
    x = x.reshape(batch, lines, channels, -1).transpose(1, 2)
    return x.mT if columns else x


def in_windows(x, layer):
    """A layer in windows of 2 x 2 units, each an entry of the batch."""
    batch, channels, rows, columns = x.shape
    x = x.view(batch, channels, rows // 2, 2, columns // 2, 2).permute(0, 2, 4, 1, 3, 5)
    x = layer(x.reshape(-1, channels, 2, 2))
    x = x.view(batch, rows // 2, columns // 2, channels, *x.shape[2:]).permute(0, 3, 1, 4, 2, 5)
    return x.flatten(4).flatten(2, 3)


def net(layer, *, stem=4, function=None):
    """Patches of `stem` pixels, and the layer by itself or used by a function."""
    if function is None:
        return nn.Sequential(nn.Conv2d(3, 6, stem, stem), layer).eval()
    return Apply(function, patch=stem, behind=1, layer=layer).eval()


NETS = {
    "kernel 2": (net(nn.ConvTranspose2d(6, 4, 2, 2)), (2, 2)),
    "kernel 3": (net(nn.ConvTranspose2d(6, 4, 3, 2, 1)), (2, 2)),
    "kernel 3, one more": (net(nn.ConvTranspose2d(6, 4, 3, 2, 1, output_padding=1)), (2, 2)),
    "kernel 3, not cropped": (net(nn.ConvTranspose2d(6, 4, 3, 2)), (2, 2)),
    "kernel 4": (net(nn.ConvTranspose2d(6, 4, 4, 2, 1)), (2, 2)),
    "kernel 4, cropped more": (net(nn.ConvTranspose2d(6, 4, 4, 2, 2)), (2, 2)),
    "dilated": (net(nn.ConvTranspose2d(6, 4, 3, 2, 1, dilation=2)), (2, 2)),
    "rows alone": (net(nn.ConvTranspose2d(6, 4, 3, (2, 1), 1)), (2, 4)),
    "by three": (net(nn.ConvTranspose2d(6, 4, 5, 3, 1)), (4 / 3, 4 / 3)),
    "of six": (net(nn.ConvTranspose2d(6, 4, 5, 3, 2), stem=6), (2, 2)),
    "of pixels": (net(nn.ConvTranspose2d(6, 4, 3, 2, 1), stem=1), (0.5, 0.5)),
    "of odd pixels": (net(nn.ConvTranspose2d(6, 4, 3, 2, 1), stem=3), (1.5, 1.5)),
    "lines": (net(nn.ConvTranspose1d(6, 6, 3, 2, 1), function=of_lines), (4, 2)),
    "columns": (
        net(
            nn.ConvTranspose1d(6, 6, 4, 2, 2),
            function=lambda x, layer: of_lines(x, layer, columns=True),
        ),
        (2, 4),
    ),
    "windows": (net(nn.ConvTranspose2d(6, 6, 3, 2, 1, 1), function=in_windows), (2, 2)),
}


@pytest.mark.parametrize("name", NETS)
def test_the_stride_is_divided_by_that_of_the_transposed_convolution(name):
    """Not by the ratio of the sizes; phases follow where it is a whole number above 1."""
    built, strides = NETS[name]
    found = measure_skeleton(light_copy(built), (3, ROWS, COLUMNS))
    assert found.metrics["target_stride"].value == pytest.approx(strides[0])
    units = path_count_map(light_copy(built), (3, ROWS, COLUMNS))[2]
    assert units.stride() == pytest.approx(strides)
    whole = all(s == round(s) for s in strides) and strides != (1, 1)
    assert (found.metrics["weakest"].value is not None) == whole


@pytest.mark.parametrize("name", ["kernel 2", "kernel 3", "kernel 3, one more", "kernel 4"])
def test_it_is_the_step_of_the_gradients_centres(name):
    """Over the units that one unit of the input becomes, inside the map."""
    built, (stride, _) = NETS[name]
    side = 24
    ends = support(built, side)
    centres = (ends[0] + ends[2])[:, ends.shape[2] // 2] / 2
    inside = centres[3:-3]
    np.testing.assert_array_equal(inside[2:] - inside[:-2], 2 * stride)


def test_even_sizes_count_the_units_that_are_cropped():
    """Behind 2n - 1 units, a pool of windows of 2 is even nowhere; behind 2n everywhere."""
    for more, sizes in ((0, ()), (1, (32,))):
        up = nn.ConvTranspose2d(6, 6, 3, 2, 1, output_padding=more)
        layers = nn.Sequential(nn.Conv2d(3, 6, 2, 2), up, nn.AvgPool2d(2))
        _, trace, units = path_count_map(light_copy(layers.eval()), (3, 32, 32))
        assert units.nominal == (2, 2)
        strided = [layer for layer in trace.layers if layer.kind != "conv2d"]
        below = tuple(n for n in nearest_even_sizes(strided, (32, 32), (2, 2))[0] if n == 32)
        assert below == sizes
