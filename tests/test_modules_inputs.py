"""Modules with inputs besides the image, of one size alone, of other channels, or not square."""

import pytest
import torch
from test_modules_kinds import QUICK, SIZE, SUITES, Base
from torch import nn

from perimetry import audit
from perimetry.adapters.errors import InputError, UnknownNameError
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.model import wrap
from perimetry.bench.records.record import Record


class Two(Base):
    def forward(self, x, y):
        return self.out(self.conv(x)) + y


class Conditioned(Base):
    """The image comes second; the first input is a time for each image."""

    def forward(self, time, image, *, flip):
        y = self.conv(image) * time[:, None, None, None]
        return self.out(y.flip(-1) if flip else y)


def test_further_inputs_are_asked_for_by_name():
    """A module of two inputs is an InputError that names both and no size."""
    with pytest.raises(InputError, match=r"2 inputs \(x, y\)") as shown:
        wrap(Two(), size=SIZE)
    assert "size" not in str(shown.value)
    with pytest.raises(InputError, match=r"3 inputs \(time, image, flip\).*'image': 'image'"):
        wrap(Conditioned(), size=SIZE)


@pytest.mark.parametrize("count", [1, 3])
def test_inputs_besides_the_image_have_fixed_values(count):
    """A number per image and a switch besides the image are given once as fixed values."""
    module = Conditioned().eval()
    given = {"image": "image", "fixed": {"time": [2.0], "flip": True}}
    model = load(module, size=SIZE, inputs=given, device="cpu", target="out")
    x = torch.randn(count, 3, *SIZE)
    expected = module(torch.full((count,), 2.0), x, flip=True)
    torch.testing.assert_close(model.run(x).target, expected.detach(), rtol=1e-4, atol=1e-5)


def test_fixed_values_are_in_the_record_and_make_a_record_of_its_own():
    """A fixed input is stored in the record, and another value gives another key."""
    keys = set()
    for value in (0.0, 1.0):
        given = {"fixed": {"y": value}}
        (record,) = audit(Two(), ("erf",), inputs=given, **QUICK)
        assert record.status == "ok", record.error
        assert Record.model_validate_json(record.model_dump_json()).inputs == given
        keys.add(record.key)
    assert len(keys) == 2


def test_an_input_that_is_not_there_is_refused():
    """An image input or fixed input that does not exist is an UnknownNameError."""
    for given in ({"image": "z"}, {"fixed": {"z": 1}}):
        with pytest.raises(UnknownNameError):
            load(Two(), size=SIZE, inputs=given)


class Small(Base):
    """Takes 32 x 32 only."""

    def extra(self):
        self.head = nn.Linear(8 * 8 * 8, 3)

    def forward(self, x):
        return self.head(self.conv(x).flatten(1))


def test_a_wrong_size_is_refused_with_one_that_passes():
    """A wrong size is an InputError with 32 x 32, which passes."""
    with pytest.raises(InputError, match="32 x 32"):
        wrap(Small(), size=SIZE)


@pytest.mark.parametrize("channels", [4, 5, 6])
def test_modules_of_more_channels_say_why_they_see_no_images(channels):
    """Structure is exact; what needs images is skipped with the number of channels."""
    module = nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, 2, 1))
    found = {r.suite: r for r in audit(module, ("structure", "erf", "padding"), **QUICK)}
    assert found["structure"].status == "ok"
    for suite in ("erf", "padding"):
        assert found[suite].status == "skipped"
        assert f"{channels} channels" in found[suite].reason


def test_a_module_that_is_not_square_is_measured():
    """A module whose head fits 32 x 96 only is measured at that size."""
    module = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(), nn.Linear(8 * 8 * 24, 3))
    for record in audit(module, SUITES, **{**QUICK, "size": (32, 96)}):
        assert record.status in ("ok", "skipped"), record.error
    with pytest.raises(InputError) as shown:
        wrap(module, size=(96, 32 * 5))
    assert "3 x 96 x 160" in str(shown.value)
