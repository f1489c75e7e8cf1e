"""Small objects: planted gains of phases, sub-sampling networks, response curves by loops."""

import numpy as np
import pytest
import torch
from onnx_files import convnet, save
from test_opaque import unknown
from torch import nn

from perimetry import audit
from perimetry.adapters.errors import InputError
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.base import Context
from perimetry.suites.images import open_images
from perimetry.suites.objects.layout import Layout, with_boxes
from perimetry.suites.objects.responses import half_size
from perimetry.suites.objects.suite import OBJECTS, Objects

GREY = InputSpec(32, 32, channels=1, mean=(0.0,), std=(1.0,))
GAINS = ((1.0, 0.4), (2.0, 0.6))


def opened(module, spec=GREY):
    return wrap(module.eval(), spec=spec, device="cpu", precision="float64")


def measured(model, images=None, count=6, protocol="boxes", **settings):
    images = open_images("dead-leaves", count).load(model.spec) if images is None else images
    context = Context(images, draws=50, batch=7)
    return Objects(**settings).measure(model, protocol, {}, context)


def values(found):
    return {name: one.value for name, one in found.metrics.items()}


def plain(count=4, side=32, level=0.25):
    return torch.full((count, 3, side, side), level)


class Sum(nn.Module):
    """Two logits, plus and minus the sum of pixels times the gain of their phase."""

    def __init__(self, gains=GAINS):
        super().__init__()
        table = torch.tensor(gains)
        self.cell = nn.Conv2d(1, 1, table.shape, table.shape, bias=False)
        with torch.no_grad():
            self.cell.weight[0, 0] = table

    def forward(self, x):
        total = self.cell(x).sum((2, 3))
        return torch.cat([total, -total], 1)


def test_a_linear_network_answers_by_the_gains_that_a_box_covers():
    """On plain images a box of one pixel has the gain of its phase, of 2 and 4 those of all."""
    found = measured(opened(Sum()), plain(), sizes=(1, 2, 4))
    gains = np.array(GAINS)
    response = found.maps["response"]
    np.testing.assert_allclose(response[0].reshape(2, 2), gains / (4 * gains.sum()))
    np.testing.assert_allclose(response[1], 1 / 4)
    np.testing.assert_allclose(response[2], 1)
    assert values(found)["phase_weakest"] == pytest.approx(gains.min() / gains.mean())
    assert values(found)["phase_spread"] == pytest.approx(gains.std() / gains.mean())
    assert values(found)["half_size"] == pytest.approx(2 * 2 ** (1 / 3))
    assert values(found)["smallest_size"] == 2  # at 1 the least is 0.025
    worst = found.tables["response"][0]
    assert (worst["worst_row"], worst["worst_column"]) == (0, 1)


def test_a_network_that_reads_every_fourth_pixel_misses_small_boxes():
    """One of 16 phases sees a box of one pixel; boxes of the stride are seen at all phases."""
    found = measured(opened(nn.Conv2d(1, 1, 1, 4)), plain(), sizes=(1, 2, 4, 8))
    assert (found.maps["response"][0] > 1e-9).sum() == 1
    assert values(found)["phase_weakest"] == 0
    assert values(found)["smallest_size"] == 4


def test_kernel_padding_answers_at_every_phase():
    """An even kernel of the stride's size sees single pixels alike, wherever they lie."""
    module = nn.Conv2d(1, 1, 4, 4)
    nn.init.ones_(module.weight)
    found = measured(opened(module), plain(), sizes=(1, 2, 4, 8))
    assert values(found)["phase_weakest"] == pytest.approx(1)
    assert values(found)["phase_spread"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("kind", ["logits", "map"])
def test_the_response_is_that_of_loops_over_images_boxes_and_outputs(kind):
    """Projections of logits, norms of maps, computed box by box with torch alone."""
    torch.manual_seed(0)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5)] if kind == "logits" else []
    module = nn.Sequential(nn.Conv2d(1, 3, 3, 2, 1), nn.Tanh(), *head).double().eval()
    module.requires_grad_(False)
    model = opened(module)
    images = open_images("dead-leaves", 3).load(GREY)
    found = measured(model, images, sizes=(2, 6))
    above, below = np.zeros((2, 4)), 0.0
    for image in images.double():
        covered = image[:, 16:23, 16:23]
        changes = np.zeros((2, 4), dtype=object)
        for k, size in enumerate((2, 6)):
            for p, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
                other = image.clone()
                for c in range(3):
                    box = other[c, 16 + row : 16 + row + size, 16 + column : 16 + column + size]
                    box.fill_(1.0 if covered[c].mean() < 0.5 else 0.0)
                pair = [module(one.mean(0)[None, None]).flatten() for one in (other, image)]
                changes[k, p] = (pair[0] - pair[1]).numpy()
        if kind == "map":
            for place in np.ndindex(2, 4):
                changes[place] = np.array([np.sqrt((changes[place] ** 2).sum())])
        whole = sum(changes[1]) / 4
        below += (whole**2).sum()
        for place in np.ndindex(2, 4):
            above[place] += (changes[place] * whole).sum()
    np.testing.assert_allclose(found.maps["response"], above / below, rtol=1e-5)


