"""The fill `fit`: closed forms, a literal second version, and what it must leave alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx_files import convnet, save
from torch import nn

from perimetry import audit
from perimetry.adapters.errors import InputError, NotApplicableError
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.kernel_padding import fit as padding_fit
from perimetry.adapters.pytorch.kernel_padding.fit import (
    RIDGE,
    SOFT,
    Fit,
    FittedConvolution,
    contrasts,
    unevenness,
)
from perimetry.adapters.pytorch.kernel_padding.rewrite import pad_module
from perimetry.adapters.pytorch.model import wrap
from perimetry.adapters.treatment import PaddingOptions
from perimetry.bench.execution.settings import FITTED, Settings, open_fit_images
from perimetry.suites.base import Context
from perimetry.suites.deadpixel.suite import DEADPIXEL
from perimetry.suites.images import open_images
from perimetry.suites.measuring.gradients import gradient_maps
from perimetry.suites.measuring.phases import phase_profile

PHASES = [(a, b) for a in (0, 1) for b in (0, 1)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth(count, seed, side=64):
    """Noise (count, 3, side, side) in [0, 1], blurred twice: like photographs it lacks detail."""
    noise = torch.rand(count, 3, side + 8, side + 8, generator=generator(seed))
    blurred = F.avg_pool2d(F.avg_pool2d(noise, 5, 1), 5, 1)
    return (blurred - 0.5) * 4 + 0.5


def network():
    """Two uneven strided layers, the second depthwise, whose phases differ mildly."""
    torch.manual_seed(0)
    stem, deep = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1, groups=8)
    with torch.no_grad():
        for layer in (stem, deep):
            for a, b in PHASES:
                part = layer.weight[:, :, a::2, b::2]
                part.mul_((1 + 0.3 * a - 0.2 * b) / part.square().sum().sqrt())
    tail = [nn.Conv2d(8, 8, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)]
    return nn.Sequential(stem, nn.ReLU(), deep, nn.ReLU(), *tail)


def model(side=64):
    return wrap(network(), spec=InputSpec(side, side), device="cpu", target="5")


def imbalance(subject, images):
    probes = DEADPIXEL.probes(subject, "energy", 0)
    maps = gradient_maps(subject, images, probes).maps
    context = Context(images, 0, 16, 20, None)
    return DEADPIXEL.measure(subject, "energy", maps, context).metrics["imbalance"].value


def test_on_white_images_each_phase_is_scaled_to_the_mean_norm():
    """C is then the identity: min ||w' - w|| with equal ||w'_p|| has w'_p = w_p mean / ||w_p||."""
    layer = nn.Conv2d(1, 1, 3, 2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator(1)))
        for (a, b), norm in zip(PHASES, (1.2, 1.0, 0.9, 0.8), strict=True):
            part = layer.weight[:, :, a::2, b::2]
            part.mul_(norm / part.square().sum().sqrt())
    white = torch.randn(64, 3, 64, 64, generator=generator(2))
    spec = InputSpec(64, 64, channels=1, mean=(0.0,), std=(1.0,))
    subject = wrap(nn.Sequential(layer), spec=spec, device="cpu")
    variant = subject.padded("fit", PaddingOptions(images=white))
    module = variant.module()[0]
    for a, b in PHASES:
        own = layer.weight[0, 0, a::2, b::2]
        expected = own * (1.2 + 1.0 + 0.9 + 0.8) / 4 / own.square().sum().sqrt()
        assert torch.allclose(module.weight[0, 0, a::2, b::2], expected, atol=0.06)
    assert module.weight_rows.abs().max() < 0.03
    assert module.weight_columns.abs().max() < 0.03


