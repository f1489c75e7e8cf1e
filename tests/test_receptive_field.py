"""Theoretical receptive fields, coverage, layer table and uneven padding against known answers."""

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from torch import nn
from toy_models import Fork, Gated, Tokens, stack

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.receptive_field import (
    cropping_layers,
    even_sizes,
    layer_table,
    model_receptive_field,
    receptive_field,
    uneven_layers,
)
from perimetry.suites.architecture.windows import LayerWindow


def example(side=224, channels=3):
    return torch.ones(1, channels, side, side)


def timm_field(name):
    model = load(f"timm:{name}@init", device="cpu")
    return receptive_field(model.skeleton(), example(model.spec.height))


def chain(layers):
    """Convolutions (kernel, stride, padding, dilation) one after the other."""
    return nn.Sequential(*(nn.Conv2d(2, 2, k, s, p, dilation=d) for k, s, p, d in layers))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 435),
        ("resnet50", 427),
        ("legacy_seresnet50", 483),  # the stride sits in the first 1 x 1, as in Araujo's ResNet-50
        ("vgg16", 212),
        ("mobilenetv1_100", 315),
        ("inception_v3", 1311),
    ],
)
def test_known_networks_have_their_published_receptive_field(name, size):
    """The receptive fields of six known networks have their published sizes."""
    assert timm_field(name).size == (size, size)


def test_resnet50_looks_from_where_its_strides_and_padding_put_it():
    """ResNet-50 has stride 32, unit (3, 3) centred at pixel (96, 96), and no global path."""
    field = timm_field("resnet50")
    assert field.stride == (32, 32)
    assert field.center((3, 3)) == (96, 96)
    assert not field.global_


@pytest.mark.parametrize(
    ("fill", "more"), [("box", 31), ("fresh", 31), ("kim2023", 31), ("zero", 29)]
)
def test_kernel_padding_widens_the_field_and_moves_its_centre_by_half_of_that(fill, more):
    """ResNet-50: as many pixels as README.md says; `zero` leaves the max-pool."""
    padded = load("timm:resnet50@init", device="cpu").padded(fill)
    field = receptive_field(padded.skeleton(), example())
    assert field.size == (427 + more, 427 + more)
    assert field.center((3, 3)) == (96 + more / 2, 96 + more / 2)


def test_a_models_field_is_traced_once_and_each_copy_has_its_own(monkeypatch):
    """A padded or resized model has its own field, and a second request traces nothing."""
    model = load("timm:test_resnet@init", device="cpu")
    first = model_receptive_field(model)
    padded, larger = model.padded("box"), model.resized(192, 192)
    for variant, side in ((model, model.spec.height), (padded, model.spec.height), (larger, 192)):
        assert model_receptive_field(variant) == receptive_field(variant.skeleton(), example(side))
    assert model_receptive_field(padded).size > first.size
    monkeypatch.setattr(model, "skeleton", None)
    assert model_receptive_field(model).units is first.units


@pytest.mark.parametrize(
    "layers",
    [
        [(3, 1, 0, 1)] * 6,
        [(7, 2, 3, 1), (3, 2, 1, 1), (3, 1, 2, 2), (1, 2, 0, 1)],
        [(5, 3, 0, 1), (3, 1, 1, 3), (4, 4, 0, 1)],
    ],
)
def test_a_chain_follows_the_recursion_from_output_to_input(layers):
    """Size, stride, start and centre of a chain follow the literal recursion over its layers."""
    field = receptive_field(light_copy(chain(layers)), example(160, 2))
    r, stride, pad = reference.receptive_field(layers)
    assert field.size == (r, r)
    assert field.stride == (stride, stride)
    assert field.start == (-pad, -pad)
    assert field.center((2, 1)) == (-pad + 2 * stride + (r - 1) / 2, -pad + stride + (r - 1) / 2)