def test_boxes_have_the_colour_that_stands_out_in_each_channel():
    """On red grey images the box is black in red and white in green and blue."""
    image = torch.full((3, 16, 16), 0.2)
    image[0] = 0.9
    found = with_boxes(image, Layout((2, 3), ((0, 0), (0, 1)), (8, 8), (2, 2)))
    assert len(found) == 5
    torch.testing.assert_close(found[0], image)
    assert found[4][:, 8, 9].tolist() == [0, 1, 1]
    assert int((found[4] != image).any(0).sum()) == 9


@pytest.mark.parametrize(
    ("curve", "size"),
    [
        ([0.0, 0.25, 1.0], 2 * 2 ** (1 / 3)),
        ([0.6, 0.8, 1.0], 1),
        ([0.7, 0.4, 1.0], 2 * 2 ** (1 / 6)),
        ([0.1, 0.2, 0.3], 4),
    ],
)
def test_the_half_size_is_where_the_curve_reaches_a_half_for_good(curve, size):
    """Interpolated in the logarithm of the size; the ends of the list where it does not cross."""
    assert half_size(np.array([1, 2, 4]), np.array(curve)) == pytest.approx(size)


def test_many_phases_are_a_seeded_sample():
    """Sixteen of 1,024 phases, the same for the same seed."""
    model = opened(nn.Conv2d(1, 1, 32, 32), InputSpec(96, 96, channels=1, mean=(0.0,), std=(1.0,)))
    first, second = (measured(model, count=2, sizes=(1, 8), phases=5) for _ in range(2))
    assert first.maps["response"].shape == (2, 5)
    np.testing.assert_array_equal(first.maps["response"], second.maps["response"])


def test_what_cannot_be_measured_has_a_reason():
    """An answer that no box changes, a stride of 1, a small box without a response."""
    dead = nn.Conv2d(1, 2, 2, 2)
    nn.init.zeros_(dead.weight)
    assert "does not change" in measured(opened(dead)).metrics["half_size"].reason
    one = measured(opened(nn.Conv2d(1, 2, 3, 1, 1)), count=4)
    assert "no phases" in one.metrics["phase_weakest"].reason
    assert values(one)["half_size"] > 1
    blind = measured(opened(Sum(((0.0, 0.0), (0.0, 0.0001)))), plain(), sizes=(1, 8), phases=3)
    assert blind.metrics["phase_weakest"].reason or blind.metrics["phase_weakest"].value == 0


@pytest.mark.parametrize("make", [convnet, unknown], ids=["file", "black box"])
def test_files_are_measured_by_forward_passes_alone(tmp_path, make):
    """ONNX files, one with an operator that has no rule, have a response curve."""
    found = measured(load(save(make(), tmp_path / "m.onnx"), device="cpu"), count=4)
    assert values(found)["half_size"] >= 1
    assert found.maps["response"][-1].mean() == pytest.approx(1)


def test_weight_sets_are_samples_of_equal_weight():
    """Of four initial states the curve has an interval over states."""
    model = load("timm:test_resnet@init", device="cpu", members=4)
    found = measured(model, count=4, sizes=(4, 16, 32), phases=4)
    assert found.metrics["half_size"].low < found.metrics["half_size"].high
    assert found.maps["response"][-1].mean() == pytest.approx(1)


def test_on_trained_weights_small_boxes_are_seen_less_than_large_ones():
    """EfficientNet-Lite0 (trained): 4 pixels have under a tenth of the response to 32."""
    import trained_weights

    model = load(f"timm:tf_efficientnet_lite0@{trained_weights.LITE0}", device="cpu")
    found = measured(model, count=4, sizes=(4, 32), phases=3)
    assert found.maps["response"][0].mean() < 0.1


@pytest.mark.parametrize(
    "settings",
    [{"phases": 0}, {"images": 0}, {"answered": 1}, {"sizes": (4,)}, {"sizes": (0, 2)}],
)
def test_settings_out_of_range_are_refused(settings):
    """Numbers below 1, a share of 1 and a single size are `InputError`s."""
    with pytest.raises(InputError):
        Objects(**settings)


def test_a_box_that_does_not_fit_is_refused():
    """A box of 20 pixels from the centre of 32 on leaves the image: `InputError`."""
    with pytest.raises(InputError, match="16 pixels"):
        measured(opened(Sum()), sizes=(1, 20))


def test_the_suite_runs_in_an_audit():
    """An audit records every metric and the curve."""
    model = opened(nn.Conv2d(3, 4, 3, 2, 1), InputSpec(32, 32))
    (record,) = audit(model, ("objects",), count=4, device="cpu")
    assert record.status == "ok", record.error
    assert set(record.metrics) == {metric.name for metric in OBJECTS.metrics}
    assert record.tables["response"]
