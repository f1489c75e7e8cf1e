"""The shared pass: batching, signs, out of memory, weight sets."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from perimetry import audit
from perimetry.adapters.device import send
from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.deadpixel.suite import DEADPIXEL
from perimetry.suites.erf.suite import ERF
from perimetry.suites.images import open_images
from perimetry.suites.measuring.gradients import gradient_maps, random_signs, take_gradients

SPEC = InputSpec(32, 32, mean=(0.5,) * 3, std=(0.25,) * 3)


def convnet() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, 2, 1)
    )


def all_probes(model, seed=0):
    return [
        *(p for name in ERF.protocols for p in ERF.probes(model, name, seed)),
        *DEADPIXEL.probes(model, "energy", seed),
    ]


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_batch_size_changes_nothing_beyond_float_noise(batch):
    """Every map is the same at each batch size, within the rounding of float32."""
    model = wrap(convnet(), spec=SPEC)
    images = open_images("dead-leaves", 6).load(SPEC)
    whole = gradient_maps(model, images, all_probes(model), batch=6).maps
    split = gradient_maps(model, images, all_probes(model), batch=batch).maps
    for name, maps in whole.items():
        np.testing.assert_allclose(split[name], maps, rtol=1e-4, atol=1e-6 * maps.max())


def test_the_same_seed_gives_the_same_bits():
    """Two measurements with one seed are equal bit by bit."""
    images = open_images("dead-leaves", 4).load(SPEC)
    runs = [wrap(convnet(), spec=SPEC) for _ in range(2)]
    one, two = (gradient_maps(m, images, all_probes(m)).maps for m in runs)
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_the_energy_map_scales_with_the_square_of_the_output():
    """Three times the last layer's weights give nine times the energy map."""
    images = open_images("dead-leaves", 2).load(SPEC)
    module = convnet()
    one = wrap(module, spec=SPEC)
    with torch.no_grad():
        module[-1].weight *= 3
    three = wrap(module, spec=SPEC)
    a, b = (gradient_maps(m, images, all_probes(m)).maps["deadpixel/energy"] for m in (one, three))
    np.testing.assert_allclose(b.sum(1), 9 * a.sum(1), rtol=1e-4)


def test_the_energy_map_is_unbiased_for_the_squared_jacobian_of_all_units():
    """The mean energy map is the squared Jacobian in pixel units, summed over units."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(3, 2, 3, 2, 1), nn.Tanh()).double()
    spec = InputSpec(8, 8, std=(0.5, 1.0, 2.0))
    model = wrap(module, spec=spec)
    image = torch.rand(1, 3, 8, 8)
    x = spec.prepare(image).double()
    jacobian = torch.autograd.functional.jacobian(module, x).flatten(0, 3)[:, 0]
    per_pixel = jacobian / torch.tensor([0.5, 1.0, 2.0]).view(1, 3, 1, 1)
    expected = per_pixel.square().sum(0).numpy()
    probes = DEADPIXEL.probes(model, "energy", 0)
    maps = gradient_maps(model, image.expand(4000, -1, -1, -1), probes, batch=500).maps
    samples = maps["deadpixel/energy"]
    error = samples.std(0) / np.sqrt(len(samples))
    assert (np.abs(samples.mean(0) - expected) < 5 * error + 1e-12).all()


def test_random_signs_depend_on_the_image_and_not_on_its_batch():
    """The signs of an image depend on its number, the seed and the stream, not on its batch."""
    like = torch.zeros(3, 5, 7)
    signs = random_signs(like, [4, 9, 2], seed=1, stream=0)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    alone = random_signs(like[:1], [9], seed=1, stream=0)
    assert torch.equal(signs[1], alone[0])
    assert not torch.equal(signs[0], signs[1])
    assert not torch.equal(alone, random_signs(like[:1], [9], seed=1, stream=1))
    assert not torch.equal(alone, random_signs(like[:1], [9], seed=2, stream=0))


def test_random_signs_are_the_bits_of_each_images_own_generator():
    """The signs are the first 35 bits of a generator seeded by seed, stream and image."""
    signs = random_signs(torch.zeros(2, 5, 7), [3, 8], seed=1, stream=2)
    for row, index in zip(signs, (3, 8), strict=True):
        octets = np.random.default_rng([1, 2, index]).bytes(5)
        bits = [(octet >> place) & 1 for octet in octets for place in range(7, -1, -1)][:35]
        assert row.flatten().tolist() == [2.0 * bit - 1 for bit in bits]


class Questions(TorchDispatchMode):
    """Counts what would make a host wait for its device: numbers, comparisons, copies."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in {"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select"}:
            self.asked.append(name)
        return func(*args, **(kwargs or {}))


