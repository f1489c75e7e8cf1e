"""Exchanged borders: every convention against literal indices, and what may not change by it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx_files import model as graph
from onnx_files import node, save, weights
from padding_tools import slow_conv
from torch import nn

from perimetry.adapters.errors import InputError, NotApplicableError
from perimetry.adapters.export import export_onnx
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.padding_mode import PADDING_MODES
from perimetry.adapters.pytorch.model import wrap
from perimetry.adapters.pytorch.weights import module_tensors_digest

SPEC = InputSpec(13, 16)


def images(height=13, width=16, count=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, height, width, generator=generator, dtype=torch.float64)


def place(i, n, border):
    """Which of n entries stands at place i, inside or beyond the border."""
    if border == "circular":
        return i % n
    if border == "replicate":
        return min(max(i, 0), n - 1)
    return -i if i < 0 else 2 * (n - 1) - i if i >= n else i


def continued(x, pads, border):
    """x (batch, channels, rows, columns) beyond its borders; pads: top, bottom, left, right."""
    top, bottom, left, right = pads
    rows = [place(i, x.shape[2], border) for i in range(-top, x.shape[2] + bottom)]
    columns = [place(j, x.shape[3], border) for j in range(-left, x.shape[3] + right)]
    return x[:, :, rows][:, :, :, columns]


class Same(nn.Module):
    """TF-SAME as timm writes it: padding computed from the size, by hand, before the layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2)

    def forward(self, x):
        pads = [max((-(-n // 2) - 1) * 2 + 3 - n, 0) for n in x.shape[2:]]
        x = F.pad(x, (pads[1] // 2, pads[1] - pads[1] // 2, pads[0] // 2, pads[0] - pads[0] // 2))
        return F.conv2d(x, self.conv.weight, self.conv.bias, 2)


CONVOLUTIONS = {
    "plain": (lambda: nn.Conv2d(3, 4, 3, 1, 1), (1, 1, 1, 1)),
    "strided": (lambda: nn.Conv2d(3, 4, 5, 2, 2), (2, 2, 2, 2)),
    "unlike axes": (lambda: nn.Conv2d(3, 4, (3, 5), 1, (1, 2)), (1, 1, 2, 2)),
    "dilated": (lambda: nn.Conv2d(3, 4, 3, 1, 2, dilation=2), (2, 2, 2, 2)),
    "groups": (lambda: nn.Conv2d(3, 6, 3, 1, 1, groups=3, bias=False), (1, 1, 1, 1)),
    "same, even kernel": (lambda: nn.Conv2d(3, 4, 4, padding="same"), (1, 2, 1, 2)),
    "by hand": (
        lambda: nn.Sequential(nn.ZeroPad2d((2, 0, 1, 0)), nn.Conv2d(3, 4, 3)),
        (1, 0, 2, 0),
    ),
    "by hand and own": (
        lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, 2, 1)),
        (1, 2, 1, 2),
    ),
    "TF-SAME": (Same, (1, 1, 0, 1)),
}


def opened(make, spec=SPEC, **options):
    torch.manual_seed(0)
    return wrap(make(), spec=spec, device="cpu", precision="float64", **options)


def literal(module, x, pads, border):
    """The module's convolution, tap by tap, over the continued input."""
    (conv,) = (m for m in module.modules() if isinstance(m, nn.Conv2d))
    stride = 2 if isinstance(module, Same) else conv.stride[0]
    x = continued(x, pads, border)
    extent = [d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    counts = [(n - e) // stride + 1 for n, e in zip(x.shape[2:], extent, strict=True)]
    return slow_conv(
        x, conv.weight, conv.bias, stride, (0, 0), counts, conv.dilation[0], conv.groups
    )


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("border", PADDING_MODES)
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_reads_what_the_border_puts_beyond_its_input(case, border):
    """Equal to a literal convolution of the continued image, to 1e-10."""
    make, pads = CONVOLUTIONS[case]
    model = opened(make)
    variant = model.with_padding_mode(border)
    expected = literal(model.module(), images(), pads, border)
    torch.testing.assert_close(variant.run(images()).target, expected, rtol=1e-10, atol=1e-12)
    assert variant.notes[-1] == f"{border} padding in 1 layer"


@pytest.mark.parametrize("border", PADDING_MODES)
@pytest.mark.parametrize(
    ("pool", "reduce"),
    [
        (nn.MaxPool2d(3, 2, 1), lambda w: w.amax((-2, -1))),
        (nn.AvgPool2d(3, 2, 1), lambda w: w.mean((-2, -1))),
        (nn.AvgPool2d(3, 2, 1, count_include_pad=False), lambda w: w.mean((-2, -1))),
        (nn.AvgPool2d(3, 2, 1, divisor_override=5), lambda w: w.sum((-2, -1)) / 5),
    ],
)
def test_a_pool_reads_what_the_border_puts_beyond_its_input(pool, reduce, border):
    """A pool with an exchanged border equals one over the windows of the continued image."""
    x = continued(images(), (1, 1, 1, 1), border)
    expected = reduce(x.unfold(2, 3, 2).unfold(3, 3, 2))
    variant = opened(lambda: nn.Sequential(pool)).with_padding_mode(border)
    torch.testing.assert_close(variant.run(images()).target, expected)


def deep():
    """Convolutions, a max-pool and a mean-pool, total stride 8."""
    layers = [nn.Conv2d(3, 6, 7, 2, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    layers += [nn.Conv2d(6, 6, 3, 1, 1), nn.ReLU(), nn.Conv2d(6, 4, 3, 2, 1)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("fill", ["none", "box", "fresh"])
def test_circular_borders_make_a_network_exactly_shift_equivariant(fill):
    """A shift by one stride shifts the target; with zeros it does not."""
    model = opened(deep, InputSpec(48, 48))
    model = model if fill == "none" else model.padded(fill)
    x = images(48, 48)
    variant = model.with_padding_mode("circular")
    moved = variant.run(x.roll((8, 16), (2, 3))).target
    torch.testing.assert_close(
        moved, variant.run(x).target.roll((1, 2), (2, 3)), rtol=0, atol=1e-12
    )
    plain = model.run(x.roll((8, 16), (2, 3))).target
    assert (plain - model.run(x).target.roll((1, 2), (2, 3))).abs().max() > 1e-2


@pytest.mark.parametrize("border", PADDING_MODES)
def test_far_from_every_border_nothing_changes(border):
    """Two pixels from the border the targets are equal, at the border they differ."""
    model = opened(lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 1, 1)))
    variant = model.with_padding_mode(border).run(images()).target
    plain = model.run(images()).target
    torch.testing.assert_close(variant[..., 2:-2, 2:-2], plain[..., 2:-2, 2:-2])
    assert (variant - plain)[..., 0].abs().min() > 0


@pytest.mark.parametrize("border", PADDING_MODES)
def test_a_plain_image_stays_plain(border):
    """All modes give an even target for an even image; zeros do not."""
    model = opened(deep, InputSpec(48, 48))
    out = model.with_padding_mode(border).run(model.spec.blank().double()).target
    torch.testing.assert_close(out, out[..., :1, :1].expand_as(out), rtol=1e-12, atol=1e-12)
    plain = model.run(model.spec.blank().double()).target
    assert (plain - plain[..., :1, :1]).abs().max() > 1e-3


def test_the_model_itself_is_not_altered():
    """Target, parameters, notes, hooks and padding modes are as before."""
    model = opened(deep, InputSpec(48, 48))
    before, digest = model.run(images(48, 48)).target, module_tensors_digest(model.module())
    notes = list(model.notes)
    for border in PADDING_MODES:
        model.with_padding_mode(border).run(images(48, 48))
    torch.testing.assert_close(model.run(images(48, 48)).target, before, rtol=0, atol=0)
    assert module_tensors_digest(model.module()) == digest
    assert model.notes == notes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module().modules())
    assert {m.padding_mode for m in model.module().modules() if isinstance(m, nn.Conv2d)} == {
        "zeros"
    }


def test_gradients_reach_the_image_through_exchanged_borders():
    """With circular padding each pixel gets the same gradient."""
    x = images().requires_grad_()
    opened(lambda: nn.Conv2d(3, 4, 3, 1, 1)).with_padding_mode("circular").run(
        x
    ).target.sum().backward()
    # Every pixel is read by as many windows as every other.
    torch.testing.assert_close(x.grad, x.grad[..., :1, :1].expand_as(x))


def test_padding_that_is_no_zeros_is_the_networks_own_and_stays():
    """A layer with reflect padding is left as it is."""
    model = opened(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, 1, 1, padding_mode="reflect"), nn.Conv2d(4, 4, 3, 1, 1)
        )
    )
    variant = model.with_padding_mode("circular")
    assert variant.notes[-1] == "circular padding in 1 layer"
    expected = model.module()[1]
    first = model.module()[0](images())
    padded = continued(first, (1, 1, 1, 1), "circular")
    want = F.conv2d(padded, expected.weight, expected.bias)
    torch.testing.assert_close(variant.run(images()).target, want)


LEFT = {
    "too small to reflect": (
        nn.Conv2d(4, 4, 31, 1, 15),
        "reflect",
        "input of 13 x 16 is too small",
    ),
    "too small to wrap": (nn.Conv2d(4, 4, 29, 1, 14), "circular", "continue by 14 x 14"),
    "rounds up": (nn.MaxPool2d(3, 2, 1, ceil_mode=True), "reflect", "rounds its number of windows"),
}


@pytest.mark.parametrize("case", LEFT)
def test_a_layer_that_cannot_be_continued_keeps_its_padding_and_is_named(case):
    """A layer that cannot be continued keeps its padding, with a note of the reason."""
    layer, border, reason = LEFT[case]
    model = opened(lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(), layer))
    variant = model.with_padding_mode(border)
    assert any(f"{border} padding: 2 keeps its padding" in n and reason in n for n in variant.notes)
    inner = opened(lambda: nn.Conv2d(3, 4, 3, 1, 1)).with_padding_mode(border).run(images()).target
    torch.testing.assert_close(variant.run(images()).target, layer.double()(inner.relu()))


def test_an_unknown_border_is_refused_with_the_known_ones():
    """An unknown border is an InputError with the list of modes."""
    with pytest.raises(InputError, match=r"'mirror'.*reflect, replicate"):
        opened(deep, InputSpec(48, 48)).with_padding_mode("mirror")


def test_a_network_that_pads_nothing_has_no_border_to_exchange():
    """A network without padding raises NotApplicableError."""
    with pytest.raises(NotApplicableError):
        opened(lambda: nn.Conv2d(3, 4, 4, 4)).with_padding_mode("reflect")


def onnx_pair(folder, module, size=(48, 48), fill="none"):
    """The same network as an ONNX file and as a module."""
    path = folder / "model.onnx"
    export_onnx(module.eval(), torch.zeros(2, 3, *size), path, spec=InputSpec(*size))
    file = load(str(path), device="cpu")
    other = wrap(module, spec=InputSpec(*size), device="cpu")
    return (file, other) if fill == "none" else (file.padded(fill), other.padded(fill))


@pytest.mark.parametrize("fill", ["none", "box"])
@pytest.mark.parametrize("border", PADDING_MODES)
def test_the_onnx_file_gives_what_the_torch_module_gives(tmp_path, border, fill):
    """Targets and notes of both are equal, with and without kernel padding."""
    torch.manual_seed(0)
    file, module = onnx_pair(tmp_path, deep(), fill=fill)
    x = images(48, 48).float()
    ours, theirs = module.with_padding_mode(border), file.with_padding_mode(border)
    torch.testing.assert_close(theirs.run(x).target, ours.run(x).target, rtol=1e-4, atol=1e-5)
    assert theirs.notes[-1] == ours.notes[-1] == f"{border} padding in 4 layers"


@pytest.mark.parametrize("channels", [4, 5])
@pytest.mark.parametrize("border", PADDING_MODES)
def test_the_padding_of_a_transposed_convolution_is_none_to_exchange(tmp_path, border, channels):
    """It crops the output: only the layer before and the one behind read what the border puts."""
    torch.manual_seed(0)
    transposed = nn.ConvTranspose2d(4, channels, 4, 2, 1)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), transposed, nn.Conv2d(channels, 2, 3, 4, 1))
    file, module = (m.with_padding_mode(border) for m in onnx_pair(tmp_path, net))
    x = images(48, 48).float()
    first, last = (layer for layer in net if isinstance(layer, nn.Conv2d))
    middle = F.conv2d(continued(x, (1, 1, 1, 1), border), first.weight, first.bias)
    whole = F.conv_transpose2d(middle, transposed.weight, transposed.bias, 2)
    cropped = whole[..., 1:-1, 1:-1]
    expected = F.conv2d(continued(cropped, (1, 1, 1, 1), border), last.weight, last.bias, 4)
    for variant in (module, file):
        torch.testing.assert_close(variant.run(x).target, expected, rtol=1e-4, atol=1e-5)
        assert variant.notes[-1] == f"{border} padding in 2 layers"


def test_a_mean_under_kernel_padding_keeps_its_padding_in_both_adapters(tmp_path):
    """Both say why, agree, and keep an even image even."""
    torch.manual_seed(0)
    pool = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), pool, nn.Conv2d(4, 4, 3, 1, 1))
    file, module = onnx_pair(tmp_path, net, fill="box")
    x = images(48, 48).float()
    ours, theirs = module.with_padding_mode("reflect"), file.with_padding_mode("reflect")
    assert any("divisor follows its zero padding" in note for note in ours.notes)
    assert any("divisor follows its zero padding" in note for note in theirs.notes)
    torch.testing.assert_close(theirs.run(x).target, ours.run(x).target, rtol=1e-4, atol=1e-5)
    # A plain image is still plain: the mean never counted the rows beyond its border.
    out = ours.run(module.spec.blank()).target
    torch.testing.assert_close(out, out[..., :1, :1].expand_as(out), rtol=1e-4, atol=1e-5)