def literal_move(sites, slopes, excess):
    """Taps by dense Kronecker products and one big solve; all layers in one vector."""
    blocks = []
    for site in sites:
        inputs = site.inputs.numpy()
        outputs = site.outputs.numpy()
        c_level = np.mean([np.diag(c).mean() for c in inputs])
        g_level = np.mean([np.diag(g).mean() for g in outputs])
        for c, g in zip(inputs, outputs, strict=True):
            metric = c + RIDGE * c_level * np.eye(len(c))
            weight = g + RIDGE / 10 * g_level * np.eye(len(g))
            blocks.append(np.kron(weight, metric))
    size = sum(len(block) for block in blocks)
    whole = np.zeros((size, size))
    at = 0
    for block in blocks:
        whole[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    start = np.concatenate([s.start.double().numpy().ravel() for s in sites])
    now = np.concatenate([s.taps.detach().double().numpy().ravel() for s in sites])
    slope = np.concatenate([s.flatten(1).numpy() for s in slopes], 1)
    pull = np.linalg.solve(whole, slope.T)
    gram = slope @ pull
    gram += SOFT * np.diag(gram).mean() * np.eye(len(gram))
    return start + pull @ np.linalg.solve(gram, slope @ (now - start) - excess.numpy())


def random_site(groups, out, into, seed):
    made = generator(seed)
    shape = (out, into, 4, 4)
    width, per = into * 16, out // groups
    inputs = torch.randn(groups, width, 3 * width, generator=made, dtype=torch.float64)
    outputs = torch.randn(groups, per, 3 * per, generator=made, dtype=torch.float64)
    start = torch.randn(shape, generator=made, dtype=torch.float64)
    taps = start + 0.1 * torch.randn(shape, generator=made, dtype=torch.float64)
    return FittedConvolution(start, taps, groups, inputs @ inputs.mT, outputs @ outputs.mT)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_step_is_the_solution_of_the_dense_linear_problem(seed):
    """Closed forms per group and one matrix over all layers give the same taps."""
    sites = [random_site(1, 4, 3, seed), random_site(6, 6, 1, seed + 10)]
    made = generator(seed + 20)
    slopes = [
        torch.randn(5, *site.start.shape, generator=made, dtype=torch.float64) for site in sites
    ]
    excess = torch.randn(5, generator=made, dtype=torch.float64)
    expected = literal_move(sites, slopes, excess)
    fit = Fit(nn.Identity(), [], lambda x: x, torch.zeros(1, 3, 8, 8))
    fit.sites = dict(enumerate(sites))
    fit._move(excess, slopes)
    found = torch.cat([site.taps.detach().flatten() for site in sites])
    assert np.allclose(found.numpy(), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("period", [2, 3, 4])
def test_contrasts_are_orthonormal_and_vanish_on_an_even_profile(period):
    """So that their squares add up to the profile's variance times its places."""
    basis = contrasts(period).flatten(1)
    assert torch.allclose(basis @ basis.T, torch.eye(period**2 - 1, dtype=torch.float64))
    assert basis.sum(1).abs().max() < 1e-12


@pytest.mark.parametrize("period", [2, 3, 4])
def test_unevenness_is_that_of_the_dead_pixel_test(period):
    """The contrasts of the profile that `phases` makes, slow trend and all."""
    rows = torch.arange(48.0, dtype=torch.float64)
    pattern = 1 + 0.3 * (rows % period == 1)[:, None] - 0.2 * (rows % period == 0)
    energy = (pattern * (1 + rows / 20))[None] * torch.rand(
        1, 48, 48, generator=generator(3), dtype=torch.float64
    )
    profile = torch.from_numpy(phase_profile(energy.numpy(), (period, period)))[0]
    expected = torch.tensordot(contrasts(period), profile, 2)
    assert torch.allclose(unevenness(energy, period), expected, atol=1e-9)


def test_a_fitted_network_is_twice_as_even_and_nearly_the_same_on_other_images():
    """On images that were not fitted: half the imbalance, the target moved by under 3 %."""
    subject, seen, other = model(), smooth(16, 0), smooth(24, 1)
    variant = subject.padded("fit", PaddingOptions(images=seen))
    assert imbalance(variant, other) < imbalance(subject, other) / 2
    x = subject.spec.prepare(other)
    before, after = subject.run(x).target, variant.run(x).target
    assert (after - before).norm() < 0.03 * before.norm()
    assert "fitted on 16 unlabelled images: 0, 2" in variant.notes


def test_output_shapes_stay_at_every_size():
    """A fitted model keeps its output shapes at even and odd sizes, fitted or not."""
    subject = model()
    variant = subject.padded("fit", PaddingOptions(images=smooth(4, 0)))
    for side in (64, 65, 50):
        x = torch.rand(2, 3, side, side, generator=generator())
        a, b = (m.resized(side, side).run(x, logits=True) for m in (subject, variant))
        assert a.target.shape == b.target.shape
        assert a.logits.shape == b.logits.shape


def test_a_resized_model_keeps_the_fitted_taps():
    """The fit is made at the size of its images, once."""
    variant = model().padded("fit", PaddingOptions(images=smooth(4, 0)))
    other = variant.resized(80, 80)
    for a, b in zip(variant.module().parameters(), other.module().parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_same_images_and_seed_give_the_same_bits():
    """Two fits on the same images are equal bit by bit, and the original's weights stay."""
    subject, images = model(), smooth(6, 0)
    before = [p.clone() for p in subject.module().parameters()]
    first, second = (
        subject.padded("fit", PaddingOptions(images=images)).module() for _ in range(2)
    )
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(before, subject.module().parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_even_network_is_left_alone():
    """Kernels that their stride divides do not grow, and no tap moves."""
    net = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 2, 2))
    subject = wrap(net, spec=InputSpec(32, 32), device="cpu")
    variant = subject.padded("fit", PaddingOptions(images=smooth(2, 0, 32)))
    assert variant.treatment.layers == ()
    for a, b in zip(subject.module().parameters(), variant.module().parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_layer_beyond_the_period_keeps_its_function():
    """Its new taps stay 0, and the notes name it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU())
    subject = wrap(net, spec=InputSpec(64, 64), device="cpu")
    variant = subject.padded("fit", PaddingOptions(images=smooth(2, 0)))
    x = torch.rand(2, 3, 64, 64, generator=generator())
    assert torch.equal(variant.run(x).target, subject.run(x).target)
    assert "new taps left at 0, the same function: 2" in variant.notes


def test_without_images_the_error_says_what_to_give():
    """`fit` without images is an error that asks for them; other fills need none."""
    with pytest.raises(InputError, match=r"'fit'.*images="):
        model().padded("fit")


def test_a_bare_module_is_refused_with_what_to_call():
    """`fit` by `pad_module`, which has no images, is refused with the function to call."""
    with pytest.raises(InputError, match=r"load\(...\).padded\('fit', PaddingOptions"):
        pad_module(network(), "fit", torch.zeros(1, 3, 64, 64))


def test_an_initial_state_is_not_fitted():
    """An initial state is not fitted because it has no function to keep."""
    with pytest.raises(NotApplicableError, match="'fit'"):
        load("timm:test_resnet@init", device="cpu").padded(
            "fit", PaddingOptions(images=smooth(1, 0))
        )


def test_an_onnx_graph_is_refused_with_what_to_do(tmp_path):
    """Its weights are part of the graph and have no second derivatives."""
    path = save(convnet(), tmp_path / "a.onnx")
    with pytest.raises(InputError, match="'fit'"):
        load(path, device="cpu").padded("fit", PaddingOptions(images=smooth(1, 0)))


def test_an_audit_fits_on_images_that_it_does_not_measure_on():
    """Dead leaves of another stream; the record says how many, and fidelity stands beside it."""
    subject = model()
    own = open_fit_images(Settings()).load(subject.spec)
    shown = open_images("dead-leaves", FITTED, 0).load(subject.spec)
    assert not any(torch.equal(a, b) for a in own for b in shown)
    records = audit(network(), ("deadpixel",), ("fit",), count=2, device="cpu", size=(64, 64))
    assert {(r.suite, r.status) for r in records} == {("deadpixel", "ok"), ("fidelity", "ok")}
    held = next(record.notes for record in records if record.suite == "deadpixel")
    assert any(note.startswith(f"fitted on {FITTED} unlabelled") for note in held)


def test_everything_stays_on_the_device_of_the_module(monkeypatch):
    """Run on `meta`, which refuses to meet the CPU; the one branch on values is taken as it is."""

    def again(_scalar, x, watch, found):
        last = watch.seen[-1][2]
        return torch.autograd.grad(last, x, found[-1], retain_graph=True, create_graph=True)[0]

    monkeypatch.setattr(padding_fit, "_again", again)
    layers = [nn.Conv2d(3, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 4, 2, 1, groups=8), nn.ReLU()]
    net = nn.Sequential(*layers).to("meta")
    fit = Fit(net, ["0", "2"], net, torch.rand(6, 3, 64, 64, device="meta"))
    assert fit.solve() == ["0", "2"]
    assert all(site.taps.is_meta for site in fit.sites.values())
