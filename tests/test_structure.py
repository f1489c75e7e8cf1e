"""The structure suite: metrics, tables and reasons, on toys and on real architectures."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toy_models import Branches, Gated, Tokens

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.model import wrap
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map
from perimetry.suites.base import Context
from perimetry.suites.measuring.phases import WEAKEST_IS_ZERO
from perimetry.suites.structure import STRUCTURE, measure_skeleton


def measure(module, size=(3, 96, 96)):
    return measure_skeleton(light_copy(module.eval()), size)


def resnet(fill="none"):
    model = load("timm:resnet50@init", device="cpu")
    return model if fill == "none" else model.padded(fill)


def audit(model):
    return STRUCTURE.measure(model, "expected", {}, Context(torch.empty(0)))


def values(found):
    return {name: e.value for name, e in found.metrics.items() if e.value is not None}


@pytest.mark.parametrize(
    ("kernel", "weakest"), [(1, 0.0), (2, 1.0), (3, 1 / 2.25), (4, 1.0), (7, 9 / 12.25)]
)
def test_a_single_strided_convolution_has_the_known_weakest_phase(kernel, weakest):
    """A stride-2 convolution has its smallest coverage over its mean as weakest phase."""
    found = values(measure(nn.Conv2d(3, 4, kernel, 2, kernel // 2)))
    assert found["weakest"] == pytest.approx(weakest, abs=1e-12)
    assert found["coverage"] == pytest.approx(weakest, abs=1e-12)


def test_a_phase_without_any_path_leaves_the_ratio_unbounded_and_says_so():
    """A phase that no path reads has sensitivity 0, and the ratios are missing for that reason."""
    found = measure(nn.Conv2d(3, 4, 1, 2))
    for name in ("ratio", "path_ratio"):
        assert WEAKEST_IS_ZERO in found.metrics[name].reason


def test_every_declared_metric_has_a_value_or_a_reason_and_lies_in_range():
    """Each declared metric has a value in its range, or a reason why it is missing."""
    for module in (Branches(), Gated(), Tokens(), nn.Conv2d(3, 4, 3, 1, 1)):
        found = measure(module)
        assert set(found.metrics) == {metric.name for metric in STRUCTURE.metrics}
        for metric in STRUCTURE.metrics:
            value, reason = found.metrics[metric.name].value, found.metrics[metric.name].reason
            assert (value is None) == bool(reason), metric.name
            if value is not None:
                assert metric.low is None or value >= metric.low
                assert metric.high is None or value <= metric.high


def test_nothing_is_estimated():
    """No metric of the structure suite has an interval."""
    for estimate in measure(Branches()).metrics.values():
        assert estimate.low is None
        assert estimate.high is None


def test_the_same_architecture_gives_the_same_numbers_bit_for_bit():
    """Two measurements of one architecture are equal bit by bit."""
    first, second = measure(Branches()), measure(Branches())
    np.testing.assert_array_equal(first.maps["sensitivity"], second.maps["sensitivity"])
    assert values(first) == values(second)


def test_a_target_of_stride_one_has_no_phases():
    """At stride 1 weakest phase and coverage are missing with their reasons."""
    found = measure(nn.Conv2d(3, 4, 3, 1, 1))
    assert "stride 1" in found.metrics["weakest"].reason
    assert "no layer has a stride" in found.metrics["coverage"].reason


def test_the_period_is_the_stride_even_where_missing_padding_shrinks_the_grid():
    """The period is the product of strides, 16, not image over grid, 18."""
    net = nn.Sequential(*(nn.Conv2d(3 if i == 0 else 4, 4, 3, 2) for i in range(4)))
    found = measure(net, (3, 160, 160))
    assert found.metrics["target_stride"].value == 16  # the grid, 9 x 9, would say 18
    assert found.maps["phase_profile"].shape == (16, 16)


def test_a_lowered_period_is_noted():
    """A stride of 16 on 64 pixels lowers the period to 8, with a note."""
    found = measure(nn.Sequential(nn.Conv2d(3, 4, 3, 4, 1), nn.Conv2d(4, 4, 3, 4, 1)), (3, 64, 64))
    assert found.maps["phase_profile"].shape == (8, 8)
    assert any("period lowered from (16, 16) to (8, 8)" in note for note in found.notes)


def test_shares_of_the_periods_sum_to_the_squared_imbalance():
    """The variances in the table by period sum to the squared imbalance."""
    found = measure(Branches(), (3, 128, 128))
    shares = [row["variance"] for row in found.tables["by_period"]]
    assert sum(shares) == pytest.approx(found.metrics["imbalance"].value ** 2)


def test_culprits_are_the_uneven_layers_sorted_by_what_padding_each_would_help():
    """The culprits are the two odd kernels, sorted by how much padding each would help."""
    net = nn.Sequential(nn.Conv2d(3, 8, 2, 2), nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 7, 2, 3))
    found = measure(net, (3, 128, 128))
    rows = found.tables["culprits"]
    assert [row["name"] for row in rows] == ["1", "2"]
    assert rows[0]["reduction"] > rows[1]["reduction"] > 0
    for row in rows:
        total = row["imbalance_padded"] + row["reduction"]
        assert total == pytest.approx(found.metrics["imbalance"].value)


def test_a_culprit_is_as_even_as_the_network_with_that_layer_really_padded():
    """The imbalance predicted for a padded layer is that of the network so padded."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
    predicted = measure(net, (3, 96, 96)).tables["culprits"][0]["imbalance_padded"]
    treated = wrap(net, spec=InputSpec(96, 96), device="cpu").padded("box")
    assert audit(treated).metrics["imbalance"].value == pytest.approx(predicted, abs=1e-9)


