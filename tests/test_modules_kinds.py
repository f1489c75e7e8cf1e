"""Modules of every kind are measured as they are, or refused truly, and are not changed."""

import copy
import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from perimetry import audit
from perimetry.adapters.errors import InputError
from perimetry.adapters.pytorch.model import wrap

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*spectral_norm.*:FutureWarning"),
]
SIZE = (64, 64)
SUITES = ("structure", "erf", "deadpixel", "perturbation", "padding")
QUICK = {"size": SIZE, "count": 2, "device": "cpu", "draws": 20}


class Base(nn.Module):
    """A strided convolution; subclasses continue."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 4, 4)
        self.out = nn.Conv2d(8, 4, 1)
        self.extra()

    def extra(self):
        pass

    def forward(self, x):
        return self.out(self.conv(x))


class ComplexFilter(Base):
    def extra(self):
        self.filter = nn.Parameter(torch.randn(8, 16, 9, dtype=torch.cfloat))

    def forward(self, x):
        return self.out(torch.fft.irfft2(torch.fft.rfft2(self.conv(x)) * self.filter))


class ComplexBuffer(Base):
    def extra(self):
        self.register_buffer("phase", torch.exp(1j * torch.randn(8, 1, 1).double()))

    def forward(self, x):
        return self.out((self.conv(x) * self.phase).real.to(x.dtype))


class ComplexFirst(Base):
    """Its first parameter is complex; its input is real."""

    def __init__(self):
        nn.Module.__init__(self)
        torch.manual_seed(0)
        self.gain = nn.Parameter(torch.randn(3, 1, 1, dtype=torch.cfloat))
        self.conv, self.out = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.out(self.conv((x * self.gain).real))


class View(Base):
    def extra(self):
        self.head = nn.Linear(8 * 16 * 16, 10)

    def forward(self, x):
        return self.head(self.conv(x).relu().view(x.size(0), -1))


class AsComplex(ComplexFilter):
    def extra(self):
        self.filter = nn.Parameter(torch.randn(8, 16, 9, 2))

    def forward(self, x):
        f = torch.view_as_complex(self.filter)
        return self.out(torch.fft.irfft2(torch.fft.rfft2(self.conv(x)) * f))


class Volume(Base):
    def extra(self):
        self.volume = nn.Conv3d(1, 1, 3, 1, 1)

    def forward(self, x):
        return self.out(self.volume(self.conv(x)[:, None])[:, 0])


class Strided(Base):
    """Reads memory by strides of its own: another function, without an error, in another order."""

    def forward(self, x):
        y = self.conv(x)
        return self.out(y.as_strided(y.shape, (8 * 16 * 16, 16 * 16, 16, 1)))


class InPlace(Base):
    def forward(self, x):
        x -= 0.4
        return self.out(self.conv(x))


class InPlaceSlice(Base):
    def forward(self, x):
        x[:, 0].mul_(2)
        return self.out(self.conv(x))


class Cached(Base):
    """Keeps its last map, in a list and in a table too, as models of detectors do."""

    def forward(self, x):
        self.map = self.conv(x)
        self.maps, self.table = [self.map * 2], {"map": (self.map * 3,)}
        return self.out(self.map)


def normed(norm):
    module = Base()
    norm(module.conv)
    return module


KINDS = {
    **{k.__name__: k for k in (ComplexFilter, ComplexBuffer, ComplexFirst)},
    **{k.__name__: k for k in (View, AsComplex, Volume, Strided, InPlace, InPlaceSlice, Cached)},
    "old weight norm": lambda: normed(nn.utils.weight_norm),
    "old spectral norm": lambda: normed(nn.utils.spectral_norm),
    "new weight norm": lambda: normed(parametrizations.weight_norm),
    "new spectral norm": lambda: normed(parametrizations.spectral_norm),
}


def kind(name):
    """A module of a kind, after a pass with gradients as in training."""
    module = KINDS[name]()
    if name != "ComplexBuffer":
        module(torch.randn(2, 3, *SIZE))
    return module


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", KINDS)
def test_the_function_that_is_measured_is_the_module_s_own(name, count):
    """Outputs and gradients equal those of the module, and the images stay as they are."""
    module = kind(name)
    target = "conv" if name == "View" else "out"
    model = wrap(module, size=SIZE, device="cpu", target=target)
    x = torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    given, ours, theirs = x.clone(), x.clone().requires_grad_(), x.clone().requires_grad_()
    seen = []
    single = copy_of(module)
    single.get_submodule(target).register_forward_hook(lambda _m, _a, out: seen.append(out))
    single(theirs.clone())
    torch.testing.assert_close(model.run(given).target, seen[-1], rtol=1e-4, atol=1e-5)
    assert torch.equal(given, x)
    (found,) = torch.autograd.grad(model.run(ours).target.square().sum(), ours)
    (expected,) = torch.autograd.grad(seen[-1].square().sum(), theirs)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def copy_of(module):
    """A module in evaluation with the same weights."""
    if type(module) is not Base:
        fresh = type(module)()
        fresh.load_state_dict(module.state_dict())
        return fresh.eval()
    with torch.no_grad():
        module.eval()(torch.zeros(1, 3, *SIZE))
    return copy.deepcopy(module)


@pytest.mark.parametrize("name", KINDS)
def test_every_suite_measures_it_or_says_what_is_missing(name):
    """Every suite measures every kind of module or skips it; no record fails."""
    for record in audit(kind(name), SUITES, **QUICK):
        assert record.status in ("ok", "skipped"), record.error
        if record.suite in ("erf", "perturbation", "padding"):
            assert record.status == "ok" or record.protocol == "kim2023", record.reason


@pytest.mark.parametrize("name", ["ComplexFilter", "ComplexFirst", "AsComplex"])
def test_a_module_that_bfloat16_does_not_hold_has_gradients_in_float32(name):
    """The numbers are those of float32, and a note says so."""
    expected, found = (
        audit(KINDS[name](), ("deadpixel:energy",), precision=kind, **QUICK)[0]
        for kind in ("float32", "bfloat16")
    )
    assert found.metrics["weakest"] == expected.metrics["weakest"]
    assert any("does not run in bfloat16" in note for note in found.notes)


def state(module):
    """All that an audit could change: tensors, modes, flags, gradients and hooks."""
    tensors = {n: (id(t), t.detach().clone()) for n, t in module.state_dict(keep_vars=True).items()}
    flags = {n: (p.requires_grad, p.grad, p.dtype, p.device) for n, p in module.named_parameters()}
    modes = {n: m.training for n, m in module.named_modules()}
    hooks = {n: hooks_of(m) for n, m in module.named_modules()}
    return tensors, flags, modes, hooks


def hooks_of(module):
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {name: list(getattr(module, name)) for name in names}


class Failing(Base):
    def forward(self, x):
        x -= 1
        raise RuntimeError("planted")


class Unexpected(Base):
    """Fails behind its map, at the second of several passes."""

    def forward(self, x):
        if len(x) > 2:
            raise KeyError("planted")
        return super().forward(x)


@pytest.mark.parametrize("make", [*KINDS.values(), Failing, Unexpected])
@pytest.mark.parametrize("training", [True, False])
def test_a_module_is_after_an_audit_what_it_was_before(make, training):
    """An audit, also one that fails, leaves the module as it was."""
    module = make().train(training)
    module.conv.bias.requires_grad_(False)
    module.out.weight.grad = torch.ones_like(module.out.weight)
    module.register_forward_hook(lambda _m, _a, out: out)
    before = state(module)
    audit(module, ("erf", "perturbation"), ("none", "box"), **{**QUICK, "count": 3})
    after = state(module)
    assert before[1:] == after[1:]
    for name, (place, value) in before[0].items():
        assert after[0][name][0] == place
        assert torch.equal(after[0][name][1], value)


class NoGrad(Base):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


class Detached(Base):
    def forward(self, x):
        return self.out(self.conv(x).detach())


class Numpy(Base):
    def forward(self, x):
        return self.out(torch.from_numpy(self.conv(x).detach().numpy() * 2))


@pytest.mark.parametrize("make", [NoGrad, Detached, Numpy])
def test_a_forward_without_gradients_is_measured_by_forward_passes(make):
    """The gradient suites are skipped for that reason, and those of the black box take over."""
    records = {f"{r.suite}:{r.protocol}": r for r in audit(make(), ("erf:energy",), **QUICK)}
    assert records["erf:energy"].reason.startswith("no gradient route: no gradient reaches")
    assert records["perturbation:forward"].status == "ok"
    assert records["erf:blocks"].status == "ok"


class One(Base):
    def forward(self, x):
        assert len(x) == 1, "one at a time"
        return super().forward(x)


class FixedView(Base):
    """Written for one image: its shapes have the batch of 1."""

    def forward(self, x):
        return self.out(self.conv(x).view(1, 8, 16, 16))


class Mapped(nn.Module):
    """Two strided convolutions with `torch.func.vmap` between them, which no function shows."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 4, 4)
        self.second = nn.Conv2d(8, 8, 3, 2, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        y = torch.func.vmap(lambda one: (one.roll(1, 1) + one).relu())(self.first(x))
        return self.head(self.second(y).relu().mean((2, 3)))


def test_what_is_computed_outside_torch_s_functions_is_on_the_way():
    """The target is the last map behind it, of stride 8, and structure refuses it by name."""
    found = {
        r.suite: r for r in audit(Mapped(), ("structure", "deadpixel"), count=4, size=(48, 48))
    }
    assert found["deadpixel"].status == "ok"
    assert found["deadpixel"].model.target["height"] == 6
    assert "conv2d" in found["structure"].reason


@pytest.mark.parametrize("make", [One, FixedView])
def test_a_module_of_single_images_is_measured_as_one_of_batches(make):
    """The same metrics as the module that takes both, and a note."""
    expected = audit(Base(), ("erf", "deadpixel", "perturbation"), **QUICK)
    found = audit(make(), ("erf", "deadpixel", "perturbation"), **QUICK)
    assert len(found) == len(expected)
    for record, other in zip(found, expected, strict=True):
        assert record.status == other.status == "ok"
        assert any("one image at a time" in note for note in record.notes)
        for name, value in record.metrics.items():
            wanted = other.metrics[name].value
            assert value.value == (wanted and pytest.approx(wanted, rel=1e-3, abs=1e-6)), name


def test_another_fault_is_not_laid_on_the_size():
    """The message has the error of the forward, and no advice on the size."""
    with pytest.raises(InputError, match=r"RuntimeError: planted") as shown:
        wrap(Failing(), size=SIZE)
    assert "give the size" not in str(shown.value)


class BadRepr(Base):
    def extra_repr(self):
        raise RuntimeError("planted")


class BadState(Base):
    def state_dict(self, *_args, **_options):
        raise RuntimeError("planted")


class Locked(Base):
    def extra(self):
        self.lock = threading.Lock()


class Shared(Base):
    def __deepcopy__(self, memo):
        return self


class Recursive(Base):
    def forward(self, x):
        return self.forward(x)


class Exits(Base):
    def forward(self, x):
        raise SystemExit(3)


class Nothing(Base):
    def forward(self, x):
        super().forward(x)


class Whole(Base):
    def forward(self, x):
        return super().forward(x).argmax(1)


@pytest.mark.parametrize("make", [Failing, BadState, Locked, Shared, Recursive, Exits])
def test_a_fault_of_the_module_is_a_failed_record(make):
    """No exception leaves `audit`, and no record advises another size."""
    for record in audit(make(), SUITES, **QUICK):
        assert record.status == "failed"
        assert "give the size" not in record.error.message


@pytest.mark.parametrize("make", [BadRepr, Nothing, Whole])
def test_a_fault_beside_the_map_does_not_hinder_the_audit(make):
    """A `repr` that fails, no output at all, or integers."""
    (record,) = audit(make(), ("erf",), **QUICK)
    assert record.status == "ok", record.error
