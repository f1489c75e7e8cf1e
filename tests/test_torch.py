"""The torch adapter: targets, guards, weights left alone, refused inputs."""

import copy

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from perimetry.adapters.device import pick_device
from perimetry.adapters.errors import InputError, NotApplicableError, UnknownNameError
from perimetry.adapters.feature_grid import Grid, find_grid
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.batch_norm_fix import contiguous_norm_gradients
from perimetry.adapters.pytorch.model import wrap
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.adapters.pytorch.weights import set_scales_to_one
from perimetry.adapters.treatment import PaddingOptions
from perimetry.suites.deadpixel.suite import DEADPIXEL
from perimetry.suites.measuring.gradients import gradient_maps

SPEC = InputSpec(32, 48)


class TokenNorm(nn.Module):
    """Batch norm over a token grid: what makes torch's input gradient wrong at batch 1."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.norm = nn.BatchNorm2d(16)
        self.norm.running_var.uniform_(0.5, 2)
        self.mix = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16))

    def forward(self, x):
        grid = self.norm(self.patch(x))
        tokens = self.mix(grid.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).reshape(grid.shape)


def norm_gradients(batch_gradient):
    """Input gradients of one batch norm for the same incoming gradient, strided and contiguous."""
    torch.manual_seed(0)
    x = torch.randn(1, 16, 7, 7, requires_grad=True)
    y = F.batch_norm(x, torch.randn(16), torch.rand(16) + 0.5, None, None, False, 0.0, 1e-5)
    return torch.autograd.grad(y, x, batch_gradient)[0]


def strided_gradient():
    return torch.randn(1, 49, 16, generator=torch.Generator().manual_seed(1)).transpose(1, 2)


def test_the_guard_makes_a_norms_input_gradient_independent_of_strides():
    """A strided incoming gradient gives the same as its contiguous copy."""
    strided = strided_gradient().reshape(1, 16, 7, 7)
    assert not strided.is_contiguous()
    right = norm_gradients(strided.contiguous())
    with contiguous_norm_gradients(torch.zeros(1, requires_grad=True)):
        torch.testing.assert_close(norm_gradients(strided), right)


def test_gradients_at_batch_one_match_a_directional_derivative():
    """Autograd and a central difference agree to 1e-6 in float64."""
    module = TokenNorm().double().eval()
    model = wrap(module, spec=SPEC)
    x = torch.randn(1, 3, 32, 48, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 16, 8, 12, dtype=torch.float64)
    target = model.run(x).target
    (gradient,) = torch.autograd.grad((target * weight).sum(), x)
    step = 1e-5 * torch.randn_like(x)
    with torch.no_grad():
        up, down = ((module(x + s) * weight).sum() for s in (step, -step))
    measured = float(up - down) / 2
    assert float((gradient * step).sum()) == pytest.approx(measured, rel=1e-6)


class FoldedNorm(nn.Module):
    """A batch norm of each image by itself, which is folded into the channels (as in AdaIN)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)

    def forward(self, x):
        x = self.conv(x)
        alone = F.batch_norm(x.reshape(1, -1, *x.shape[2:]), None, None, training=True)
        return self.last(alone.view(x.shape))


def test_images_folded_into_the_channels_have_the_gradients_of_a_norm_written_out():
    """In channels-last order the guard itself made them wrong, by 0.7 of their length."""
    module = FoldedNorm().double().eval().to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    with contiguous_norm_gradients(x):
        found = module(x)
    y = module.conv(x)
    variance, mean = torch.var_mean(y, (2, 3), correction=0, keepdim=True)
    right = module.last((y - mean) / (variance + 1e-5).sqrt())
    weight = torch.randn(found.shape, dtype=torch.float64)
    one, other = (torch.autograd.grad((out * weight).sum(), x)[0] for out in (found, right))
    torch.testing.assert_close(one, other)


def test_the_guard_also_holds_through_the_shared_pass():
    """Maps at batch sizes 1 and 4 are equal to 1e-4."""
    model = wrap(TokenNorm(), spec=SPEC)
    images = torch.rand(4, 3, 32, 48)
    probes = DEADPIXEL.probes(model, "energy", 0)
    one, four = (gradient_maps(model, images, probes, batch=b).maps for b in (1, 4))
    np.testing.assert_allclose(one["deadpixel/energy"], four["deadpixel/energy"], rtol=1e-4)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 64, 4, 6), ("NCHW", 64, 4, 6, 0)),
        ((1, 4, 6, 64), ("NHWC", 64, 4, 6, 0)),
        ((1, 24, 64), ("NLC", 64, 4, 6, 0)),
        ((1, 25, 64), ("NLC", 64, 4, 6, 1)),
        ((1, 29, 64), ("NLC", 64, 4, 6, 5)),
        ((1, 64, 24), ("NCL", 64, 4, 6, 0)),
        ((1, 64), None),
        ((1, 64, 1, 1), None),
        ((1, 64, 4, 19), None),
    ],
)
def test_a_grid_of_units_is_told_by_its_shape(shape, expected):
    """Layout, size and extra tokens follow from the shape; some shapes are no grid."""
    grid = find_grid("x", torch.zeros(shape), (128, 192))
    found = grid and (grid.kind, grid.channels, grid.height, grid.width, grid.prefix)
    assert found == expected


