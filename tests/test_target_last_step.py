"""The target where a map is only pooled or rearranged before the head: modules, files and int8."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn

from perimetry import audit
from perimetry.adapters.export import export_onnx
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.pytorch.model import wrap

SPEC = InputSpec(32, 32)


def layers(*last, into, units=8):
    """Two layers of stride 2 and 1, the last steps, and a linear head; a module."""
    first = (nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU())
    return nn.Sequential(*first, *last, nn.Flatten(), nn.Linear(into * units**2, 10)).eval()


class Blocks(nn.Module):
    """Space to depth written out, of maps with channels first or last."""

    def __init__(self, last):
        super().__init__()
        self.last = last

    def forward(self, x):
        if not self.last:
            blocks = x.unflatten(3, (8, 2)).unflatten(2, (8, 2))
            return blocks.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)
        x = x.permute(0, 2, 3, 1).reshape(-1, 8, 2, 8, 2, 8)
        return x.permute(0, 1, 3, 2, 4, 5).flatten(3).permute(0, 3, 1, 2)


class Rectified(nn.Module):
    """Pixel unshuffle behind which another function follows."""

    def forward(self, x):
        return F.pixel_unshuffle(x, 2).clamp(min=0)


CASES = {
    "max-pool": lambda: layers(nn.MaxPool2d(2), into=8),
    "mean pool": lambda: layers(nn.AvgPool2d(2), into=8),
    "pool of pools": lambda: layers(nn.MaxPool2d(2), nn.AvgPool2d(2), into=8, units=4),
    "max-pool, mean of all": lambda: layers(
        nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), into=8, units=1
    ),
    "pixel unshuffle": lambda: layers(nn.PixelUnshuffle(2), into=32),
    "pixel unshuffle, ReLU": lambda: layers(Rectified(), into=32),
    "blocks, channels first": lambda: layers(Blocks(last=False), into=32),
    "blocks, channels last": lambda: layers(Blocks(last=True), into=32),
}


class Images(CalibrationDataReader):
    """Gives the calibration its images one by one."""

    def __init__(self, x):
        self.rest = iter([{"image": image[None].numpy()} for image in x])

    def get_next(self):
        return next(self.rest, None)


FORMS = {
    "QDQ": (QuantFormat.QDQ, QuantType.QInt8),
    "QOperator": (QuantFormat.QOperator, QuantType.QUInt8),
}


def files(module, folder):
    """The paths of the module's file and of its int8 files, by form."""
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = {"float": export_onnx(module, x[:1], folder / "float.onnx")}
    for form, (quant_format, activations) in FORMS.items():
        found[form] = folder / f"{form}.onnx"
        quantize_static(
            str(found["float"]),
            str(found[form]),
            Images(x),
            quant_format=quant_format,
            activation_type=activations,
            weight_type=QuantType.QInt8,
        )
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_last_map_is_the_target_of_module_file_and_int8_files(name, tmp_path):
    """It has the same units and channels in all forms, and the reason is the same."""
    torch.manual_seed(0)
    module = CASES[name]()
    opened = [wrap(module, spec=SPEC, device="cpu")]
    opened += [open_onnx(p, device="cpu", spec=SPEC) for p in files(module, tmp_path).values()]
    wanted, *others = [m.target for m in opened]
    assert wanted.height in (4, 8)
    for target in others:
        found = (target.height, target.width, target.channels, target.reason)
        assert found == (wanted.height, wanted.width, wanted.channels, wanted.reason)


@pytest.mark.parametrize("name", ["max-pool", "pixel unshuffle"])
def test_an_int8_file_is_measured_behind_its_last_pool(name, tmp_path):
    """Structure and measured sensitivity of integer maps are those of the float file."""
    torch.manual_seed(0)
    paths = files(CASES[name](), tmp_path)
    found = {}
    for form in ("float", "QOperator"):
        model = open_onnx(paths[form], device="cpu", spec=SPEC)
        records = audit(model, ("structure", "deadpixel"), count=4, device="cpu", draws=20)
        assert [r.status for r in records] == ["ok", "ok"], [r.reason for r in records]
        found[form] = records
    for one, other in zip(*found.values(), strict=True):
        ours, theirs = one.maps["sensitivity"], other.maps["sensitivity"]
        tolerance = 1e-6 if one.suite == "structure" else 0.2  # rounding decides maxima
        assert np.abs(ours - theirs).mean() < tolerance * ours.mean()
