"""Structure of exported programs: that of the modules they come from."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.exported import open_exported
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.structure import measure_skeleton

SIDE = 32


def conv(inputs, outputs, kernel=3, stride=1, **more):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, **more)


class Net(nn.Module):
    """A function of x (batch, 3, rows, columns) and of layers, and a last layer."""

    def __init__(self, function, *layers):
        super().__init__()
        self.layers, self.function = nn.ModuleList(layers), function
        self.head = conv(8, 8)

    def forward(self, x):
        return self.head(self.function(self.layers, x))


def residual(m, x):
    y = F.relu(m[1](m[0](x)), inplace=True)
    y = F.relu(m[5](m[4](y)) + m[3](m[2](y)))
    y += 1
    return y


def squeezed(m, x):
    y = F.hardswish(m[1](m[0](x)))
    return y * F.hardsigmoid(m[3](F.silu(m[2](F.adaptive_avg_pool2d(y, 1)))))


def attending(m, x):
    y = m[0](x)
    b, c, h, w = y.shape
    t = y.flatten(2).transpose(1, 2)
    q, k, v = m[2](m[1](t)).reshape(b, h * w, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
    t = t + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h * w, c)
    q, k, v = m[3](F.layer_norm(t, (c,))).chunk(3, -1)
    t = t + ((q @ k.transpose(-2, -1)) * c**-0.5).softmax(-1) @ v
    return (t + m[5](F.gelu(m[4](t)))).transpose(1, 2).view(b, c, h, w)


def pooled(m, x):
    y = F.relu6(m[0](x))
    return m[1](torch.cat([F.max_pool2d(y, 3, 2, 1), F.avg_pool2d(y, 2), F.max_pool2d(y, 2)], 1))


def resized(m, x):
    fine = F.leaky_relu(m[0](x), 0.1)
    coarse = F.group_norm(m[1](fine), 2)
    wide = F.interpolate(coarse, size=fine.shape[2:], mode="nearest")
    return m[2](F.interpolate(coarse, scale_factor=2, mode="bilinear") + fine + wide)


def padded(m, x):
    y = m[0](F.pad(x, (0, 1, 0, 1)))
    y = m[1](F.pad(y, (1, 2, 1, 2), mode="reflect"))
    return F.pad(y, (1, 1, 1, 1), mode="replicate")[:, :, 1:]


def moved(m, x):
    parts = [x[..., i::2, j::2] for j in (0, 1) for i in (0, 1)]
    y = F.pixel_shuffle(m[0](torch.cat(parts, 1)), 2)
    y = F.dropout(y.clone().contiguous(), 0.1, False).float()
    a, b = y[:, :, :, :].split([4, 4], 1)
    y = F.conv_transpose2d(torch.cat([F.normalize(b), a], 1), m[1].weight, None, 2, 1)
    return F.instance_norm(y - y.mean((2, 3), keepdim=True)).roll(1, 3)


NETS = {
    "residual": lambda: Net(
        residual,
        *(conv(3, 8, 3, 2), nn.BatchNorm2d(8), conv(8, 8, 1, 2)),
        *(nn.BatchNorm2d(8), conv(8, 8, 3, 2), nn.BatchNorm2d(8)),
    ),
    "squeeze and excite": lambda: Net(
        squeezed, conv(3, 8, 3, 2), conv(8, 8, 3, 2, groups=8), conv(8, 4, 1), conv(4, 8, 1)
    ),
    "attention": lambda: Net(
        attending,
        *(conv(3, 8, 7, 4), nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 24)),
        *(nn.Linear(8, 16), nn.Linear(16, 8)),
    ),
    "pools": lambda: Net(pooled, conv(3, 8, 3, 2), conv(24, 8)),
    "resized": lambda: Net(resized, conv(3, 8, 3, 2), conv(8, 8, 3, 2), conv(8, 8, 3, 2)),
    "padded": lambda: Net(padded, nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 4, 2)),
    "moved": lambda: Net(moved, conv(12, 32, 3, 2), nn.Conv2d(8, 8, 4)),
}


@pytest.fixture(params=NETS)
def net(request):
    torch.manual_seed(0)
    return NETS[request.param]().eval()


def assert_same(found, wanted):
    for name, estimate in wanted.metrics.items():
        assert found.metrics[name].value == pytest.approx(estimate.value, abs=1e-9), name
    for name, values in wanted.maps.items():
        np.testing.assert_allclose(found.maps[name], values, rtol=1e-9, atol=1e-9)


def test_a_program_has_the_structure_of_its_module(net, tmp_path):
    """As the module of a program and as a file: every map and metric is that of the network."""
    program = torch.export.export(net, (torch.rand(1, 3, SIDE, SIDE),))
    torch.export.save(program, tmp_path / "net.pt2")
    wanted = measure_skeleton(light_copy(net), (3, SIDE, SIDE))
    for module in (program.module(), open_exported(tmp_path / "net.pt2").module):
        assert_same(measure_skeleton(light_copy(module), (3, SIDE, SIDE)), wanted)


def test_a_file_has_the_structure_of_its_module_at_the_target(tmp_path):
    """As a reference of a run, at the target that is chosen for it."""
    net = NETS["residual"]().eval()
    program = torch.export.export(net, (torch.rand(1, 3, SIDE, SIDE),))
    torch.export.save(program, tmp_path / "net.pt2")
    named = {"device": "cpu", "size": (SIDE, SIDE)}
    two = load(str(tmp_path / "net.pt2"), device="cpu"), load(net, **named, target="head")
    found, wanted = (measure_skeleton(m.skeleton(), m.spec.shape) for m in two)
    assert_same(found, wanted)


def test_weights_of_a_program_are_random_ones():
    """Kernels and matrices keep their shape alone; scales become ones."""
    program = torch.export.export(NETS["residual"]().eval(), (torch.rand(1, 3, SIDE, SIDE),))
    found = dict(light_copy(program.module()).named_parameters())
    assert {name: p.is_meta for name, p in found.items() if name.endswith("0.weight")} == {
        "layers.0.weight": True
    }
    assert bool((found["layers.1.weight"] == 1).all())


def test_taps_of_zeros_in_a_program_are_told():
    """A kernel that was pruned has the note that it has in the module."""
    net = NETS["pools"]().eval()
    with torch.no_grad():
        net.head.weight[..., 0, :] = 0
    program = torch.export.export(net, (torch.rand(1, 3, SIDE, SIDE),))
    wanted = measure_skeleton(light_copy(net), (3, SIDE, SIDE)).notes
    found = measure_skeleton(light_copy(program.module()), (3, SIDE, SIDE)).notes
    assert len(found) == len(wanted) > 1


def test_an_operator_without_a_function_is_refused_by_its_name():
    """What is not known is never run as it is."""

    class Largest(nn.Module):
        def forward(self, x):
            return F.adaptive_max_pool2d(x, 4)

    net = nn.Sequential(conv(3, 8), Largest(), conv(8, 8)).eval()
    program = torch.export.export(net, (torch.rand(1, 3, SIDE, SIDE),))
    with pytest.raises(NotApplicableError, match=r"adaptive_max_pool2d\.default"):
        measure_skeleton(light_copy(program.module()), (3, SIDE, SIDE))


def test_a_part_without_gradients_is_refused_and_leaves_them_on():
    """The program of a network with a part under no_grad switches them off by itself."""

    def part(m, x):
        with torch.no_grad():
            share = m[0](x).mean()
        return m[0](x) * share

    program = torch.export.export(Net(part, conv(3, 8)).eval(), (torch.rand(1, 3, SIDE, SIDE),))
    with pytest.raises(NotApplicableError, match="runs without gradients"):
        measure_skeleton(light_copy(program.module()), (3, SIDE, SIDE))
    assert torch.is_grad_enabled()