@pytest.mark.parametrize("kind", ["NCHW", "NHWC", "NLC", "NCL"])
def test_every_layout_reads_as_the_same_grid(kind):
    """`Grid.read` gives (batch, channels, height, width) for all four layouts."""
    truth = torch.arange(2 * 5 * 3 * 4.0).reshape(2, 5, 3, 4)
    tokens = truth.flatten(2).transpose(1, 2)
    extra = torch.cat([torch.zeros(2, 1, 5), tokens], 1)
    raw = {
        "NCHW": truth,
        "NHWC": truth.permute(0, 2, 3, 1),
        "NLC": extra,
        "NCL": extra.transpose(1, 2),
    }[kind]
    prefix = 1 if kind in ("NLC", "NCL") else 0
    assert torch.equal(Grid("x", kind, 5, 3, 4, prefix).read(raw), truth)


def classifier(channels=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, 2, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 7),
    )


def test_the_last_spatial_map_before_pooling_is_the_target():
    """The target of the classifier is layer 2, with 16 channels and 8 x 12 units."""
    model = wrap(classifier(), spec=SPEC)
    assert model.target == Grid("2", "NCHW", 16, 8, 12)
    outputs = model.run(torch.randn(2, 3, 32, 48), logits=True)
    assert outputs.target.shape == (2, 16, 8, 12)
    assert outputs.logits.shape == (2, 7)


def test_without_logits_the_pass_stops_at_the_target():
    """A pass without logits does not reach a head that would raise."""
    module = classifier()
    module[-1] = nn.Linear(99, 7)  # would raise if it were reached
    model = load(module, spec=SPEC, target="2")
    assert model.run(torch.randn(1, 3, 32, 48)).target.shape == (1, 16, 8, 12)


def test_a_named_layer_becomes_the_target_and_an_unknown_one_is_answered_with_near_names():
    """A layer without spatial axes raises NotApplicableError."""
    assert wrap(classifier(), spec=SPEC, target="0").target.height == 16
    with pytest.raises(UnknownNameError, match=r"'conv'.*0, 1, 2, 3, 4, 5"):
        wrap(classifier(), spec=SPEC, target="conv")
    with pytest.raises(NotApplicableError):
        wrap(classifier(), spec=SPEC, target="5")


def test_the_users_module_is_never_touched():
    """Mode, gradients, hooks and parameters of the user's module are as before."""
    module = classifier().train()
    before = copy.deepcopy(module.state_dict())
    model = wrap(module, spec=SPEC)
    model.select(0, torch.randn(2, 3, 32, 48))
    model.run(torch.randn(1, 3, 32, 48, requires_grad=True), logits=True)
    assert module.training
    assert all(p.requires_grad for p in module.parameters())
    assert not any(m._forward_hooks for m in module.modules())
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_no_hook_is_left_behind_when_a_pass_breaks():
    """After an error no module has a forward hook."""
    model = wrap(classifier(), spec=SPEC)
    with pytest.raises(RuntimeError):
        model.run(torch.randn(1, 5, 32, 48))
    assert not any(m._forward_hooks for m in model.module().modules())


def test_a_network_without_a_spatial_map_says_so():
    """A network without a spatial map has logits, and no target, with the reason."""
    model = wrap(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 48, 5)), spec=SPEC)
    assert model.target is None
    assert "no layer gives a grid" in model.why_not_spatial
    with pytest.raises(NotApplicableError):
        model.run(torch.randn(1, 3, 32, 48))
    assert model.run(torch.randn(2, 3, 32, 48), target=False, logits=True).logits.shape == (2, 5)


def test_a_one_channel_network_sees_the_mean_of_the_colours():
    """Its input is guessed as one channel, with a note."""
    model = wrap(classifier(channels=1))
    assert model.spec.channels == 1
    assert "input guessed" in model.notes[0]
    images = torch.rand(2, 3, 224, 224)
    assert torch.allclose(model.spec.prepare(images), images.mean(1, keepdim=True))


