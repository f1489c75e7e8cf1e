"""Networks to be trained: sizes, seeds, timm's architectures, and weights from files."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from perimetry.adapters.errors import ModelFileError, UnknownNameError, WeightsError
from perimetry.adapters.export import export_onnx
from perimetry.adapters.pytorch.model import wrap
from perimetry.adapters.pytorch.small_resnet import SIZES, SmallResNet
from perimetry.adapters.trainable import open_trainable, pad_trainable

SIZE = (32, 32)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("name", "millions"), [("small-resnet", 0.34), ("tiny-resnet", 0.08)])
def test_the_small_networks_have_the_size_they_say(name, millions):
    """The networks for ten classes have the stated millions of parameters to two digits."""
    assert count(open_trainable(name, 10, SIZE).module) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("name", SIZES)
def test_the_small_networks_have_stride_8_and_five_uneven_layers(name):
    """Stem, two blocks and their shortcuts; the target is the last map, without being named."""
    network = open_trainable(name, 3, (40, 48))
    model = wrap(network.module, spec=network.spec)
    assert (model.target.height, model.target.width) == (5, 6)
    grown = pad_trainable(network, "zero").layers
    assert [(layer.kernel, layer.padded_kernel) for layer in grown] == [
        ((3, 3), (4, 4)),
        ((3, 3), (4, 4)),
        ((1, 1), (2, 2)),
        ((3, 3), (4, 4)),
        ((1, 1), (2, 2)),
    ]


def test_a_seed_gives_the_same_weights_and_leaves_the_global_generator_alone():
    """Equal seeds give equal weights, another seed others, and torch's generator stays."""
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    a, b, c = (open_trainable("tiny-resnet", 2, SIZE, seed=s).module.head.weight for s in (1, 1, 2))
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_any_architecture_of_timm_can_be_trained():
    """A convolutional architecture and one of fixed size take the given classes and size."""
    for name in ("test_resnet", "test_vit"):
        network = open_trainable(f"timm:{name}@init", 7, (64, 64))
        network.module.eval()
        assert network.module(network.spec.blank()).shape == (1, 7)
        assert all(p.requires_grad for p in network.module.parameters())


def test_weights_from_a_file_are_taken_but_for_another_classifier(tmp_path):
    """The body is the file's; a classifier for other classes is newly drawn."""
    given = open_trainable("tiny-resnet", 5, SIZE, seed=9).module
    path = tmp_path / "weights.safetensors"
    save_file(given.state_dict(), path)
    same = open_trainable(f"tiny-resnet@{path}", 5, SIZE).module
    other = open_trainable(f"tiny-resnet@{path}", 2, SIZE).module
    for name, value in given.state_dict().items():
        assert torch.equal(same.state_dict()[name], value)
        assert name.startswith("head.") or torch.equal(other.state_dict()[name], value)
    assert other.head.out_features == 2


def test_weights_of_a_timm_architecture_come_from_a_file(tmp_path):
    """A file of timm's thousand classes loads into a network of other classes."""
    import timm

    given = timm.create_model("test_resnet", pretrained=False)
    path = tmp_path / "weights.safetensors"
    save_file(given.state_dict(), path)
    module = open_trainable(f"timm:test_resnet@{path}", 3, (64, 64)).module
    name, first = next(iter(given.state_dict().items()))
    assert torch.equal(module.state_dict()[name], first)
    assert module.get_classifier().out_features == 3


@pytest.mark.parametrize("name", ["mobilenetv2_035", "test_efficientnet", "test_vit"])
def test_beside_given_weights_a_classifier_begins_as_torch_begins_a_layer(tmp_path, name):
    """Its weights lie within 1/sqrt(inputs) for two classes, and a seed gives the same ones."""
    import timm

    given = timm.create_model(name, pretrained=False)
    size = given.pretrained_cfg["input_size"][1:]
    path = tmp_path / "weights.safetensors"
    save_file(given.state_dict(), path)
    heads = [
        open_trainable(f"timm:{name}@{path}", 2, size, seed=s).module.get_classifier()
        for s in (4, 4, 5)
    ]
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert not torch.equal(heads[0].weight, heads[2].weight)
    reach = heads[0].in_features ** -0.5
    assert 0.8 * reach < float(heads[0].weight.detach().abs().max()) <= reach


def test_weights_under_other_names_are_taken_as_every_command_takes_them(tmp_path):
    """A file that fits in order and shape, such as torchvision's, is trained as it is audited."""
    given = open_trainable("timm:resnet18@init", 1000, (64, 64), seed=3).module.state_dict()
    renamed = {f"layer{i}.{key.rpartition('.')[2]}": v for i, (key, v) in enumerate(given.items())}
    torch.save(renamed, tmp_path / "other.pth")
    found = open_trainable(f"timm:resnet18@{tmp_path / 'other.pth'}", 5, (64, 64)).module
    for key, value in found.state_dict().items():
        assert key.startswith("fc.") or torch.equal(value, given[key]), key


def test_weights_that_do_not_fit_are_refused(tmp_path):
    """Those of another network, of none, and a file that is no weights."""
    path = tmp_path / "weights.safetensors"
    save_file(SmallResNet(2, width=8).state_dict(), path)
    with pytest.raises(WeightsError, match="do not fit"):
        open_trainable(f"tiny-resnet@{path}", 2, SIZE)
    with pytest.raises(WeightsError, match="no weights file"):
        open_trainable("tiny-resnet@nowhere.pth", 2, SIZE)
    path.write_bytes(b"x")
    with pytest.raises(ModelFileError, match=r"weights\.safetensors"):
        open_trainable(f"tiny-resnet@{path}", 2, SIZE)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("tiny-resnets", "did you mean tiny-resnet"),
        ("timm:resnet19@init", "did you mean .*resnet1"),
    ],
)
def test_unknown_networks_get_near_names(name, hint):
    """A misspelt network of this package or of timm gets near names."""
    with pytest.raises(UnknownNameError, match=hint):
        open_trainable(name, 2, SIZE)


@pytest.mark.parametrize("fill", ["zero", "box", "fresh"])
def test_a_padded_network_exports_to_the_same_function(tmp_path, fill):
    """onnxruntime's logits of the file are those of the module."""
    import onnxruntime

    network = open_trainable("tiny-resnet", 4, SIZE, seed=2)
    pad_trainable(network, fill, seed=2)
    network.module.eval()
    path = export_onnx(network.module, network.spec.blank(), tmp_path / "x.onnx")
    x = torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": x.numpy()})
    torch.testing.assert_close(
        torch.from_numpy(logits), network.module(x).detach(), atol=1e-5, rtol=0
    )