@pytest.mark.parametrize("module", [chain([(7, 2, 3, 1), (3, 2, 1, 1)]), Fork(), stack(4)])
def test_a_unit_sees_exactly_its_receptive_field(module):
    """The pixels with a gradient at one unit span its receptive field and no more."""
    channels = next(module.parameters()).shape[1]
    field = receptive_field(light_copy(module), example(64, channels))
    x = torch.randn(1, channels, 64, 64, dtype=torch.float64, requires_grad=True)
    unit = (8, 7)
    (gradient,) = torch.autograd.grad(module.double()(x)[0, :, unit[0], unit[1]].sum(), x)
    for axis, other in ((0, 1), (1, 0)):
        seen = np.flatnonzero(gradient[0].abs().sum(0).sum(other).numpy())
        first = field.start[axis] + unit[axis] * field.stride[axis]
        assert (seen[0], seen[-1]) == (first, first + field.size[axis] - 1)


def test_unequal_axes_are_followed_one_by_one():
    """A kernel of 3 x 5 with stride 1 x 2 has its own size, stride and start per axis."""
    field = receptive_field(light_copy(nn.Conv2d(3, 4, (3, 5), (1, 2), (1, 2))), example(32))
    assert (field.size, field.stride, field.start) == ((3, 5), (1, 2), (-1, -2))


@pytest.mark.parametrize("module", [Gated(), Tokens()])
def test_gates_and_attention_make_it_global_and_leave_the_local_path(module):
    """A gate or attention marks the field as global, and its size is that of the local path."""
    field = receptive_field(light_copy(module), example(32))
    first = next(m for m in module.modules() if isinstance(m, nn.Conv2d))
    assert field.global_
    assert field.size == first.kernel_size


def test_a_target_reached_by_global_paths_only_has_no_field():
    """A target without any local path raises NotApplicableError."""

    class Broadcast(nn.Module):
        def forward(self, x):
            return x.mean((2, 3), keepdim=True).expand(-1, -1, 4, 4)

    with pytest.raises(NotApplicableError, match="only global paths"):
        receptive_field(light_copy(Broadcast()), example(32))


def test_padding_and_crops_between_layers_shift_the_units():
    """Padding before and a crop after a layer move the start by their pixels times stride."""

    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, 2)

        def forward(self, x):
            return self.conv(F.pad(x, (2, 0, 1, 0)))[:, :, 1:, 3:]

    field = receptive_field(light_copy(Shifted()), example(32))
    assert field.start == (-1 + 2, -2 + 6)


def test_space_to_depth_counts_as_a_window_of_its_block():
    """A pixel-unshuffle by 4 counts as a window of 4 pixels with stride 4."""
    net = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 8, 3, padding=1))
    field = receptive_field(light_copy(net), example(32))
    assert (field.size, field.stride, field.start) == ((12, 12), (4, 4), (-4, -4))


def test_nearest_upsampling_reads_the_unit_it_repeats():
    """Upsampling by 2 halves the stride and keeps the size; repeated units share a centre."""
    net = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Upsample(scale_factor=2))
    field = receptive_field(light_copy(net), example(32))
    assert field.stride == (2, 2)
    assert field.size == (4, 4)
    assert field.center((4, 5)) == (8 + 1.5, 8 + 1.5)  # units 4 and 5 repeat one


def test_units_at_the_border_of_an_interpolation_have_fields_of_their_own():
    """A bilinear resize by 2 reads one unit at the corner and two elsewhere."""
    net = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Upsample(scale_factor=2, mode="bilinear"))
    field = receptive_field(light_copy(net), example(32))
    assert field.size == (8, 8)
    assert field.at((0, 5)).size == (4, 8)
    assert field.center((0, 5)) == (1.5, 11.5)


@pytest.mark.parametrize("kernel", range(1, 10))
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_coverage_is_counted_window_by_window(kernel, stride, dilation):
    """The coverage by phase equals a count of the windows that touch each pixel."""
    counts = LayerWindow(kernel=kernel, stride=stride, dilation=dilation).coverage()
    assert list(counts) == reference.touches(kernel, stride, dilation)


@pytest.mark.parametrize("size", range(5, 30))
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil"),
    [
        (3, 2, 1, False),
        (7, 2, 3, False),
        (3, 2, 0, True),
        (3, 2, 1, True),
        (2, 2, 0, True),
        (5, 4, 2, False),
    ],
)
def test_windows_fit_as_often_as_torch_says(size, kernel, stride, padding, ceil):
    """The number of windows is the output size of torch's max pool."""
    window = LayerWindow(kernel=kernel, stride=stride, before=padding, after=padding, ceil=ceil)
    out = F.max_pool2d(torch.ones(1, 1, size, size), kernel, stride, padding, ceil_mode=ceil)
    assert window.size(size) == out.shape[-1]