def test_an_input_size_the_model_refuses_is_named():
    """A size that the model does not take is an InputError with channels and size."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(10, 5))
    with pytest.raises(InputError, match="3 x 32 x 48"):
        wrap(module, spec=SPEC)


def test_images_of_the_wrong_shape_are_named():
    """An image without a batch axis is an InputError."""
    with pytest.raises(InputError, match=r"\(batch, 3, height, width\)"):
        SPEC.prepare(torch.zeros(3, 32, 48))


def test_a_device_that_is_not_there_is_named():
    """A device that torch does not know is an InputError."""
    with pytest.raises(InputError, match="warp-drive"):
        pick_device("warp-drive")


def test_a_light_copy_keeps_shapes_and_drops_weights():
    """Weights are on the meta device, norm scales are 1, the original is unchanged."""
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(4, 2))
    nn.init.zeros_(module[1].weight)
    light = light_copy(module)
    assert light[0].weight.is_meta
    assert light[2].weight.is_meta
    assert light[0].weight.shape == module[0].weight.shape
    assert torch.equal(light[1].weight, torch.ones(8))
    assert not module[0].weight.is_meta


def test_scales_become_one_and_biases_and_weights_stay():
    """Norm and layer scales are 1; convolution weights are as before."""
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    module[1].register_parameter("gain", nn.Parameter(torch.tensor(0.0)))
    nn.init.zeros_(module[1].weight)
    before = module[0].weight.clone()
    set_scales_to_one(module)
    assert torch.equal(module[1].weight, torch.ones(8))
    assert module[1].gain == 1
    assert torch.equal(module[1].bias, torch.zeros(8))
    assert torch.equal(module[0].weight, before)


def trained_net():
    """Two strided convolutions with norms whose statistics are those of no image at hand."""
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU()),
    )
    for norm in (module[1], module[4]):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.1, 2)
        nn.init.uniform_(norm.weight)
    return module


def test_the_norms_of_a_recalibrated_model_have_the_originals_output_moments_on_all_images():
    """Mean and variance of each norm's outputs are the original's, norm after norm."""
    model = wrap(trained_net(), spec=SPEC, device="cpu")
    x = torch.rand(9, 3, 32, 48)
    variant, plain = model.padded("box", PaddingOptions(recalibrate=True)), model.padded("box")
    for one in (model, variant, plain):
        one.select(0, x)
    for end in (2, 5):
        (a, b, c) = (one.module()[:end](x) for one in (model, variant, plain))
        for moment in (torch.mean, torch.var):
            torch.testing.assert_close(moment(b, (0, 2, 3)), moment(a, (0, 2, 3)))
        assert not torch.allclose(c.var((0, 2, 3)), a.var((0, 2, 3)), rtol=0.1)
    assert any("re-estimated" in note for note in variant.notes)


def test_recalibrating_what_was_not_treated_changes_nothing():
    """Where the fill found nothing to grow, statistics stay as trained, whatever the images."""
    module = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.BatchNorm2d(4), nn.ReLU())
    module[1].running_mean.uniform_(-1, 1)
    model = wrap(module, spec=SPEC, device="cpu")
    variant = model.padded("box", PaddingOptions(recalibrate=True))
    variant.select(0, torch.rand(5, 3, 32, 48))
    for name in ("running_mean", "running_var"):
        ours, theirs = (getattr(one.module()[1], name) for one in (variant, model))
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_a_channel_that_is_constant_is_moved_and_not_scaled():
    """A dead channel neither divides by zero nor loses its variance."""
    module = trained_net()
    with torch.no_grad():
        module[0].weight[1] = 0
    model = wrap(module, spec=SPEC, device="cpu")
    variant = model.padded("box", PaddingOptions(recalibrate=True))
    variant.select(0, torch.rand(5, 3, 32, 48))
    assert variant.module()[1].running_var[1] == pytest.approx(float(module[1].running_var[1]))
    assert all(p.isfinite().all() for p in variant.module().buffers())


def test_each_weight_set_is_recalibrated_to_its_own_original():
    """The padded initial state has the moments of the original of the same seed."""
    model = load("timm:test_resnet@init", device="cpu", members=2)
    variant = model.padded("box", PaddingOptions(recalibrate=True))
    x = torch.rand(6, 3, 160, 160)
    means = []
    for member in (1, 0):
        variant.select(member, x)
        model.select(member, x)
        stems = [nn.Sequential(one.module().conv1, one.module().bn1) for one in (model, variant)]
        ours, theirs = (stem(x).mean((0, 2, 3)) for stem in stems)
        torch.testing.assert_close(theirs, ours)
        means.append(ours)
    assert not torch.allclose(*means, rtol=0.1)


def test_norms_are_calibrated_once_for_the_same_images(monkeypatch):
    """Equal images do not calibrate a second time, other images do."""
    passes = []
    monkeypatch.setattr(
        "perimetry.adapters.pytorch.model.calibrate_norms", lambda module, x: passes.append(len(x))
    )
    model = load("timm:test_resnet@init", device="cpu", members=1)
    x = torch.rand(6, 3, 160, 160)
    model.select(0, x)
    model.select(0, x.clone())
    assert passes == [4]
    model.select(0, x + 1)
    assert passes == [4, 4]


def test_a_light_copy_keeps_fixed_filters_and_survives_buffers_that_need_weights():
    """BlurPool's filter is made again off `meta`; Swin v2's tables, made of weights, are zeros."""
    for name in ("resnetblur18", "swinv2_tiny_window8_256"):
        with torch.device("meta"):
            module = timm.create_model(name)
        buffers = dict(light_copy(module).named_buffers())
        assert not any(b.is_meta for b in buffers.values())
        if name == "resnetblur18":
            assert float(buffers["maxpool.1.filt"].sum()) == 64
