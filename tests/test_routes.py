"""A module, its exported program and its ONNX files have one target: its grid, stride and field."""

import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from perimetry import audit
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.pytorch.model import wrap

SIZE = (32, 32)
SPEC = InputSpec(*SIZE)


def conv(into, out, stride=1, side=3):
    return nn.Conv2d(into, out, side, stride, side // 2)


class Call(nn.Module):
    """Calls a function of a map, of the layers `parts` if there are any."""

    def __init__(self, function, *parts):
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x):
        return self.function(x, *self.parts)


def between(*steps, into=16):
    """The steps between two layers of stride 2: the target is the last of them, 8 x 8 units."""
    return nn.Sequential(conv(3, 16, 2), *steps, conv(into, 16, 2))


def shuffled(x):
    return x.view(x.shape[0], 8, 2, 16, 16).transpose(1, 2).reshape(x.shape[0], 16, 16, 16)


def split(x):
    return x.view(x.shape[0], 8, 2, 16, 16)


def flat_and_back(x):
    return torch.tanh(x.flatten(1)).view(x.shape[0], 16, 16, 16)


def tokens_and_back(x, norm):
    tokens = norm(x.flatten(2).transpose(1, 2))
    return tokens.transpose(1, 2).reshape(x.shape[0], 16, 16, 16)


def neighbours(x):
    return F.unfold(x, 3, padding=1).view(x.shape[0], 16, 9, 16, 16)


def involution(x, kernels):
    return (neighbours(x) * kernels(x).unsqueeze(1)).sum(2)


def carafe(x, kernels):
    """Every unit weighs its neighbours by kernels that add up to one."""
    return (neighbours(x) * kernels(x).softmax(1).unsqueeze(1)).sum(2)


def attended(query, keys, values):
    """Attention of one head."""
    weights = (query @ keys.transpose(-2, -1) / 4).softmax(-1)
    return weights @ values


def pyramid_attention(x, reduce, queries, keys):
    """Keys and values from a map that a layer has made coarser, as PVT has them."""
    q = queries(x.flatten(2).transpose(1, 2))
    k, v = keys(reduce(x).flatten(2).transpose(1, 2)).chunk(2, -1)
    return x + attended(q, k, v).transpose(1, 2).reshape(x.shape[0], 16, 16, 16)


def halo(x, queries, keys):
    """Blocks of 8 x 8 units that attend to themselves and two units around them."""
    q = queries(x).view(x.shape[0], 16, 2, 8, 2, 8).permute(0, 2, 4, 3, 5, 1).reshape(-1, 64, 16)
    around = F.unfold(keys(x), 12, stride=8, padding=2).view(x.shape[0], 32, 144, 4)
    k, v = around.permute(0, 3, 2, 1).reshape(-1, 144, 32).chunk(2, -1)
    blocks = attended(q, k, v).view(x.shape[0], 2, 2, 8, 8, 16)
    return blocks.permute(0, 5, 1, 3, 2, 4).reshape(x.shape[0], 16, 16, 16)


def near(x, queries, keys):
    """Attention of each unit to its nine neighbours."""
    logits = (neighbours(keys(x)) * queries(x).unsqueeze(2)).sum(1, keepdim=True)
    return (logits.softmax(2) * neighbours(x)).sum(2)


def squeezed(x, first, second):
    return x * torch.sigmoid(second(torch.relu(first(x.mean((2, 3), keepdim=True)))))


def residual(x, first, norm, second):
    return x + second(torch.relu(norm(first(x))))


def of_channels(x, norm):
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


one_to_one = partial(conv, 16, 16, 1, 1)

NETS = {
    "channel shuffle": lambda: between(Call(shuffled)),
    "maxout": lambda: between(Call(lambda x: split(x).amax(2)), into=8),
    "largest of two": lambda: between(Call(lambda x: split(x).max(2)[0]), into=8),
    "mean of two": lambda: between(Call(lambda x: split(x).mean(2)), into=8),
    "five axes and back": lambda: between(Call(lambda x: split(x).view(x.shape[0], 16, 16, 16))),
    "unflatten": lambda: between(Call(lambda x: x.unflatten(1, (8, 2)).sum(2)), into=8),
    "flat and back": lambda: between(Call(flat_and_back)),
    "tokens and back": lambda: between(Call(tokens_and_back, nn.LayerNorm(16))),
    "unfold": lambda: between(Call(lambda x: neighbours(x).sum(2))),
    "involution": lambda: between(Call(involution, conv(16, 9, 1, 1))),
    "CARAFE": lambda: between(Call(carafe, conv(16, 9))),
    "PVT": lambda: between(
        Call(pyramid_attention, nn.Conv2d(16, 16, 4, 4), nn.Linear(16, 16), nn.Linear(16, 32))
    ),
    "halo": lambda: between(Call(halo, one_to_one(), conv(16, 32, 1, 1))),
    "neighbourhoods": lambda: between(Call(near, one_to_one(), one_to_one())),
    "pixel shuffle": lambda: between(nn.PixelUnshuffle(2), nn.PixelShuffle(2)),
    "squeeze": lambda: between(Call(squeezed, nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1))),
    "residual": lambda: between(
        Call(residual, conv(16, 16), nn.BatchNorm2d(16), conv(16, 16)), nn.ReLU6()
    ),
    "one group": lambda: between(nn.GroupNorm(1, 16)),
    "four groups": lambda: between(nn.GroupNorm(4, 16)),
    "one group, GELU": lambda: between(nn.GELU(), nn.GroupNorm(1, 16), nn.Hardswish()),
    "one group in a skip": lambda: between(
        Call(residual, conv(16, 16), nn.GroupNorm(1, 16), conv(16, 16))
    ),
    "one group last": lambda: nn.Sequential(between(), nn.GroupNorm(1, 16)),
    "as many channels as rows": lambda: nn.Sequential(conv(3, 16, 2), nn.GroupNorm(1, 16)),
    "layer norm of a map": lambda: between(nn.LayerNorm((16, 16, 16))),
    "layer norm of channels": lambda: between(Call(of_channels, nn.LayerNorm(16))),
    "instance norm": lambda: between(nn.InstanceNorm2d(16, affine=True)),
}


