"""Kernel padding: the arithmetic of sizes, taps, second moments and end padding."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from padding_tools import random

from perimetry.adapters.errors import InputError
from perimetry.adapters.kernel_padding.arithmetic import (
    end_padding,
    pad_weight,
    padded_size,
    tap_energy,
)


@pytest.mark.parametrize(
    ("kernel", "stride", "expected"),
    [(1, 2, 2), (3, 2, 4), (7, 2, 8), (4, 2, 4), (3, 1, 3), (7, 4, 8), (2, 3, 3), (16, 16, 16)],
)
def test_the_kernel_grows_to_the_next_multiple_of_the_stride(kernel, stride, expected):
    """The padded size is the smallest multiple of the stride that is at least the kernel."""
    assert padded_size(kernel, stride) == expected


def test_box_of_three_taps_at_stride_two_is_the_closed_form():
    """Box padding turns rows (w1, w2, w3) into (w1, w1 + w2, w2 + w3, w3) / 2, columns alike."""
    weight = random(5, 2, 3, 3)
    w1, w2, w3 = weight.unbind(2)
    rows = torch.stack([w1, w1 + w2, w2 + w3, w3], 2) / 2
    w1, w2, w3 = rows.unbind(3)
    expected = torch.stack([w1, w1 + w2, w2 + w3, w3], 3) / 2
    assert torch.allclose(pad_weight(weight, (2, 2), "box"), expected, rtol=0, atol=1e-15)


@given(
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.integers(1, 5),
    dilation=st.integers(1, 4),
)
def test_box_makes_the_tap_sums_of_all_input_phases_equal(kernel, stride, dilation):
    """After box padding the taps of each input phase sum to the kernel's sum over the stride."""
    weight = random(2, 3, *kernel)
    box = pad_weight(weight, (stride, stride), "box", dilation=(dilation, dilation))
    if math.gcd(stride, dilation) != 1:
        assert box is weight
        return
    for axis in (2, 3):
        if kernel[axis - 2] % stride == 0:
            assert box.shape[axis] == kernel[axis - 2]
            continue
        assert box.shape[axis] == kernel[axis - 2] + stride - 1
        taps = box.sum(5 - axis).unbind(-1)
        sums = [
            sum(tap for j, tap in enumerate(taps) if j * dilation % stride == phase)
            for phase in range(stride)
        ]
        for phase_sum in sums:
            assert torch.allclose(phase_sum, weight.sum((2, 3)) / stride, atol=1e-12)


@pytest.mark.parametrize(("kernel", "stride"), [((3, 1), 2), ((7, 5), 4), ((2, 3), 3), ((4, 4), 2)])
def test_tap_energy_of_box_is_the_squared_response_to_each_old_tap_summed(kernel, stride):
    """The tap energy of `box` sums the squared padded kernels of all one-tap kernels."""
    basis = torch.eye(kernel[0] * kernel[1], dtype=torch.float64).view(-1, 1, *kernel)
    expected = pad_weight(basis, (stride, stride), "box").square().sum((0, 1))
    assert torch.allclose(tap_energy(kernel, (stride, stride), "box"), expected, atol=1e-15)


@pytest.mark.parametrize("fill", ["fresh", "zero"])
def test_tap_energy_of_taps_that_are_free_to_learn_is_flat_and_keeps_the_total(fill):
    """The 3 taps' energy is spread evenly over the 8 taps of a 4 x 2 kernel."""
    energy = tap_energy((3, 1), (2, 2), fill)
    assert energy.shape == (4, 2)
    assert energy.dtype == torch.float64
    assert torch.allclose(energy, torch.full_like(energy, 3 / 8))


def test_fresh_taps_keep_the_output_variance_and_depend_on_the_seed_only():
    """`fresh` taps depend on the seed alone and keep the sum of squares within its error."""
    weight = 3 * random(64, 64, 3, 3)
    draws = [
        pad_weight(weight, (2, 2), "fresh", torch.Generator().manual_seed(s)) for s in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    total, old = draws[0].square().sum(), weight.square().sum()
    assert float(total / old) == pytest.approx(1, abs=4 * math.sqrt(2 / draws[0].numel()))


def test_fresh_without_a_generator_says_what_to_give():
    """`fresh` without a random generator is an InputError that asks for one."""
    with pytest.raises(InputError, match=r"torch\.Generator"):
        pad_weight(random(1, 1, 3, 3), (2, 2), "fresh")


@given(
    size=st.integers(8, 40),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 4),
    pad=st.integers(0, 3),
    ceil_mode=st.booleans(),
)
def test_end_padding_is_the_least_that_keeps_the_output_size(size, kernel, stride, pad, ceil_mode):
    """With the added rows the output keeps its size, and with one row fewer it would shrink."""
    pad = min(pad, kernel // 2)
    x = torch.zeros(1, 1, size)
    before = F.max_pool1d(x, kernel, stride, pad, ceil_mode=ceil_mode).shape[-1]
    grown = padded_size(kernel, stride)
    rows = end_padding(size, kernel, grown, stride, pad, pad, ceil_mode=ceil_mode)
    assert (size + 2 * pad + rows - grown) // stride + 1 == before
    assert rows == 0 or (size + 2 * pad + rows - 1 - grown) // stride + 1 < before
