"""The maps behind the blocks of a network: planted blocks, and modules against their files."""

import pytest
import torch
from corpus import CORPUS, built, exported
from torch import nn

from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.pytorch.model import wrap


def opened(name, **options):
    return wrap(built(name), name=name, spec=InputSpec(*CORPUS[name].size), device="cpu", **options)


def names(blocks):
    return [grid.name for grid in blocks.maps]


ALIKE = ("classifier", "ViT", "ViT with a heat map", "SegFormer", "text reader", "DETR")
TIMM = ("timm test_resnet", "timm test_vit", "timm test_convnext", "timm test_efficientnet")


@pytest.mark.parametrize("name", [*ALIKE, *TIMM])
def test_a_module_and_its_file_have_the_same_blocks(name, tmp_path):
    """The same number of maps, with the same values, and the same map before the final norm."""
    model = opened(name)
    file = open_onnx(exported(name, tmp_path), device="cpu", spec=model.spec)
    x = model.spec.prepare(torch.rand(2, 3, *CORPUS[name].size))
    ours, theirs = model.blocks(), file.blocks()
    assert len(ours.maps) > 2
    assert len(ours.maps) == len(theirs.maps)
    assert ours.maps.index(ours.unnormed) == theirs.maps.index(theirs.unnormed)
    for one, other in zip(model.run_each(x, ours.maps), file.run_each(x, theirs.maps), strict=True):
        torch.testing.assert_close(one.target, other.target, rtol=1e-3, atol=1e-3)


def test_a_transformer_has_its_embedding_its_blocks_and_its_norm():
    """Both residual sums of a block count as one block; the last is what the norm is applied to."""
    blocks = opened("ViT").blocks()
    assert names(blocks) == [":add", "blocks.0", "blocks", "norm"]
    assert blocks.unnormed.name == "blocks"
    assert names(load("timm:test_vit@init", device="cpu").blocks())[:2] == ["pos_drop", "blocks.0"]


def test_a_target_within_the_network_ends_its_way():
    """Of a target that the user names the blocks behind it are none; nothing norms it."""
    blocks = opened("ViT", target="blocks.0").blocks()
    assert names(blocks) == [":add", "blocks.0"]
    assert blocks.unnormed == blocks.maps[-1]


class Residual(nn.Module):
    """Padding of its own, then two residual blocks of which the second acts on single units."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, 4)
        self.mix, self.unit, self.last = (nn.Conv2d(4, 4, k, padding=k // 2) for k in (3, 1, 3))

    def forward(self, x):
        y = self.stem(nn.functional.pad(x * 2, (2, 2, 2, 2)))
        y = y + self.mix(y).relu()
        y = y + self.unit(y).relu()
        return self.last(y).relu()


def test_blocks_end_before_units_are_mixed_again():
    """What pads the image is no block, what acts on single units belongs to the block before."""
    model = wrap(Residual().eval(), spec=InputSpec(32, 32), device="cpu")
    blocks = model.blocks()
    assert names(blocks) == ["stem", ":add#2", ":relu#3"]
    assert blocks.unnormed == blocks.maps[-1]  # channels first: norms are those of the target


def test_the_map_of_a_block_is_what_the_next_layer_reads():
    """One pass gives what the layers themselves compute, step by step."""
    module = Residual().eval()
    model = wrap(module, spec=InputSpec(32, 32), device="cpu")
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        y = module.stem(nn.functional.pad(x * 2, (2, 2, 2, 2)))
        y = y + module.mix(y).relu()
        expected = y + module.unit(y).relu()
    found = model.run_each(x, model.blocks().maps)
    torch.testing.assert_close(found[1].target, expected)