def made(name):
    """The network of a name, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return NETS[name]().eval()


def program(name, path, *, dynamic=True, decomposed=False):
    """The model that a file of `torch.export` is."""
    batch = ({0: torch.export.Dim("batch", min=1, max=64)},) if dynamic else None
    exported = torch.export.export(made(name), (torch.rand(2, 3, *SIZE),), dynamic_shapes=batch)
    if decomposed:
        exported = exported.run_decompositions()
    torch.export.save(exported, path.with_suffix(".pt2"))
    return load(str(path.with_suffix(".pt2")), device="cpu", size=SIZE)


def graph(name, path, *, opset, dynamo=False):
    """The model that an ONNX file is."""
    path = path.with_suffix(".onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"verbose": False} if dynamo else {}
        x = torch.rand(1, 3, *SIZE)
        torch.onnx.export(made(name), (x,), path, dynamo=dynamo, opset_version=opset, **options)
    return open_onnx(path, device="cpu", spec=SPEC)


def seen(model):
    """The grid of a model's target."""
    grid = model.target
    return grid.kind, grid.channels, grid.height, grid.width, grid.choice


def found(model):
    """The grid of a model's target, its stride and the field of its units."""
    (record,) = audit(model, ("structure",), ("none",), device="cpu")
    assert record.status == "ok", (record.reason, record.error)
    return *seen(model), *(record.metrics[n].value for n in ("target_stride", "receptive_field"))


@pytest.fixture(scope="module")
def expected():
    """What the modules have, by name."""
    known = {}

    def of(name):
        if name not in known:
            known[name] = found(wrap(made(name), spec=SPEC, device="cpu"))
        return known[name]

    return of


@pytest.mark.parametrize("name", NETS)
def test_the_target_of_a_module_is_its_last_layer(name, expected):
    """None of the steps before it hides what follows, so that every route has to find it."""
    _, channels, *size, _, stride, _ = expected(name)
    units = 16 if name == "as many channels as rows" else 8
    assert (channels, *size, stride) == (16, units, units, 32 // units)


@pytest.mark.parametrize("name", NETS)
def test_a_program_has_the_target_of_its_module(name, expected, tmp_path):
    """Its operators are read as the functions that they are."""
    assert found(program(name, tmp_path / "net")) == expected(name)


FEW = ("channel shuffle", "tokens and back", "unfold", "PVT", "residual", "one group")


@pytest.mark.parametrize("how", [{"dynamic": False}, {"decomposed": True}], ids=["fixed", "core"])
@pytest.mark.parametrize("name", FEW)
def test_a_program_of_one_batch_or_of_core_operators_has_the_same_target(
    name, how, expected, tmp_path
):
    """`aten.native_group_norm`, `aten.convolution` and other core operators have names too."""
    assert seen(program(name, tmp_path / "net", **how)) == expected(name)[:-2]


@pytest.mark.parametrize("name", NETS)
def test_a_graph_has_the_target_of_its_module(name, expected, tmp_path):
    """A norm of one group is written with a view of one row for each image."""
    assert found(graph(name, tmp_path / "net", opset=17)) == expected(name)


@pytest.mark.parametrize(
    ("name", "opset"), [("one group", 18), ("one group last", 21), ("PVT", 18)]
)
def test_a_graph_of_the_other_exporter_has_the_target_of_its_module(
    name, opset, expected, tmp_path
):
    """Whether it has an operator for norms of groups or writes them out."""
    assert found(graph(name, tmp_path / "net", opset=opset, dynamo=True)) == expected(name)


@pytest.mark.parametrize("name", ["one group", "layer norm of a map", "layer norm of channels"])
def test_a_graph_of_an_early_opset_has_the_target_of_its_module(name, expected, tmp_path):
    """It writes out a norm of layers."""
    assert found(graph(name, tmp_path / "net", opset=13)) == expected(name)
