"""Stages, filters and other input sizes: what a model shows of itself, and that it stays as is."""

import numpy as np
import onnx
import pytest
import torch
from onnx_files import convnet, model, node, save, weights
from torch import nn

from perimetry.adapters.errors import InputError, NotApplicableError
from perimetry.adapters.export import export_onnx
from perimetry.adapters.feature_grid import Grid, StageCollector
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.model import wrap
from perimetry.adapters.pytorch.weights import module_tensors_digest

SPEC = InputSpec(32, 48)


class Steps(nn.Module):
    """Three resolutions, two maps at each, a gate, and a linear layer behind the target."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU())
        self.gate = nn.Conv2d(6, 6, 1)
        self.last = nn.Conv2d(6, 8, 3, 2, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.down(self.stem(x))
        x = self.last(x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True))))
        return self.head(x.mean((2, 3)))


def images(count=2, height=32, width=48):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def exported(folder, module=None, size=(32, 48), open_sizes=False):
    path = folder / "model.onnx"
    export_onnx((module or Steps()).eval(), images(2, *size), path, spec=InputSpec(*size))
    if open_sizes:
        proto = onnx.load_model(path)
        for place, name in ((2, "height"), (3, "width")):
            proto.graph.input[0].type.tensor_type.shape.dim[place].dim_param = name
        del proto.graph.value_info[:]
        save(proto, path)
    return load(str(path), device="cpu")


def test_stages_are_the_last_map_of_each_resolution_down_to_the_target():
    """Names, order and values are those of a pass by hand."""
    module = Steps().eval()
    with torch.no_grad():
        stem = module.stem(images())
        down = module.down(stem)
    found = wrap(module, spec=SPEC, device="cpu").stages(images())
    assert list(found) == ["stem", "down", "last"]
    torch.testing.assert_close(found["stem"], stem)
    torch.testing.assert_close(found["down"], down)
    assert found["last"].shape == (2, 8, 4, 6)


def test_the_last_stage_is_the_target_and_nothing_needs_a_gradient():
    """Equal bit for bit, even if the input requires a gradient."""
    opened = wrap(Steps(), spec=SPEC, device="cpu")
    found = opened.stages(images().requires_grad_())
    *_, last = found.values()
    torch.testing.assert_close(last, opened.run(images()).target, rtol=0, atol=0)
    assert not any(stage.requires_grad for stage in found.values())


def test_stages_end_at_a_named_target():
    """With the target `down.0` there are two stages."""
    opened = wrap(Steps(), spec=SPEC, device="cpu", target="down.0")
    assert list(opened.stages(images())) == ["stem", "down.0"]


def test_a_larger_map_on_the_way_down_is_no_stage():
    """A 197 x 197 map between two of 14 x 14 is left out."""
    found: StageCollector[str] = StageCollector()
    for name, side in (("patches", 14), ("attention", 197), ("block", 14), ("merged", 7)):
        found.add(Grid(name, "NCHW", 1, side, side), name)
    assert found.end(Grid("t", "NCHW", 1, 7, 7), "t") == ["block", "t"]


class WithTable(Steps):
    """The same with a table of biases for two heads, as attention by position has it."""

    def __init__(self):
        super().__init__()
        self.table = nn.Linear(2, 6)
        self.register_buffer("places", torch.randn(2, 8, 12, 2))

    def forward(self, x):
        x = self.down(self.stem(x))
        biases = self.table(self.places).mean(0).permute(2, 0, 1)
        return self.head(self.last(x + biases).mean((2, 3)))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_table_of_as_many_rows_as_images_is_no_stage(count):
    """The stages of a batch are the same whatever its length."""
    found = wrap(WithTable(), spec=SPEC, device="cpu").stages(images(count))
    assert list(found) == ["stem", "down", "last"]


def test_stages_leave_no_hooks_and_no_change_behind():
    """The target of a later pass is equal bit for bit."""
    opened = wrap(Steps(), spec=SPEC, device="cpu")
    before = opened.run(images()).target
    opened.stages(images())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in opened.module().modules())
    torch.testing.assert_close(opened.run(images()).target, before, rtol=0, atol=0)


def test_an_onnx_file_has_the_stages_of_the_module_it_was_made_from(tmp_path):
    """Shapes are equal, and so are the values of all maps but one."""
    ours = wrap(Steps(), spec=SPEC, device="cpu").stages(images())
    theirs = exported(tmp_path).stages(images())
    assert [s.shape for s in theirs.values()] == [s.shape for s in ours.values()]
    for name, other in zip(ours, theirs.values(), strict=True):
        # The gate's product lies on the way too, and is the last map of its resolution.
        if name != "down":
            torch.testing.assert_close(other, ours[name], rtol=1e-5, atol=1e-6)


def test_a_model_without_a_spatial_map_has_no_stages():
    """A model without a spatial map raises NotApplicableError."""
    opened = wrap(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 48, 5)), spec=SPEC, device="cpu")
    with pytest.raises(NotApplicableError):
        opened.stages(images())


def test_token_models_have_the_single_stage_that_their_tokens_make():
    """A ViT has one stage, of the size of the target."""
    opened = load("timm:test_vit@init", device="cpu", members=1)
    (only,) = opened.stages(opened.spec.blank()).values()
    assert only.shape[2:] == (opened.target.height, opened.target.width)


def test_filters_are_copies_of_the_kernels_by_layer_name():
    """Setting a copy to zero does not change the module."""
    opened = wrap(Steps(), spec=SPEC, device="cpu")
    found = opened.filters()
    assert list(found) == ["stem.0", "down.0", "gate", "last"]
    torch.testing.assert_close(found["last"], Steps().last.weight.detach())
    before = module_tensors_digest(opened.module())
    found["last"].zero_()
    assert module_tensors_digest(opened.module()) == before


def test_onnx_filters_are_the_stored_kernels_by_node_name(tmp_path):
    """Setting a copy to zero does not change the file."""
    found = load(save(convnet(), tmp_path / "m.onnx"), device="cpu").filters()
    assert list(found) == ["c1", "map"]
    np.testing.assert_array_equal(found["c1"], weights(8, 3, 3, 3))
    found["c1"].zero_()
    again = load(str(tmp_path / "m.onnx"), device="cpu").filters()
    np.testing.assert_array_equal(again["c1"], weights(8, 3, 3, 3))


def test_a_kernel_computed_from_the_image_is_no_learned_filter(tmp_path):
    """Only the convolution with a stored weight is listed."""
    nodes = [
        node("ReduceMean", ["image"], ["taps"], keepdims=1),
        node("Conv", ["image", "taps"], ["one"]),
        node("Conv", ["image", "w"], ["map"], strides=[2, 2]),
    ]
    constants = {"w": weights(4, 1, 3, 3)}
    proto = model(nodes, constants, dims=[1, 1, 16, 16], outputs=["map"], opset=17)
    assert list(load(save(proto, tmp_path / "m.onnx"), device="cpu").filters()) == ["map"]


def test_a_resized_model_gives_what_the_module_gives_at_that_size():
    """65 x 33 pixels give 9 x 5 units; the original keeps its size."""
    module = Steps().eval()
    opened = wrap(module, spec=SPEC, device="cpu")
    variant = opened.resized(65, 33)
    assert (variant.spec.height, variant.spec.width) == (65, 33)
    assert (variant.target.name, variant.target.height, variant.target.width) == ("last", 9, 5)
    x = images(2, 65, 33)
    with torch.no_grad():
        torch.testing.assert_close(variant.run(x, logits=True).logits, module(x))
    assert (opened.spec, opened.target.height) == (SPEC, 4)


def test_a_resized_copy_of_a_padded_model_stays_padded_and_so_does_its_original():
    """Treatment, size of the original and target are those of 64 x 64."""
    variant = wrap(Steps(), spec=SPEC, device="cpu").padded("box").resized(64, 64)
    assert variant.treatment.fill == "box"
    assert variant.original.spec == variant.spec
    assert variant.run(images(2, 64, 64)).target.shape == (2, 8, 8, 8)


def test_selecting_on_a_copy_of_a_calibrated_model_leaves_the_model_as_it_was():
    """Calibrating the resized model changes only its own norms."""
    opened = load("timm:test_resnet@init", device="cpu", members=1)
    x = opened.spec.prepare(torch.rand(4, 3, opened.spec.height, opened.spec.width))
    opened.select(0, x)
    before = module_tensors_digest(opened.module())
    variant = opened.resized(opened.spec.height + 32, opened.spec.width + 32)
    variant.select(0, 3 * torch.rand(4, 3, variant.spec.height, variant.spec.width))
    assert module_tensors_digest(variant.module()) != before
    assert module_tensors_digest(opened.module()) == before


def test_a_refused_size_names_the_sizes_that_are_taken():
    """A ViT refuses 225 x 225 and names 224 x 224."""
    opened = load("timm:vit_tiny_patch16_224@init", device="cpu", members=1)
    with pytest.raises(InputError, match=r"225 x 225.*224 x 224$"):
        opened.resized(225, 225)
    assert opened.resized(224, 224).target == opened.target


class Patches(nn.Module):
    """Takes whole patches of 16 pixels only, however many."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 16, 16)

    def forward(self, x):
        if x.shape[2] % 16 or x.shape[3] % 16:
            raise ValueError("whole patches only")
        return self.conv(x)


