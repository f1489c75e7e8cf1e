"""Modules of unusual kinds are measured, or refused for the true reason, and stay as they were."""

import copy

import pytest
import torch
from torch import nn

from perimetry import audit
from perimetry.adapters.errors import InputError
from perimetry.adapters.pytorch.model import wrap
from perimetry.adapters.pytorch.weights import module_tensors_digest

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.ao.quantization:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning"),
]


class WithState(nn.Conv2d):
    """A convolution with an extra state."""

    def __init__(self, state):
        super().__init__(3, 8, 3, 2, 1)
        self.state = state

    def get_extra_state(self):
        return self.state

    def set_extra_state(self, state):
        self.state = state


def quantised(bits=torch.qint8, weight=1.0):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    with torch.no_grad():
        layers[3].weight.mul_(weight)
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(*layers), {nn.Linear}, bits)


@pytest.mark.parametrize(
    "state", [{"scale": 3}, None, [torch.ones(2), "a"], torch.float16, object()]
)
def test_a_module_with_an_extra_state_is_measured(state):
    """A wrapped module computes the same values with an extra state of any type."""
    module = nn.Sequential(WithState(state))
    model = wrap(module, size=(64, 64))
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model.run(x).target, module(x).detach())


def test_the_digest_depends_on_contents_of_extra_states_but_not_on_addresses():
    """An equal extra state keeps the digest, other contents change it, an address does not."""
    module = WithState({"scale": 3})
    before = module_tensors_digest(module)
    assert module_tensors_digest(copy.deepcopy(module)) == before
    module.state = {"scale": 4}
    assert module_tensors_digest(module) != before
    module.state = object()
    before = module_tensors_digest(module)
    module.state = object()
    assert module_tensors_digest(module) == before


@pytest.mark.parametrize("bits", [torch.qint8, torch.float16])
def test_a_quantised_module_is_measured(bits):
    """A dynamically quantised module is wrapped and gives a target of the expected shape."""
    model = wrap(quantised(bits), size=(64, 64))
    assert model.run(torch.randn(2, 3, 64, 64)).target.shape == (2, 8, 32, 32)


def test_the_digest_depends_on_the_scale_of_quantised_weights():
    """Equal quantised modules have one digest, and weights of twice the scale another."""
    assert module_tensors_digest(quantised()) == module_tensors_digest(quantised())
    assert module_tensors_digest(quantised()) != module_tensors_digest(quantised(weight=2.0))


@pytest.mark.parametrize("layer", [nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.LazyLinear(4)])
def test_a_lazy_module_is_refused_by_the_name_of_its_weight(layer):
    """A module with uninitialised weights is an InputError that names the first of them."""
    with pytest.raises(InputError, match=r"0\.weight of Sequential"):
        wrap(nn.Sequential(layer), size=(64, 64))


@pytest.mark.parametrize("layer", [nn.LazyConv2d(8, 3), nn.Conv2d(3, 8, 3, device="meta")])
def test_an_audit_of_weights_without_values_gives_a_failed_record(layer):
    """Lazy or meta weights give a failed record whose error names the weight."""
    (record,) = audit(nn.Sequential(layer), ("structure",), size=(64, 64), count=2, device="cpu")
    assert record.status == "failed"
    assert "0.weight of Sequential" in record.error.message