def test_a_module_that_takes_one_image_at_a_time_has_the_same_structure():
    """Maps of padded layers are then computed in one pass each."""

    class Single(nn.Sequential):
        def forward(self, x):
            if len(x) != 1:
                raise ValueError
            return super().forward(x)

    layers = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
    found, single = (
        measure_skeleton(light_copy(kind(*layers)), (3, 32, 32)) for kind in (nn.Sequential, Single)
    )
    assert single.metrics == found.metrics
    assert single.tables["culprits"] == found.tables["culprits"] != []


def test_even_kernels_have_no_culprits_and_need_no_even_sizes():
    """Kernels that are multiples of their stride have no culprit and no imbalance."""
    found = measure(nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 4, 2, 2)))
    assert found.tables["culprits"] == []
    assert found.metrics["imbalance"].value < 1e-12
    assert found.metrics["uneven_layers"].value == 0


def test_resnet50_has_its_known_structure():
    """ResNet-50 has its known field, path ratio, uneven layers and even sizes."""
    found = audit(resnet())
    known = values(found)
    assert known["receptive_field"] == known["receptive_field_columns"] == 427
    assert known["path_ratio"] == pytest.approx(2.25, abs=0.02)  # stem and pool: 36 over 16
    assert known["by_period_2"] ** 0.5 == pytest.approx(0.201, abs=0.005)
    assert known["uneven_layers"] == 5  # stem, pool and three 3 x 3
    assert known["cropping_layers"] == 3  # the 1 x 1 shortcuts of stride 2 have no padding
    assert known["largest_remainder"] == 1
    assert found.tables["culprits"][0]["name"] == "conv1"
    assert {row["size"] for row in found.tables["even_sizes"]} == {161, 193, 225, 257}


def test_zero_padding_evens_what_the_architecture_allows_once_the_new_taps_learn():
    """Padding ResNet-50 with `zero` brings imbalance below 0.005 and path ratio below 1.05."""
    before, after = audit(resnet()), audit(resnet("zero"))
    assert after.metrics["imbalance"].value < 0.005 < before.metrics["imbalance"].value
    assert after.metrics["path_ratio"].value < 1.05 < before.metrics["path_ratio"].value


def test_box_padding_evens_the_expected_sensitivity():
    """Box padding of ResNet-50 leaves an imbalance below 0.002 and no culprit."""
    found = audit(resnet("box"))
    assert found.metrics["imbalance"].value < 0.002
    assert found.metrics["receptive_field"].value == 427 + 31
    assert found.tables["culprits"] == []


def test_path_counts_that_exceed_float64_are_declared_rounded():
    """A note says that path counts are rounded only where float64 cannot store them."""
    exact = measure(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)))
    deep = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(20)))
    assert not any("path counts" in note for note in exact.notes)
    assert (exact.maps["path_count"] % 1 == 0).all()
    assert any("path counts" in note for note in measure(deep).notes)


def test_a_model_without_a_grid_is_skipped_with_the_reason():
    """A dense network is skipped because no layer has a grid."""
    model = wrap(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), spec=InputSpec(4, 4), device="cpu")
    assert "grid" in STRUCTURE.skip(model, "expected")


def test_a_recurrent_network_is_not_applicable_by_name():
    """A network with an LSTM raises NotApplicableError that says it is recurrent."""

    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x):
            tokens = self.lstm(x.flatten(2).transpose(1, 2))[0]
            return tokens.transpose(1, 2).unflatten(2, x.shape[2:])

    with pytest.raises(NotApplicableError, match="recurrent"):
        measure(Rows(), (3, 8, 8))


