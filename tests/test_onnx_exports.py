"""Exports as models: logits, maps, gradients and energies of the torch models they came from."""

import warnings

import pytest
import timm
import torch
from onnx_files import read

from perimetry.adapters.export import export_onnx
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.onnx.graph import Mode
from perimetry.adapters.onnx.interpreter import Interpreter
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.suites.architecture.propagate import energy_map

ARCHITECTURES = {
    "resnet18": {},
    "mobilenetv3_small_100": {},
    "vit_tiny_patch16_224": {"img_size": 64},
}
SPEC = InputSpec(64, 64, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))


@pytest.fixture(scope="module")
def networks():
    made = {}
    for name, settings in ARCHITECTURES.items():
        torch.manual_seed(0)
        made[name] = timm.create_model(name, pretrained=False, **settings).eval()
    return made


@pytest.fixture(scope="module")
def exported(networks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    paths = {}

    def export(name, exporter):
        if (name, exporter) not in paths:
            path = folder / f"{name}_{exporter}.onnx"
            x = torch.randn(1, 3, 64, 64)
            export_onnx(networks[name], x, path, spec=SPEC, dynamo=exporter == "dynamo")
            paths[name, exporter] = str(path)
        return paths[name, exporter]

    return export


def images(count, seed=1):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def distance(a, b):
    return float((a - b).detach().norm() / b.norm())


EXPORTS = [(n, e) for n in ARCHITECTURES for e in ("torchscript", "dynamo")]


@pytest.mark.parametrize(("name", "exporter"), EXPORTS)
def test_an_export_gives_the_logits_and_the_very_feature_map_of_the_torch_model(
    name, exporter, networks, exported
):
    """Logits and target of the file differ from those of the module by less than 1e-5."""
    torch_model = load(networks[name], spec=SPEC)
    onnx_model = load(exported(name, exporter), device="cpu")
    x = images(3)
    mine = onnx_model.run(x, logits=True)
    theirs = torch_model.run(x, logits=True)
    assert distance(mine.logits, theirs.logits) < 1e-5
    assert mine.target.shape == theirs.target.shape
    assert distance(mine.target, theirs.target) < 1e-5
    assert torch_model.target.name == "forward_features"


@pytest.mark.parametrize(("name", "exporter"), EXPORTS)
def test_the_input_gradient_of_an_export_is_that_of_the_torch_model(
    name, exporter, networks, exported
):
    """An export's gradient equals the module's to 1e-2 in float32 and 1e-6 in float64."""
    onnx_model = load(exported(name, exporter), device="cpu")
    assert onnx_model.why_no_gradients is None
    x = images(2).requires_grad_(True)
    signs = torch.sign(images(1, seed=2).flatten())
    mine = _gradient(onnx_model.run(x).target, x, signs)
    theirs = _gradient(networks[name].forward_features(x), x, signs, onnx_model.target)
    assert distance(mine, theirs) < 1e-2

    exact = Interpreter(read(exported(name, exporter)), Mode(dtype=torch.float64))
    x = images(1).double().requires_grad_(True)
    raw = exact({"image": x}, [onnx_model.target.name])[onnx_model.target.name]
    mine = _gradient(raw, x, signs, onnx_model.target)
    network = networks[name].double()
    theirs = _gradient(network.forward_features(x), x, signs, onnx_model.target)
    networks[name].float()
    assert distance(mine, theirs) < 1e-6


def _gradient(raw, x, signs, grid=None):
    y = raw if grid is None else grid.read(raw)
    repeats = signs.repeat(y.numel() // signs.numel() + 1)[: y.numel()].to(y.dtype)
    return torch.autograd.grad((y.flatten() * repeats).sum(), x)[0]


@pytest.mark.parametrize(
    ("name", "dynamo"),
    [
        *((name, False) for name in ARCHITECTURES),
        ("resnet18", True),
        ("vit_tiny_patch16_224", True),
    ],
)
def test_a_file_with_a_fixed_batch_of_one_takes_any_batch(name, dynamo, networks, tmp_path):
    """A batch of three gives what the module gives, in forward and in gradient passes."""
    path = tmp_path / "fixed.onnx"
    x = images(1)
    settings = {"external_data": False, "verbose": False} if dynamo else {}
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(networks[name], (x,), str(path), dynamo=dynamo, **settings)
    model = open_onnx(path, device="cpu", spec=SPEC)
    assert not any("insists" in note for note in model.notes)
    x = images(3)
    with torch.no_grad():
        expected = networks[name](x)
    assert distance(model.run(x, target=False, logits=True).logits, expected) < 1e-5
    x.requires_grad_(True)
    assert distance(model.run(x, logits=True).logits, expected) < 1e-5


def test_an_exported_file_states_its_input_and_nothing_is_guessed(exported):
    """The preprocessing is read from the metadata of our own export."""
    model = load(exported("resnet18", "torchscript"), device="cpu")
    assert model.spec == SPEC
    assert model.spec.digest() == SPEC.digest()
    assert not any("guessed" in note for note in model.notes)


@pytest.mark.parametrize("fill", ["none", "box"])
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_the_energy_map_of_an_export_is_that_of_the_torch_model(exporter, fill, networks, exported):
    """Folded batch norms included: the expected sensitivity does not depend on the runtime."""
    maps = []
    for reference in (networks["resnet18"], exported("resnet18", exporter)):
        spec = SPEC if isinstance(reference, torch.nn.Module) else None
        net = load(reference, spec=spec, device="cpu")
        found = energy_map(net.padded(fill).skeleton(), (3, 64, 64))[0]
        maps.append(found / found.sum())
    torch.testing.assert_close(*maps, rtol=1e-6, atol=1e-9)
    net.skeleton()
    assert any("20 batch norms folded" in note for note in net.notes)
