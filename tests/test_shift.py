"""Worst shifts: strides and circular padding, adaptive polyphase sampling, planted classes."""

import numpy as np
import pytest
import torch
from onnx_files import convnet, save
from test_opaque import unknown
from torch import nn

from perimetry import audit
from perimetry.adapters.errors import InputError, NotApplicableError
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.base import Context
from perimetry.suites.images import open_images
from perimetry.suites.shift.moves import QUARTERS, fourier_shift, moves_within
from perimetry.suites.shift.suite import SHIFT, Shift

GREY = InputSpec(32, 32, channels=1, mean=(0.0,), std=(1.0,))


def opened(module, spec=GREY):
    torch.manual_seed(0)
    return wrap(module.eval(), spec=spec, device="cpu", precision="float64")


def measured(model, count=6, images=None, **settings):
    spec = model.spec

    def sized(height, width):
        from dataclasses import replace

        return open_images("dead-leaves", count).load(replace(spec, height=height, width=width))

    images = sized(spec.height, spec.width) if images is None else images
    context = Context(images, draws=50, batch=5, sized=sized)
    return Shift(**settings).measure(model, "worst", {}, context)


def values(found):
    return {name: one.value for name, one in found.metrics.items()}


def strided(padding_mode="circular", classes=True):
    """Two strided convolutions of total stride 4 and, with `classes`, a mean and a classifier."""
    torch.manual_seed(1)
    body = [
        nn.Conv2d(1, 8, 3, 2, 1, padding_mode=padding_mode),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1, padding_mode=padding_mode),
    ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)] if classes else []
    return nn.Sequential(*body, *head)


class Polyphase(nn.Module):
    """Adaptive polyphase sampling (Chaman and Dokmanic): the phase of the largest norm is kept."""

    def forward(self, x):
        phases = torch.stack([x[..., a::2, b::2] for a in (0, 1) for b in (0, 1)], 1)
        best = phases.flatten(2).norm(dim=2).argmax(1)
        return phases[torch.arange(len(x)), best]


def polyphase_net():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 1, 1, padding_mode="circular"),
        Polyphase(),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 1, 1, padding_mode="circular"),
        Polyphase(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def test_circular_padding_and_shifts_by_the_stride_give_zero():
    """The map moves along exactly; zero padding does not, and neither does a crop."""
    circular = values(measured(opened(strided("circular"))))
    zero = values(measured(opened(strided("zeros"))))
    assert circular["error_circular"] < 1e-12
    assert circular["worst_error_circular"] < 1e-12
    assert zero["error_circular"] > 0.01
    assert zero["worst_error_circular"] >= zero["error_circular"]
    assert circular["error_crop"] > 0.01


def test_adaptive_polyphase_sampling_keeps_every_class():
    """Under all circular shifts of the cell all images keep their class; strided layers do not."""
    kept = measured(opened(polyphase_net()), cell=4)
    assert values(kept)["worst_circular"] == 1
    assert values(kept)["same_circular"] == 1
    aliased = nn.Sequential(strided(classes=False), nn.Flatten(), nn.Linear(8 * 64, 5))
    assert values(measured(opened(aliased)))["worst_circular"] < 1


class FirstPixel(nn.Module):
    """Two classes: the sign of the pixel at the upper left of an image."""

    def __init__(self):
        super().__init__()
        self.cell = nn.Conv2d(1, 1, 2, 2, bias=False)
        with torch.no_grad():
            self.cell.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))

    def forward(self, x):
        first = self.cell(x)[:, :, 0, 0]
        return torch.cat([first, -first], 1)


