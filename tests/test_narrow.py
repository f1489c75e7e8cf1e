"""Equal entries stored once: every function gives what it would on whole tensors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perimetry.suites.architecture.compact import (
    compress,
    equal_axes,
    gather_compact,
    reshape_compact,
    widen,
)
from perimetry.suites.architecture.propagate import energy_map


def wide(shape, axes):
    """A tensor of `shape` whose entries differ, except along `axes`."""
    small = [1 if d in axes else n for d, n in enumerate(shape)]
    values = torch.arange(1.0, 1 + torch.Size(small).numel(), dtype=torch.float64)
    return widen(values.reshape(small), shape)


@given(st.data())
def test_a_reshape_gives_the_entries_of_a_whole_tensor(data):
    """Whatever axes are equal, merge or split, the entries come out in order."""
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    axes = data.draw(st.sets(st.integers(0, len(shape) - 1)))
    x = wide(shape, axes)
    factors = [p for n in shape for p in ({4: (2, 2)}.get(n, (n,)))]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(factors)), max_size=4)) | {len(factors)})
    new = [torch.Size(factors[a:b]).numel() for a, b in zip([0, *cuts[:-1]], cuts, strict=True)]
    found = reshape_compact(x, new)
    assert torch.equal(found, x.contiguous().reshape(new))
    assert torch.equal(compress(found).expand(new), found)


def test_axes_that_merge_among_themselves_stay_narrow():
    """The keys of an attention bias merge into one equal axis; the queries are stored in full."""
    found = reshape_compact(wide((2, 3, 5, 4, 7), {0, 3, 4}), (2, 15, 28))
    assert equal_axes(found) == (0, 2)
    assert compress(found).shape == (1, 15, 1)


def test_a_reshape_that_cannot_be_is_torch_s_error():
    """A reshape to another number of entries raises torch's own RuntimeError."""
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        reshape_compact(wide((2, 3), {0}), (4, 2))


@pytest.mark.parametrize("axes", [(), (0,), (1,), (0, 1)])
def test_a_lookup_gives_the_entries_of_a_whole_table(axes):
    """A lookup in a compact table equals the one in the whole table and stays compact."""
    table, index = wide((6, 3), set(axes)), torch.tensor([[0, 5], [2, 2]])
    found = gather_compact(table, index)
    assert torch.equal(found, table.contiguous()[index])
    assert torch.equal(compress(found).expand(found.shape), found)


class Sums(torch.nn.Module):
    """A sum of products of the pixels' energies with a fixed matrix, then what `then` makes."""

    def __init__(self, equation, matrix):
        super().__init__()
        self.equation = equation
        self.register_buffer("matrix", matrix)

    def forward(self, x):
        return torch.einsum(self.equation, x, self.matrix)


@pytest.mark.parametrize("matrix", [torch.ones(6, 5), torch.arange(30.0).reshape(6, 5)])
def test_a_sum_of_products_squares_its_constants(matrix):
    """Map of y_cho = sum_w x_chw m_wo: every pixel of column w has C sum_o m_wo^2."""
    found = energy_map(Sums("bchw,wo->bcho", matrix), (3, 4, 6))[0]
    expected = (matrix.double() ** 2).sum(1).expand(4, 6)
    torch.testing.assert_close(found / found.sum(), expected / expected.sum())


def test_a_sum_over_equal_channels_counts_each():
    """The map of y_hw = sum_c x_chw m_c is even at unequal factors m."""
    factors = torch.tensor([1.0, 2.0, 3.0])
    found = energy_map(Sums("bchw,ck->bkhw", factors[:, None]), (3, 4, 4))[0]
    torch.testing.assert_close(found / found[0, 0], torch.ones(4, 4, dtype=torch.float64))


class Heads(torch.nn.Module):
    """Each of the channels repeated."""

    def forward(self, x):
        return x.repeat_interleave(4, dim=1)


def test_repeated_channels_stay_equal():
    """Four copies of each of 3 channels have the same energy at every pixel."""
    found = energy_map(Heads(), (3, 4, 4))[0]
    assert found.unique().numel() == 1
