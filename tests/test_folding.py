"""Folding batch norms: the same function, only where it is the same."""

import pytest
import torch
from torch import nn

from perimetry.adapters.load import load
from perimetry.adapters.pytorch.batch_norm_folding import find_pairs, folded


def trained(module):
    """`module` with norms whose statistics and scales are anything but 0 and 1."""
    torch.manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.normal_(layer.bias)
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return module.eval()


class Read(nn.Module):
    """The convolution is read by its norm, and once more beside it."""

    def __init__(self, *, twice):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.twice = twice

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y.relu() if self.twice else self.norm(y)


X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def run(module):
    return [module(X)]


def test_a_norm_behind_a_convolution_is_folded_into_the_same_function():
    """The folded copy computes the same values without its norm; the original keeps it."""
    module = trained(Read(twice=False))
    pairs = find_pairs(module, run)
    assert pairs == {"norm": "conv"}
    variant = folded(module, pairs)
    assert isinstance(variant.norm, nn.Identity)
    torch.testing.assert_close(variant(X), module(X))
    assert isinstance(module.norm, nn.BatchNorm2d)


def test_a_convolution_that_is_read_twice_is_left_alone():
    """A convolution whose output has a second reader is not paired with its norm."""
    assert find_pairs(trained(Read(twice=True)), run) == {}


def test_weights_that_are_not_folded_are_shared():
    """A layer outside the pairs has the same tensor in the folded copy."""
    module = trained(nn.Sequential(Read(twice=False), nn.Conv2d(4, 4, 1)))
    variant = folded(module, find_pairs(module, run))
    assert variant[1].weight is module[1].weight


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"])
def test_gradients_in_bfloat16_are_those_in_float32_to_their_precision(name):
    """Gradients in bfloat16 have the energy of float32 within 5 %; outputs stay float32."""
    images = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    gradients = []
    for precision in ("float32", "bfloat16"):
        model = load(f"timm:{name}@init", device="cpu", members=1, precision=precision)
        x = model.spec.prepare(images)
        model.select(0, x)
        x = x.requires_grad_()
        target = model.run(x).target
        assert target.dtype == torch.float32
        signs = torch.randn(target.shape, generator=torch.Generator().manual_seed(1)).sign()
        (gradient,) = torch.autograd.grad((target * signs).sum(), x)
        gradients.append(gradient)
        assert model.run(x.detach(), logits=True).logits.dtype == torch.float32
        assert {p.dtype for p in model.module().parameters()} == {torch.float32}
    a, b = gradients
    assert not torch.equal(a, b)
    assert (a - b).norm() < 0.5 * a.norm()  # activations at a kink fall to the other side
    assert abs(b.square().sum() / a.square().sum() - 1) < 0.05