def test_shares_are_those_of_loops_over_images_and_shifts():
    """Classes by the sign of one pixel: each share is counted pixel by pixel."""
    images = torch.randn(20, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    model = opened(FirstPixel())
    found = values(measured(model, count=20, images=images.expand(-1, 3, -1, -1)))
    same, worst = [], []
    for image in images[:, 0]:
        kept = [bool((image[-a, -b] > 0) == (image[0, 0] > 0)) for a, b in ((0, 1), (1, 0), (1, 1))]
        same.append(sum(kept) / 3)
        worst.append(all(kept))
    assert found["same_circular"] == pytest.approx(np.mean(same))
    assert found["worst_circular"] == pytest.approx(np.mean(worst))


def test_crops_compare_the_pixels_that_both_have():
    """A convolution without padding moves along with crops exactly, and its class may change."""
    module = nn.Conv2d(1, 4, 3, 1, 1)
    inner = nn.Sequential(module, nn.ZeroPad2d(-1))
    spec = InputSpec(32, 32, channels=1, mean=(0.0,), std=(1.0,))
    found = values(measured(opened(module, spec), cell=3))
    assert found["error_crop"] > 1e-3
    cut = measured(opened(inner, spec), cell=3)
    assert values(cut)["error_crop"] == pytest.approx(
        0, abs=1e-9
    )  # 30 of 32 units, none of padding


@pytest.mark.parametrize(("side", "padding"), [(32, 0), (33, 0), (31, 1)])
def test_a_map_that_does_not_fill_the_image_is_compared_by_crops_alone(side, padding):
    """Without padding the units of a crop are those of the image; with it they differ by a sum."""
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, padding), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, padding)
    )
    module.double().requires_grad_(False)
    spec = InputSpec(side, side, channels=1, mean=(0.0,), std=(1.0,))
    large = open_images("dead-leaves", 2).load(InputSpec(side + 4, side + 4, crop_pct=1.0))
    model, images = opened(module, spec), large[:, :, :side, :side]
    context = Context(images, draws=50, batch=5, sized=lambda *_: large)
    found = SHIFT.measure(model, "worst", {}, context).metrics
    whole = large.double().mean(1, keepdim=True)
    above = below = 0.0
    for down, right in ((0, 1), (1, 0), (1, 1)):
        top, left = 4 * down, 4 * right
        f, moved = (
            module(x)
            for x in (
                whole[..., :side, :side],
                whole[..., top : top + side, left : left + side],
            )
        )
        expected = f[..., down:, right:]
        got = moved[..., : f.shape[2] - down, : f.shape[3] - right]
        above += float((got - expected).abs().sum())
        below += float(expected.abs().sum())
    assert found["error_crop"].value == pytest.approx(above / below, abs=1e-5)
    assert (above < 1e-4) == (padding == 0)
    assert found["error_circular"].reason
    assert found["error_fraction"].reason


def test_the_error_of_a_map_is_the_sum_of_loops():
    """Sums over shifts and images of |f(Sx) - Sf(x)| and |f(x)|, computed with torch alone."""
    module = nn.Conv2d(1, 2, 3, 1, 1).requires_grad_(False)
    model = opened(module)
    found = values(measured(model, count=3, cell=2))
    x = open_images("dead-leaves", 3).load(GREY).mean(1, keepdim=True).double()
    error = size = 0.0
    worst = []
    for image in x:
        ratios = []
        f = module.double()(image[None])
        for a, b in ((0, 1), (1, 0), (1, 1)):
            got, wanted = module(image.roll((a, b), (1, 2))[None]), f.roll((a, b), (2, 3))
            error += float((got - wanted).abs().sum())
            size += float(f.abs().sum())
            ratios.append(float((got - wanted).abs().sum() / f.abs().sum()))
        worst.append(max(ratios))
    assert found["error_circular"] == pytest.approx(error / size, rel=1e-6)
    assert found["worst_error_circular"] == pytest.approx(np.mean(worst), rel=1e-6)


def test_fractional_shifts_are_those_of_a_cosine():
    """A cosine of whole periods is moved exactly, and whole shifts are rolls."""
    place = torch.arange(16, dtype=torch.float64)
    wave = torch.cos(2 * torch.pi * 3 * place / 16)[:, None].expand(16, 12)
    moved = torch.cos(2 * torch.pi * 3 * (place - 0.25) / 16)[:, None].expand(16, 12)
    torch.testing.assert_close(fourier_shift(wave, (0.25, 0.5)), moved)
    noise = torch.randn(3, 16, 12, dtype=torch.float64)
    torch.testing.assert_close(fourier_shift(noise, (3, -2)), noise.roll((3, -2), (1, 2)))


def test_a_linear_map_of_stride_1_moves_by_fractions_and_an_aliasing_one_does_not():
    """Circular convolutions commute with fractional shifts; sub-sampled ones alias."""
    smooth = nn.Conv2d(1, 2, 3, 1, 1, padding_mode="circular", bias=False)
    found = values(measured(opened(smooth), cell=2))
    assert found["error_fraction"] < 0.02  # the Nyquist frequency of an even side alone
    assert values(measured(opened(strided("circular"))))["error_fraction"] > 0.05