def test_the_nearest_whole_strides_are_offered_where_the_model_takes_them():
    """A refused size of about 100 gets near multiples of 16 that the model takes."""
    opened = wrap(Patches(), spec=InputSpec(64, 64), device="cpu")
    with pytest.raises(InputError, match=r"64 x 64, 96 x 96, 112 x 112$"):
        opened.resized(100, 100)


@pytest.mark.parametrize("side", [0, -3, 10**6])
def test_a_size_that_no_image_has_is_refused(side):
    """Zero, negative and huge sides are an InputError."""
    with pytest.raises(InputError, match="16384"):
        wrap(Steps(), spec=SPEC, device="cpu").resized(side, 32)


@pytest.mark.parametrize("open_sizes", [False, True])
def test_an_onnx_file_is_resized_like_the_module_whatever_size_it_declares(tmp_path, open_sizes):
    """The targets at 65 x 33 pixels are equal to 1e-5, for a declared size and an open one."""
    module = Steps().eval()
    variant = exported(tmp_path, module, open_sizes=open_sizes).resized(65, 33)
    ours = wrap(module, spec=SPEC, device="cpu").resized(65, 33)
    x = images(2, 65, 33)
    torch.testing.assert_close(variant.run(x).target, ours.run(x).target, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sides", [("h", "w"), (32, 32)])
def test_an_onnx_file_whose_size_is_baked_in_further_down_refuses_another(tmp_path, sides):
    """A Reshape to a fixed size is found by running the graph."""
    nodes = [
        node("Conv", ["image", "w"], ["map"], strides=[2, 2]),
        node("Reshape", ["map", "shape"], ["flat"]),
        node("Gemm", ["flat", "v"], ["logits"]),
    ]
    constants = {"w": weights(4, 3, 2, 2), "shape": np.array([-1, 1024]), "v": weights(1024, 5)}
    proto = model(nodes, constants, dims=["b", 3, *sides], outputs=["logits"], out_dims=["b", 5])
    opened = load(save(proto, tmp_path / "m.onnx"), device="cpu", spec=InputSpec(32, 32))
    with pytest.raises(InputError, match=r"33 x 35.*32 x 32"):
        opened.resized(33, 35)
