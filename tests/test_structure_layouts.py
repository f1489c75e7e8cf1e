"""The order of the axes changes no number of `structure`; only whole strides have phases."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from structure_nets import Apply
from torch import nn

from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.structure import measure_skeleton


def same(first, second):
    """Whether two networks have the same metrics and maps."""
    a, b = (measure_skeleton(light_copy(m.eval()), (3, 96, 96)) for m in (first, second))
    assert a.maps.keys() == b.maps.keys()
    for name in a.maps:
        np.testing.assert_allclose(a.maps[name], b.maps[name], rtol=1e-9)
    for name, estimate in a.metrics.items():
        known = None if estimate.value is None else pytest.approx(estimate.value, rel=1e-9)
        assert b.metrics[name].value == known, name
    assert [row["size"] for row in a.tables["even_sizes"]] == [
        row["size"] for row in b.tables["even_sizes"]
    ]


def in_last(function):
    """`function` of a map with channels first, done with channels last."""
    return lambda x, **layers: function(x.permute(0, 2, 3, 1), **layers).permute(0, 3, 1, 2)


LAYOUTS = {
    "pad": (
        lambda x, layer: layer(F.pad(x, (3, 3, 3, 3))),
        lambda x, layer: layer(
            F.pad(x.permute(0, 2, 3, 1), (0, 0, 3, 3, 3, 3)).permute(0, 3, 1, 2)
        ),
        {"layer": lambda: nn.Conv2d(6, 6, 7, 2)},
    ),
    "uneven pad": (
        lambda x, layer: layer(F.pad(x, (0, 1, 2, 1))),
        lambda x, layer: layer(
            F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, 1, 2, 1)).permute(0, 3, 1, 2)
        ),
        {"layer": lambda: nn.Conv2d(6, 6, 3, 2)},
    ),
    "crop": (
        lambda x, layer: layer(x[:, :, 1:, :-2]),
        in_last(lambda x, layer: layer(x[:, 1:, :-2].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)),
        {"layer": lambda: nn.Conv2d(6, 6, 3, 2)},
    ),
    "every second": (
        lambda x: x[:, :, ::2, ::2],
        in_last(lambda x: x[:, ::2, ::2]),
        {},
    ),
    "roll": (lambda x: x + x.roll(2, 2), in_last(lambda x: x + x.roll(2, 1)), {}),
    "linear": (
        lambda x, layer: nn.functional.conv2d(x, layer.weight[..., None, None]),
        in_last(lambda x, layer: layer(x)),
        {"layer": lambda: nn.Linear(6, 6)},
    ),
    "norm": (
        lambda x: F.group_norm(x, 1),
        in_last(lambda x: F.layer_norm(x, x.shape[1:])),
        {},
    ),
    "mean": (
        lambda x: x + x.mean((2, 3), keepdim=True),
        in_last(lambda x: x + x.mean((1, 2), keepdim=True)),
        {},
    ),
    "patches merged": (
        lambda x, layer: layer(torch.cat([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)),
        lambda x, layer: layer(
            torch.cat(
                [x.permute(0, 2, 3, 1)[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], -1
            ).permute(0, 3, 1, 2)
        ),
        {"layer": lambda: nn.Conv2d(24, 6, 1)},
    ),
}


@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_order_of_the_axes_changes_no_number(name, resize):
    """Channels first and last give the same metrics, maps and sizes; behind a resize too."""
    first, last, makers = LAYOUTS[name]

    def built(function):
        def whole(x, **layers):
            if resize:
                x = F.interpolate(x, scale_factor=0.5, mode="bilinear")
            return function(x, **layers)

        return Apply(whole, **{key: make() for key, make in makers.items()})

    same(built(first), built(last))


def test_a_padding_of_a_channels_last_tensor_keeps_stride_and_layer_table():
    """A channels-last padding keeps stride 2 and three rows of padding on either side."""
    net = Apply(LAYOUTS["pad"][1], patch=1, behind=1, layer=nn.Conv2d(6, 6, 7, 2))
    found = measure_skeleton(light_copy(net), (3, 96, 96))
    assert found.metrics["target_stride"].value == 2
    assert found.metrics["weakest"].value == pytest.approx(9 / 12.25)
    rows = [row for row in found.tables["layers"] if row["name"] == "modules_.layer"]
    assert rows[0]["padding_before"] == rows[0]["padding_after"] == (3, 3)
    assert rows[0]["input"] == (96, 96)


@pytest.mark.parametrize(("want", "stride"), [(224, 240 / 14), (90, 240 / 90 * 16), (120, 32.0)])
def test_a_stride_that_is_no_whole_number_leaves_no_phases(want, stride):
    """It is given as it is, and what rests on the period is missing for that reason."""

    class Resized(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch = nn.Conv2d(3, 6, 16, 16)

        def forward(self, x):
            return self.patch(F.interpolate(x, (want, want), mode="bilinear"))

    found = measure_skeleton(light_copy(Resized()), (3, 240, 240))
    assert found.metrics["target_stride"].value == pytest.approx(stride)
    for name in ("weakest", "imbalance", "ratio", "path_ratio", "by_period_2"):
        if stride == round(stride):
            continue
        assert found.metrics[name].value is None
        assert "whole number" in found.metrics[name].reason
    assert found.metrics["relL1"].value is not None


def test_an_adaptive_pool_of_uneven_windows_has_no_stride_of_its_own():
    """32 units in 7 windows are 32 / 7 apart, and no layer with a stride; 64 are 9 apart."""
    net = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.AdaptiveAvgPool2d(7))
    found = measure_skeleton(light_copy(net), (3, 128, 128))
    assert found.metrics["target_stride"].value == pytest.approx(128 / 7)
    assert "whole number" in found.metrics["weakest"].reason
    assert [row["name"] for row in found.tables["layers"]] == ["0"]
    found = measure_skeleton(light_copy(net), (3, 256, 256))
    row = found.tables["layers"][1]
    assert (row["kernel"], row["stride"]) == ((10, 10), (9, 9))
    assert found.metrics["target_stride"].value == 36
    even = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.AdaptiveMaxPool2d((8, 4)))
    found = measure_skeleton(light_copy(even), (3, 256, 256))
    assert found.tables["layers"][1]["stride"] == (8, 16)