def test_the_onnx_model_itself_is_not_altered(tmp_path):
    """Target and graph of the original file are as before, bit for bit."""
    file, _ = onnx_pair(tmp_path, deep())
    before, data = file.run(images(48, 48).float()).target, file.graph.SerializeToString()
    for border in PADDING_MODES:
        file.with_padding_mode(border)
    torch.testing.assert_close(file.run(images(48, 48).float()).target, before, rtol=0, atol=0)
    assert file.graph.SerializeToString() == data


def small_graph(opset, **attributes):
    nodes = [node("Conv", ["image", "w"], ["map"], **attributes)]
    return graph(
        nodes, {"w": weights(4, 3, 3, 3)}, dims=[1, 3, 13, 16], outputs=["map"], opset=opset
    )


@pytest.mark.parametrize("border", PADDING_MODES)
@pytest.mark.parametrize(
    ("attributes", "pads", "stride"),
    [
        ({"pads": [0, 0, 2, 1]}, (0, 2, 0, 1), 1),
        ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (1, 1, 0, 1), 2),
        ({"auto_pad": "SAME_LOWER", "strides": [2, 2]}, (1, 1, 1, 0), 2),
    ],
)
@pytest.mark.parametrize("opset", [9, 20])
def test_every_way_an_onnx_layer_states_its_padding_is_exchanged(
    tmp_path, opset, attributes, pads, stride, border
):
    """Explicit amounts and both SAME modes are exchanged in two opsets."""
    proto = small_graph(opset, **attributes)
    file = load(save(proto, tmp_path / "m.onnx"), device="cpu", spec=SPEC)
    x = images(count=1)
    want = F.conv2d(
        continued(x, pads, border), torch.tensor(weights(4, 3, 3, 3)).double(), None, stride
    )
    got = file.with_padding_mode(border).run(x.float()).target
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_padding_by_hand_in_an_onnx_file_is_exchanged_with_the_layers_own(tmp_path):
    """A Pad node and the amounts of the layer are continued together."""
    nodes = [
        node("Pad", ["image", "amounts"], ["padded"]),
        node("Conv", ["padded", "w"], ["map"], pads=[1, 0, 0, 0]),
    ]
    constants = {"w": weights(4, 3, 3, 3), "amounts": np.array([0, 0, 0, 1, 0, 0, 1, 0])}
    proto = graph(nodes, constants, dims=[1, 3, 13, 16], outputs=["map"])
    file = load(save(proto, tmp_path / "m.onnx"), device="cpu", spec=SPEC)
    x = images(count=1)
    padded = continued(x, (1, 1, 1, 0), "reflect")
    want = F.conv2d(padded, torch.tensor(weights(4, 3, 3, 3)).double())
    np.testing.assert_allclose(
        file.with_padding_mode("reflect").run(x.float()).target, want, atol=1e-4
    )


def test_an_onnx_file_says_why_a_layer_keeps_its_padding_and_when_none_pads(tmp_path):
    """A pool with ceil_mode is named; an unpadded file is an error."""
    nodes = [
        node("Conv", ["image", "w"], ["c"], pads=[1, 1, 1, 1]),
        node(
            "MaxPool",
            ["c"],
            ["map"],
            kernel_shape=[3, 3],
            pads=[1] * 4,
            strides=[2, 2],
            ceil_mode=1,
        ),
    ]
    proto = graph(nodes, {"w": weights(4, 3, 3, 3)}, dims=[1, 3, 13, 16], outputs=["map"])
    variant = load(save(proto, tmp_path / "m.onnx"), device="cpu", spec=SPEC).with_padding_mode(
        "reflect"
    )
    assert any(
        "map keeps its padding: it rounds its number of windows up" in n for n in variant.notes
    )
    bare = load(save(small_graph(20), tmp_path / "n.onnx"), device="cpu", spec=SPEC)
    with pytest.raises(NotApplicableError):
        bare.with_padding_mode("reflect")
    with pytest.raises(InputError, match="unknown padding mode"):
        bare.with_padding_mode("zeros")
