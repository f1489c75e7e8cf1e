"""Outputs that are no logits, or of which the largest names no class."""

import numpy as np
import pytest
import torch
from one_image_nets import SIZE, Net
from torch import nn

from perimetry.bench.execution.audit import audit

NO_LOGITS = {
    "no image": lambda z: z[:0],
    "no class": lambda z: z[:, :0],
    "complex": lambda z: torch.complex(z, z),
    "sparse": lambda z: z.to_sparse(),
}


class Answering(nn.Module):
    """A small network of which `answer` changes the logits."""

    def __init__(self, answer):
        super().__init__()
        self.net, self.answer = Net(), answer

    def forward(self, x):
        return self.answer(self.net(x))


def measured(answer, suites=("shift", "perturbation")):
    records = audit(
        Answering(answer), suites, kernel_padding=("none",), size=SIZE, count=4, device="cpu"
    )
    assert all(record.status == "ok" for record in records)
    return {k: m for record in records for k, m in record.metrics.items()}


@pytest.mark.parametrize("name", NO_LOGITS)
def test_an_output_that_cannot_be_logits_is_none(name):
    """What needs classes is missing with the reason; the map is measured all the same."""
    found = measured(NO_LOGITS[name], ("shift", "padding"))
    assert found["same_crop"].value is None
    assert "logits" in found["same_crop"].reason
    assert found["blind_weakest"].value is not None


def test_an_output_of_true_and_false_is_of_numbers():
    """Its shares are those of the same numbers as floats."""
    as_bool, as_float = (measured(a) for a in (lambda z: z > 0, lambda z: (z > 0).float()))
    assert as_bool["shift_consistency"] == as_float["shift_consistency"]
    assert as_bool["same_crop"] == as_float["same_crop"]


@pytest.mark.parametrize("answer", [lambda z: z[:, :1], lambda z: z.argmax(1, keepdim=True)])
def test_one_number_for_an_image_names_no_class(answer):
    """Its arg-max is always 0: a shift that keeps it says nothing."""
    found = measured(answer)
    for name in ("shift_consistency", "same_crop", "worst_circular"):
        assert found[name].value is None
        assert "one number" in found[name].reason
    assert np.isfinite(found["comb_weakest"].value)
