"""Passes without numbers: quick answers have the shapes and types that torch would give."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from perimetry.adapters.meta_forward import RULES, ShapesOnly, quickly

X = torch.empty(2, 8, 6, 10, device="meta")
ROWS = torch.empty(2, 5, 8, device="meta")
KERNEL = torch.empty(12, 4, 3, 5, device="meta")
LSTM = nn.LSTM(8, 4, 2, bidirectional=True, batch_first=True, device="meta")

CALLS = {
    "relu": lambda: F.relu(X),
    "silu": lambda: F.silu(X),
    "gelu of a permuted map": lambda: F.gelu(X.permute(0, 2, 3, 1)),
    "softmax": lambda: F.softmax(ROWS, -1),
    "dropout": lambda: F.dropout(ROWS, 0.5, training=False),
    "batch norm": lambda: F.batch_norm(X, X.new_empty(8), X.new_empty(8)),
    "layer norm": lambda: F.layer_norm(ROWS, (8,)),
    "layer norm of a permuted map": lambda: F.layer_norm(X.permute(0, 2, 3, 1), (8,)),
    "group norm": lambda: F.group_norm(X, 2),
    "sum": lambda: X + X,
    "sum with broadcasting": lambda: X + X[:, :, :1],
    "sum of two types": lambda: X + X.double(),
    "product with a number": lambda: 2 * X,
    "quotient of integers": lambda: torch.empty(3, dtype=torch.long, device="meta") / 2,
    "linear": lambda: F.linear(ROWS, torch.empty(3, 8, device="meta")),
    "attention": lambda: F.scaled_dot_product_attention(
        ROWS, torch.empty(2, 7, 8, device="meta"), torch.empty(2, 7, 4, device="meta")
    ),
    "recurrence both ways": lambda: LSTM(ROWS)[0],
    "its last state": lambda: LSTM(ROWS)[1][1],
    "convolution": lambda: F.conv2d(X, KERNEL, None, (2, 1), (1, 2), 1, 2),
    "dilated convolution": lambda: F.conv2d(X, KERNEL, None, 1, 4, (2, 3), 2),
    "convolution of same size": lambda: F.conv2d(X, KERNEL, None, 1, "same", 1, 2),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_answer_is_laid_out_as_torch_s_own(name):
    """Shape and type of every quick answer are those that torch works out itself."""
    expected = CALLS[name]()
    with ShapesOnly():
        found = CALLS[name]()
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found.is_meta


def test_rows_can_be_viewed_after_a_norm_as_they_can_with_numbers():
    """A layer norm over a permuted map gives rows without gaps, which a view may merge."""
    with ShapesOnly():
        found = F.layer_norm(X.permute(0, 2, 3, 1), (8,))
    assert (
        found.view(2, 60, 8).shape
        == F.layer_norm(torch.zeros(2, 8, 6, 10).permute(0, 2, 3, 1), (8,)).view(2, 60, 8).shape
    )


@pytest.mark.parametrize("rule", sorted({f.__name__ for f in RULES}))
def test_tensors_with_numbers_are_left_to_torch(rule):
    """No rule answers for a tensor that holds numbers."""
    x = torch.zeros(2, 4, 4, 4)
    for function, answer in RULES.items():
        if function.__name__ == rule:
            assert answer(x, x, x) is None


def test_numbers_are_computed_while_it_is_active():
    """A network with numbers gives the same result under the mode."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(1)).eval()
    x = torch.randn(1, 3, 8, 8)
    with ShapesOnly():
        found = net(x)
    torch.testing.assert_close(found, net(x), rtol=0, atol=0)


def test_what_torch_refuses_is_refused_in_torch_s_words():
    """A convolution over the wrong number of channels raises torch's own error."""
    with pytest.raises(RuntimeError, match="Invalid channel dimensions"):
        quickly(lambda: F.conv2d(X[:, :4], torch.empty(1, 8, 3, 3, device="meta")))
    with pytest.raises(RuntimeError):
        quickly(lambda: F.linear(ROWS, torch.empty(3, 9, device="meta")))


def test_initial_states_take_no_time_where_there_are_no_numbers():
    """Initialising a tensor without numbers in place returns the same object."""
    with ShapesOnly():
        for name in ("normal_", "zero_", "erfinv_"):
            assert getattr(X, name)() is X
        assert nn.init.trunc_normal_(X) is X
