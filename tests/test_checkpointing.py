"""Gradient checkpointing of either kind changes no number of any suite."""

import contextlib

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import CheckpointFunction, checkpoint

from perimetry import audit
from perimetry.adapters.pytorch.checkpointing import without_checkpointing


class Net(nn.Module):
    """Its second part runs under `checkpoint`, reentrant or not, or plainly where that is None."""

    def __init__(self, reentrant):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.reentrant = reentrant

    def forward(self, x):
        y = self.stem(x)
        if self.reentrant is None:
            return self.body(y).mean((2, 3))
        return checkpoint(self.body, y, use_reentrant=self.reentrant).mean((2, 3))


def numbers(reentrant):
    """Values of all metrics by suite, and the reasons of suites that were not measured."""
    suites = ("structure", "deadpixel", "deadpixel:kim2023", "erf", "perturbation")
    records = audit(Net(reentrant), suites, size=(48, 48), count=2, draws=20, device="cpu")
    return {
        (r.suite, r.protocol): (r.why, {n: m.value for n, m in r.metrics.items()}) for r in records
    }


def test_checkpointed_networks_have_the_numbers_of_plain_ones():
    """Targets inside of a checkpointed part have gradients and a structure, too."""
    plain = numbers(None)
    assert not any(why for why, _ in plain.values())
    assert numbers(True) == numbers(False) == plain


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_is_back_after_a_pass_that_fails(reentrant):
    """What torch looks up is restored, and computes parts a second time as before."""
    calls = []

    def counted(x):
        calls.append(1)
        return x.sin()

    x = torch.ones(2, requires_grad=True)
    with contextlib.suppress(KeyError), without_checkpointing():
        checkpoint(counted, x, use_reentrant=reentrant).sum().backward()
        assert len(calls) == 1
        raise KeyError
    checkpoint(counted, x, use_reentrant=reentrant).sum().backward()
    assert len(calls) == 3
    assert torch.utils.checkpoint.CheckpointFunction is CheckpointFunction