def test_the_moves_are_all_of_the_cell_or_a_seeded_sample():
    """All multiples of the step but no move at all; of the cell itself where the step is one."""
    assert len(moves_within((4, 4), (1, 1), 99, 0)) == 15
    assert moves_within((4, 2), (2, 1), 99, 0) == [(0, 1), (2, 0), (2, 1)]
    assert moves_within((8, 8), (8, 8), 99, 0) == [(0, 8), (8, 0), (8, 8)]
    some = moves_within((32, 32), (1, 1), 24, 5)
    assert len(set(some)) == 24
    assert some == moves_within((32, 32), (1, 1), 24, 5)
    assert some != moves_within((32, 32), (1, 1), 24, 6)
    assert (0.25, 0.75) in QUARTERS
    assert len(QUARTERS) == 15


def test_models_without_logits_or_maps_have_reasons_for_those_metrics():
    """A map alone has no shares, logits alone no errors, and neither is skipped."""
    found = measured(opened(strided(classes=False)))
    assert "no logits" in found.metrics["worst_crop"].reason
    flat = nn.Sequential(nn.Flatten(), nn.Linear(1024, 3))
    found = measured(opened(flat))
    assert found.metrics["error_circular"].reason
    assert values(found)["same_circular"] is not None
    assert SHIFT.skip(opened(nn.Flatten()), "worst") is None
    assert SHIFT.skip(opened(nn.Sequential(nn.Flatten(), nn.Unflatten(1, (1, 1024)))), "worst")


def test_logits_that_name_no_class_are_missing_with_a_reason():
    """Equal logits for all images say nothing, and agree with nothing."""

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 2, 2)

        def forward(self, x):
            return self.conv(x).mean((2, 3)) * 0 + torch.tensor([1.0, 2.0])

    assert "same for all images" in measured(opened(Constant())).metrics["same_crop"].reason


def test_crops_that_are_not_to_be_had_are_missing_and_the_rest_is_measured():
    """Images of one size leave out crops, with the reason."""
    images = open_images("dead-leaves", 4).load(GREY)
    found = Shift().measure(opened(strided()), "worst", {}, Context(images, draws=20))
    assert found.metrics["worst_crop"].reason == found.metrics["error_crop"].reason
    assert found.metrics["worst_circular"].value is not None


@pytest.mark.parametrize("make", [convnet, unknown], ids=["file", "black box"])
def test_files_are_measured_by_forward_passes_alone(tmp_path, make):
    """ONNX files, one with an operator that has no rule, have shares and errors."""
    found = measured(load(save(make(), tmp_path / "m.onnx"), device="cpu"), count=4)
    assert 0 <= values(found)["worst_circular"] <= values(found)["same_circular"] <= 1
    assert values(found)["error_circular"] > 0


def test_weight_sets_are_samples():
    """Of four initial states shares and errors are means over states."""
    model = load("timm:test_resnet@init", device="cpu", members=4)
    found = measured(model, count=4, shifts=3)
    assert found.metrics["same_circular"].low is not None
    assert values(found)["error_circular"] > 0


def test_on_trained_weights_the_worst_shift_changes_more_than_the_mean():
    """EfficientNet-Lite0 (trained): fewer images keep their class under all shifts."""
    import trained_weights

    model = load(f"timm:tf_efficientnet_lite0@{trained_weights.LITE0}", device="cpu")
    found = values(measured(model, count=4, shifts=6))
    assert found["worst_circular"] < found["same_circular"]
    assert found["error_circular"] > 0.05


@pytest.mark.parametrize("settings", [{"shifts": 0}, {"cell": 0}])
def test_settings_out_of_range_are_refused(settings):
    """A cell or number of shifts below 1 is an `InputError`."""
    with pytest.raises(InputError):
        Shift(**settings)


def test_the_suite_runs_in_an_audit():
    """An audit records every metric, crops of larger images included."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )
    (record,) = audit(opened(module, InputSpec(32, 32)), ("shift",), count=6, device="cpu")
    assert record.status == "ok", record.error
    assert set(record.metrics) == {metric.name for metric in SHIFT.metrics}
    assert record.metrics["worst_crop"].value is not None


def test_a_cell_larger_than_the_image_is_refused_with_the_sizes():
    """There is no shift within it; the reason names both sizes."""
    with pytest.raises(NotApplicableError) as caught:
        measured(opened(nn.Conv2d(1, 4, 3)), cell=33)
    assert "33" in str(caught.value)
    assert "32 x 32" in str(caught.value)