FAMILIES = {
    "test_efficientnet_ln": (0.1823, 0.5465, 67, 32),
    "test_resnet": (0.3619, 0.4893, 167, 32),
    "test_vit": (1, 0, 16, 16),
    "test_vit4": (1, 0, 16, 16),
    "test_convnext2": (0.9915, 0.004813, 392, 32),
    "test_byobnet": (0.145, 0.5635, 95, 32),
    "test_nfnet": (0.406, 0.4851, 199, 32),
    "xcit_nano_12_p16_224": (0.03908, 0.6034, 799, 16),
    "swin_tiny_patch4_window7_224": (0.9953, 0.002811, 224, 32),
    "mixer_s32_224": (1, 0, 32, 32),
    "gmlp_s16_224": (1, 0, 16, 16),
    "resmlp_12_224": (1, 0, 16, 16),
    "poolformerv2_s12": (0.27643, 0.35708, 431, 32),
    "levit_128s": (0.03902, 0.6037, None, 64),
    "volo_d1_224": (0.6508, 0.2126, 149, 16),
    "tnt_s_legacy_patch16_224": (0.3265, 0.3552, 19, 16),
    "efficientvit_b0": (0.4206, 0.4849, 667, 32),
    "mobilevit_xxs": (0.4052, 0.4857, 299, 32),
    "edgenext_xx_small": (0.997, 0.0013, 1088, 32),
    "focalnet_tiny_srf": (0.9934, 0.003283, 1136, 32),
    "coat_tiny": (0.9939, 0.002216, 2528, 32),
    "convit_tiny": (1, 0, 16, 16),
    "nest_tiny": (0.7919, 0.158, 224, 16),
    "pvt_v2_b0": (0.2287, 0.3632, 303, 32),
    "twins_svt_small": (0.9997, 0.0001949, 224, 32),
    "hiera_tiny_224": (0.3265, 0.3552, 35, 32),
    "mvitv2_tiny": (0.2177, 0.3675, 279, 32),
    "davit_tiny": (0.3264, 0.3552, 235, 32),
    "gcvit_xxtiny": (0.07935, 0.578, 315, 32),
    "maxvit_pico_rw_256": (0.3255, 0.4914, 263, 32),
    "lambda_resnet26t": (0.3945, 0.4863, 599, 32),
    "halonet26t": (0.3971, 0.4859, 247, 32),
    "resnest14d": (0.3924, 0.4858, 135, 32),
    "skresnet18": (0.5754, 0.2247, 619, 32),
    "dla34": (0.9407, 0.02429, 623, 32),
    "dpn48b": (0.1851, 0.5387, 423, 32),
    "ghostnet_050": (0.4201, 0.485, 1171, 32),
    "hardcorenas_a": (0.3756, 0.4867, 495, 32),
    "mobilenetv4_conv_small": (0.08127, 0.5728, 943, 32),
    "res2net50_14w_8s": (0.5804, 0.2245, 2539, 32),
    "selecsls42b": (0.1964, 0.5385, 471, 64),
    "tresnet_m": (0.9828, 0.004829, 732, 32),
    "cs3darknet_focus_s": (0.7772, 0.1593, 314, 32),
    "eva02_tiny_patch14_224": (1, 0, 14, 14),
    "cait_xxs24_224": (1, 0, 16, 16),
}
"""`weakest`, `imbalance`, `receptive_field` and `target_stride` of one model of each family.

Attention without a shortcut leaves no local path, and so no receptive field.
"""


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_keeps_its_numbers(name):
    """The numbers of 45 architectures with different layers are those on record to 0.1 %."""
    found = values(audit(load(f"timm:{name}@init", device="cpu")))
    names = ("weakest", "imbalance", "receptive_field", "target_stride")
    for metric, known in zip(names, FAMILIES[name], strict=True):
        value = found.get(metric)
        assert value == (known if known is None else pytest.approx(known, rel=1e-3, abs=1e-9))


class Entries(TorchDispatchMode):
    """Counts the entries that all operations write; views and `meta` tensors write none."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tree_leaves(args) if on_cpu(t)}
        for t in tree_leaves(out):
            if on_cpu(t) and t.untyped_storage().data_ptr() not in given:
                self.count += t.numel()
        return out


def on_cpu(t):
    return isinstance(t, torch.Tensor) and t.device.type == "cpu"


def test_the_work_does_not_grow_with_the_width_of_the_network():
    """Equal channels are stored once: a network four times as wide writes 1 % more entries."""
    counts = []
    for width in (1, 4):
        net = nn.Sequential(
            nn.Conv2d(3, 8 * width, 3, 2, 1),
            nn.BatchNorm2d(8 * width),
            nn.ReLU(),
            nn.Conv2d(8 * width, 8 * width, 3, 1, 1, groups=8 * width),
            nn.MaxPool2d(3, 2, 1),
            nn.Conv2d(8 * width, 16 * width, 3, 2, 1),
        )
        skeleton = light_copy(net)
        with Entries() as entries:
            energy_map(skeleton, (3, 64, 64))
        counts.append(entries.count)
    assert counts[1] < 1.01 * counts[0]