@pytest.mark.parametrize("size", range(16, 32))
def test_the_remainder_counts_the_padded_rows_that_no_window_reads(size):
    """A 7 x 7 stride-4 layer leaves (size - 1) mod 4 rows unread, and is listed if any."""
    layers = layer_table(light_copy(nn.Conv2d(1, 1, 7, 4, 3)), example(size, 1))
    unread = (size + 6 - 7) % 4
    assert [remainder for _, remainder in uneven_layers(layers)] == (
        [(unread, unread)] if unread else []
    )


@pytest.mark.parametrize(
    ("kernel", "padding", "unread", "cropped"),
    [(1, 0, 0, 1), (3, 1, 1, 0), (4, 0, 0, 0), (3, 0, 0, 1), (1, 1, 1, 0), (2, 0, 0, 0)],
)
def test_unread_padding_is_counted_apart_from_unread_pixels(kernel, padding, unread, cropped):
    """A window leaves the padding at the end unread first, and only then units of the map."""
    layers = layer_table(light_copy(nn.Conv2d(1, 1, kernel, 2, padding)), example(32, 1))
    assert len(uneven_layers(layers)) == unread
    assert len(cropping_layers(layers)) == cropped


def test_odd_kernel_resnets_are_even_at_32a_plus_1_and_padded_ones_at_32a():
    """ResNet-50 is even at sizes 32a + 1, its padded model at 32a."""
    model = load("timm:resnet50@init", device="cpu")
    plain = layer_table(model.skeleton(), example())
    padded = layer_table(model.padded("box").skeleton(), example())
    assert even_sizes(plain, (224, 224), (64, 64))[0] == [161, 193, 225, 257]
    assert even_sizes(padded, (224, 224), (64, 64))[0] == [160, 192, 224, 256, 288]
    assert len(uneven_layers(plain)) == 5
    assert len(cropping_layers(plain)) == 3
    assert not uneven_layers(padded)


@pytest.mark.parametrize("size", [93, 97, 100, 128, 129])
def test_even_sizes_agree_with_a_trace_at_that_size(size):
    """A size is called even exactly if a trace at that size has no uneven layer."""
    net = light_copy(
        nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.MaxPool2d(3, 2, 1), nn.Conv2d(2, 2, 3))
    )
    said = size in even_sizes(layer_table(net, example(112, 1)), (112, 112), (32, 32))[0]
    assert said == (not uneven_layers(layer_table(net, example(size, 1))))


def test_same_padding_is_seen_on_both_sides_and_is_never_uneven():
    """TensorFlow's padding appears as (0, 0) before and (1, 1) after, and no layer is uneven."""
    model = load("timm:tf_efficientnet_lite0@init", device="cpu")
    layers = layer_table(model.skeleton(), example())
    stem = layers[0].row()
    assert (stem["padding_before"], stem["padding_after"]) == ((0, 0), (1, 1))
    assert stem["input"] == (224, 224)
    assert not uneven_layers(layers)


def test_the_layer_table_names_layers_in_execution_order_with_functional_pools():
    """The layer table lists modules and functional pools in order, with their geometry."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3, 2, 1)
            self.second = nn.Sequential(nn.Conv2d(4, 4, 3, dilation=2, groups=2))

        def forward(self, x):
            return self.second(F.max_pool2d(self.first(x), 3, 2))

    first, pool, second = (layer.row() for layer in layer_table(light_copy(Net()), example(32)))
    assert (first["name"], first["kind"], first["output"]) == ("first", "conv2d", (16, 16))
    assert (pool["name"], pool["kind"], pool["kernel"], pool["stride"]) == (
        "",
        "max_pool2d",
        (3, 3),
        (2, 2),
    )
    assert (second["name"], second["groups"], second["dilation"]) == ("second.0", 2, (2, 2))
    assert first["coverage"] == ((2, 1), (2, 1))
