"""The coarse receptive field by blocks: planted truths, and the energy map it is unbiased for."""

import numpy as np
import pytest
import torch
from onnx_files import convnet, node, save
from torch import nn

from perimetry.adapters.errors import InputError
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.base import Context
from perimetry.suites.erf.blocks import block_maps, block_passes, block_places, default_block
from perimetry.suites.erf.suite import Erf
from perimetry.suites.images import open_images
from perimetry.suites.measuring.gradients import gradient_maps
from perimetry.suites.measuring.step_size import StepSize

GREY = InputSpec(24, 24, channels=1, mean=(0.5,), std=(0.25,))
SIDE = 8


def private(gains) -> nn.Conv2d:
    """A unit of one channel a pixel of its window, each with a gain of its own: no mixing."""
    conv = nn.Conv2d(1, gains.numel(), gains.shape, gains.shape, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        for channel, gain in enumerate(gains.flatten()):
            conv.weight[channel, 0].view(-1)[channel] = gain
    return conv


def found_in(module, *, spec=GREY, count=4, seed=0, protocol="blocks", **settings):
    model = wrap(module, spec=spec, device="cpu", precision="float64")
    images = open_images("dead-leaves", count, seed).load(spec)
    suite, context = Erf(**settings), Context(images, seed=seed, batch=16, draws=20)
    probes = suite.probes(model, protocol, seed)
    maps = gradient_maps(model, images, probes).maps if probes else {}
    return suite.measure(model, protocol, maps, context)


def block_means(values, block):
    """Literal: every pixel gets the mean over its block."""
    out = np.zeros_like(values)
    for i in range(0, values.shape[0], block):
        for j in range(0, values.shape[1], block):
            out[i : i + block, j : j + block] = values[i : i + block, j : j + block].mean()
    return out


def test_a_planted_field_comes_out_exactly_as_its_block_means():
    """Unit (1, 1) sees rows and columns 8 to 15, each pixel with its gain, and nothing else."""
    gains = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(1)) + 0.5
    found = found_in(private(gains), block=5)
    energy = np.zeros((24, 24))
    energy[8:16, 8:16] = (gains.numpy() / 0.25) ** 2
    np.testing.assert_allclose(found.maps["erf"], block_means(energy, 5), rtol=1e-4, atol=1e-9)


def test_every_unit_of_a_grid_is_read_from_the_same_passes():
    """The field of each of 9 units is its own window, and the passes serve all of them."""
    found = found_in(private(torch.ones(SIDE, SIDE)), block=8, grid=3)
    maps = found.maps["units"]
    assert maps.shape == (3, 3, 24, 24)
    for i in range(3):
        for j in range(3):
            expected = np.zeros((24, 24))
            expected[8 * i : 8 * i + 8, 8 * j : 8 * j + 8] = 16.0
            np.testing.assert_allclose(maps[i, j], expected, rtol=1e-4, atol=1e-9)
    assert found.tables["blocks"][0]["passes"] == (2 * 9 + 4) * 4 + 12


def test_blocks_are_unbiased_for_the_energy_map_of_a_curved_network():
    """Means over 150 seeds of signs lie within four standard errors of gradients' block sums."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 5, 2, 2), nn.Tanh(), nn.Conv2d(6, 5, 5, 2, 2))
    model = wrap(net, spec=GREY, device="cpu", precision="float64")
    images = open_images("dead-leaves", 1).load(GREY)
    x = GREY.prepare(images).double().requires_grad_()
    unit = model.run(x).target[0, :, 3, 3]
    rows = [torch.autograd.grad(c, x, retain_graph=True)[0][0, 0] for c in unit]
    energy = (torch.stack(rows) / 0.25).square().sum(0).numpy()
    maps = np.stack(
        [
            block_maps(model, Context(images, seed=s), [(3, 3)], block=6, images=1).maps[3, 3][0]
            for s in range(150)
        ]
    )
    error = maps.std(0, ddof=1) / np.sqrt(len(maps))
    expected = block_means(energy, 6)
    assert (np.abs(maps.mean(0) - expected) <= 4 * error + 1e-3 * expected.max()).all()
    assert expected.max() > 0


def test_sizes_of_a_field_agree_with_those_by_gradients_within_a_block():
    """Radius and offsets by blocks lie within 2 pixels of those by gradients."""
    torch.manual_seed(0)
    spec = InputSpec(48, 48, mean=(0.5,) * 3, std=(0.25,) * 3)
    layers = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Conv2d(16, 32, 3, 2, 1))
    by_blocks = found_in(net, spec=spec, block=3)
    exact = found_in(net, spec=spec, protocol="energy")
    for name in ("radius", "offset_y", "offset_x"):
        assert by_blocks.metrics[name].value == pytest.approx(exact.metrics[name].value, abs=2.0)
    row = by_blocks.tables["blocks"][0]
    assert row["step_error"] < 0.1
    assert 0 < row["sampling_error"] < 0.5


def test_a_file_without_gradients_has_its_field_and_says_what_it_cost(tmp_path):
    """A graph with an operator without gradient has a field, and a note states its passes."""
    proto = convnet()
    proto.graph.node[1].CopyFrom(node("Acosh", ["above"], ["r1"]))
    proto.graph.node.insert(1, node("Abs", ["c1"], ["abs"]))
    proto.graph.node.insert(2, node("Add", ["abs", "one"], ["above"]))
    proto.graph.initializer.append(
        type(proto.graph.initializer[0])(name="one", data_type=1, raw_data=b"\xcd\xcc\x8c\x3f")
    )
    model = open_onnx(save(proto, tmp_path / "a.onnx"), device="cpu")
    suite = Erf()
    assert suite.skip(model, "energy").startswith("no gradient route: ")
    assert suite.skip(model, "blocks") is None
    assert suite.probes(model, "blocks", 0) == ()
    images = open_images("dead-leaves", 4).load(model.spec)
    found = suite.measure(model, "blocks", {}, Context(images, batch=8, draws=20))
    blocks = len(block_places(32, 32, default_block(32, 32)))
    stated = block_passes(blocks, 4, StepSize(1.0))
    assert found.tables["blocks"][0]["passes"] == stated
    assert any(f"{stated} forward passes" in note for note in found.notes)
    assert found.metrics["radius"].value > 0


def test_blocks_cover_every_pixel_once_and_the_last_ones_may_be_smaller():
    """Blocks of 4 cover each pixel of a 10 x 7 image exactly once."""
    covered = np.zeros((10, 7), dtype=int)
    for rows, columns in block_places(10, 7, 4):
        covered[rows, columns] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize("name", ["block", "block_images"])
def test_a_size_below_one_is_refused(name):
    """A block size or number of block images of 0 is an InputError with the setting's name."""
    with pytest.raises(InputError, match=rf"erf\.{name} = 0"):
        Erf(**{name: 0})