def test_no_pass_waits_for_a_number():
    """Over every protocol's probes; that a number would be noticed is seen beside it."""
    model = wrap(convnet(), spec=SPEC)
    images = open_images("dead-leaves", 5).load(SPEC)
    model.module()
    with Questions() as none:
        take_gradients(model, images, all_probes(model), batch=2)
    assert none.asked == []
    with Questions() as one:
        bool(torch.ones(1).sum() > 0)
    assert one.asked


def test_on_the_cpu_nothing_is_copied_on_its_way():
    """Sending a tensor to the device that it is on returns the same tensor."""
    x = torch.ones(3)
    assert send(x, torch.device("cpu")) is x


def test_a_gradient_that_says_nothing_costs_no_other_its_map():
    """Every channel of the target has its opposite: their sum is 0, their energy is not."""
    conv = nn.Conv2d(3, 4, 3, 2, 1, bias=False)
    with torch.no_grad():
        conv.weight[2:] = -conv.weight[:2]
    model = wrap(conv, spec=SPEC)
    images = open_images("dead-leaves", 3).load(SPEC)
    probes = {name: ERF.probes(model, name, 0)[0] for name in ("energy", "luo2016")}
    found = take_gradients(model, images, list(probes.values()))
    assert set(found.maps) == {probes["energy"].name}
    assert found.of([probes["energy"]])
    with pytest.raises(NotApplicableError):
        found.of(probes.values())


def test_a_skipped_protocol_costs_the_others_no_second_pass(monkeypatch):
    """Three protocols of which one is refused take a single call."""
    conv = nn.Conv2d(3, 4, 3, 2, 1, bias=False)
    with torch.no_grad():
        conv.weight[2:] = -conv.weight[:2]
    calls = []

    def counted(*args, **options):
        calls.append(args)
        return take_gradients(*args, **options)

    monkeypatch.setattr("perimetry.suites.measuring.gradients.take_gradients", counted)
    suites = ("erf:energy", "erf:luo2016", "deadpixel:energy")
    records = audit(conv, suites, count=4, device="cpu")
    states = {f"{r.suite}:{r.protocol}": r.status for r in records}
    assert states == {"erf:energy": "ok", "erf:luo2016": "skipped", "deadpixel:energy": "ok"}
    assert len(calls) == 1


def test_the_batch_halves_when_memory_runs_out_and_the_notes_say_so(monkeypatch):
    """Out of memory halves the batch until it fits, with a note and unchanged maps."""
    model = wrap(convnet(), spec=SPEC)
    images = open_images("dead-leaves", 7).load(SPEC)
    expected = gradient_maps(model, images, all_probes(model)).maps
    run = model.run

    def small(x, **options):
        if len(x) > 2:
            raise torch.OutOfMemoryError("too much")
        return run(x, **options)

    monkeypatch.setattr(model, "run", small)
    result = gradient_maps(model, images, all_probes(model), batch=7)
    assert result.batch <= 2
    assert any("out of memory" in note for note in result.notes)
    for name, maps in expected.items():
        np.testing.assert_allclose(result.maps[name], maps, rtol=1e-4, atol=1e-6 * maps.max())


def test_a_constant_target_is_refused_with_its_reason():
    """A target whose gradient is zero everywhere raises NotApplicableError."""
    module = nn.Conv2d(3, 4, 3, 2, 1)
    nn.init.zeros_(module.weight)
    model = wrap(module, spec=SPEC)
    with pytest.raises(NotApplicableError, match="zero everywhere"):
        gradient_maps(model, torch.rand(2, 3, 32, 32), DEADPIXEL.probes(model, "energy", 0))


def test_gradients_that_are_not_finite_are_refused_with_their_share():
    """Infinite weights raise NotApplicableError with the share of such pixels."""
    model = wrap(nn.Conv2d(3, 4, 3, 2, 1), spec=SPEC)
    with torch.no_grad():
        model.module().weight.fill_(float("inf"))
    with pytest.raises(NotApplicableError, match="not finite on"):
        gradient_maps(model, torch.rand(2, 3, 32, 32), DEADPIXEL.probes(model, "energy", 0))
