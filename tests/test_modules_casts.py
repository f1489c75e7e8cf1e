"""Modules that cast between layers of several float types, and other forwards of their own kind."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from perimetry import audit
from perimetry.adapters.errors import InputError
from perimetry.adapters.load import input_of, load
from perimetry.adapters.treatment import PaddingOptions

TYPES = (torch.float64, torch.float16, torch.bfloat16)
X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Casting(nn.Module):
    """Two convolutions; those in `cast` have the type `dtype` and get their input in it."""

    def __init__(self, dtype, cast):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.second = nn.Conv2d(6, 6, 3, stride=2, padding=1)
        self.types = tuple(dtype if n in cast else torch.float32 for n in ("first", "second"))
        self.first.to(self.types[0])
        self.second.to(self.types[1])

    def forward(self, x):
        x = self.first(x.to(self.types[0]))
        return self.second(input=x.to(self.types[1])).float()


CASES = [("second",), ("first",), ("first", "second")]


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("cast", CASES)
@pytest.mark.parametrize("dtype", TYPES)
def test_a_module_that_casts_by_itself_is_computed_in_one_type(dtype, cast, precision):
    """Its target is that of the same weights in one type, and a note names the layers."""
    module = Casting(dtype, cast).eval()
    module(X)  # it runs by itself
    model = load(module, size=(32, 32), device="cpu", precision=precision)
    plain = nn.Sequential(module.first, module.second).eval()
    x = model.spec.prepare(X)
    found = model.run(x).target
    tolerance = 4 * max(torch.finfo(torch.float32).eps, torch.finfo(dtype).eps)
    expected = nn.Sequential(*(_double(layer) for layer in plain))(x.double())
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
    notes = [n for n in model.notes if "as all layers are" in n]
    own = torch.float64 if precision == "float64" else torch.float32
    others = [n for n in ("first", "second") if (dtype if n in cast else torch.float32) != own]
    assert [name for name in ("first", "second") if any(name in n for n in notes)] == others


def _double(layer):
    made = nn.Conv2d(layer.in_channels, layer.out_channels, 3, stride=2, padding=1).double()
    made.load_state_dict(layer.state_dict())
    return made.requires_grad_(False)


@pytest.mark.parametrize("dtype", TYPES)
def test_such_a_module_is_measured_and_padded(dtype):
    """Gradients, structure and every kernel padding, as of a plain module."""
    module = Casting(dtype, ("second",))
    assert load(module, size=(32, 32), device="cpu").why_no_gradients is None
    for record in audit(module, ("structure", "erf"), size=(32, 32), count=2, device="cpu"):
        assert record.status == "ok", record.reason
    for fill in ("zero", "box", "fit"):
        model = load(module, size=(32, 32), device="cpu")
        done = model.padded(fill, PaddingOptions(images=X))
        assert [layer.name for layer in done.treatment.layers] == ["first", "second"]
        assert done.run(done.spec.prepare(X)).target.isfinite().all()


def test_its_channels_are_found_and_uniform_modules_are_as_they_were():
    """No channel is guessed for the cast's sake; a half-precision module has no note."""
    spec = input_of(Casting(torch.float64, ("first",)), size=(32, 32))
    assert spec.channels == 3
    assert "channels" not in spec.guessed
    half = load(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1)).half(), size=(32, 32), device="cpu")
    assert not any("as all layers are" in note for note in half.notes)


class CastsInside(nn.Module):
    """A weight of its own is used behind a cast, where no layer can cast back."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.kernel = nn.Parameter(torch.ones(6, 6, 3, 3, dtype=torch.float64))

    def forward(self, x):
        return F.conv2d(self.first(x).double(), self.kernel).float()


def test_a_cast_that_cannot_be_met_is_told_with_the_layers_and_what_to_do():
    """The message says that layers have one type, which had another, and what to give."""
    CastsInside()(X)
    with pytest.raises(InputError) as caught:
        load(CastsInside(), size=(32, 32), device="cpu")
    said = str(caught.value)
    assert all(part in said for part in ("one float type", "CastsInside (float64)", "casts"))


class ByName(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, *, pixel_values, mask=None):
        del mask
        return self.conv(pixel_values)


class OfTable(ByName):
    def forward(self, batch):
        return self.conv(batch["image"])


class OfAnyNames(ByName):
    def forward(self, **batch):
        return self.conv(batch["image"])


def test_an_input_that_is_taken_by_name_alone_is_told_what_to_declare():
    """In Python and on the command line; what is said works."""
    with pytest.raises(InputError) as caught:
        load(ByName(), size=(32, 32), device="cpu")
    said = str(caught.value)
    assert "inputs={'image': 'pixel_values'}" in said
    assert "--input image=pixel_values" in said
    assert "guess" not in said
    model = load(ByName(), size=(32, 32), device="cpu", inputs={"image": "pixel_values"})
    assert model.target is not None


@pytest.mark.parametrize("module", [OfTable(), OfAnyNames()])
def test_a_table_of_inputs_is_told_to_be_wrapped(module):
    """The message does not take the channels for the cause."""
    with pytest.raises(InputError) as caught:
        load(module, size=(32, 32), device="cpu")
    said = str(caught.value)
    assert "give a module whose forward takes the image alone" in said
    assert "guess" not in said
    assert ("'image'" in said) == isinstance(module, OfTable)


class Fixed(ByName):
    def forward(self, x):
        x.requires_grad_(False)
        return self.conv(x)


class FixedLater(ByName):
    def forward(self, x):
        x = 2 * x
        x.requires_grad = False
        return self.conv(x)


@pytest.mark.parametrize("module", [Fixed(), FixedLater()])
def test_a_forward_that_turns_gradients_off_is_said_to(module):
    """It is a reason why there are no gradients, and the suites of black boxes measure it."""
    model = load(module, size=(32, 32), device="cpu")
    assert "turns off `requires_grad`" in model.why_no_gradients
    records = audit(module, ("erf",), size=(64, 64), count=2, device="cpu")
    assert records[0].status == "skipped"
    assert any(record.status == "ok" for record in records)
