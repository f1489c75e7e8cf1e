"""Channels in runs: what is stored once for each run gives the numbers of all channels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from perimetry.suites.architecture.channel_runs import concatenate_runs
from perimetry.suites.architecture.compact import (
    ChannelRuns,
    alias,
    channel_runs,
    compress,
    expand,
    widen,
)
from perimetry.suites.architecture.propagate import energy_map, path_count_map
from perimetry.suites.architecture.rules import reshaping as energy_moves

SIZE = (3, 33, 41)


class Branches(nn.Module):
    """Two layers of unlike stride joined, and then `rest` of the 24 channels."""

    def __init__(self, rest):
        super().__init__()
        self.rest = rest
        self.one = nn.Conv2d(3, 16, 3, 2, 1)
        self.two = nn.Conv2d(3, 8, 5, 2, 2)
        self.mix = nn.Conv2d(24, 12, 3, 2, 1)
        self.apart = nn.Conv2d(24, 24, 3, 2, 1, groups=24)
        self.narrow = nn.Conv2d(16, 12, 1)
        self.norm = nn.BatchNorm2d(24)
        self.gate = nn.Conv2d(24, 24, 1)

    def forward(self, x):
        """Join and go on."""
        return self.rest(
            self, torch.cat([F.relu(self.one(x)), F.max_pool2d(self.two(x), 3, 1, 1)], 1)
        )


REST = {
    "target": lambda _, x: x,
    "convolution": lambda m, x: m.mix(x),
    "convolution of a padded map": lambda m, x: m.mix(F.pad(x, (0, 1, 0, 1))),
    "norm, rectifier, convolution": lambda m, x: m.mix(F.silu(m.norm(x))),
    "pools": lambda m, x: m.mix(F.avg_pool2d(F.max_pool2d(x, 3, 2, 1), 2, 1)),
    "channels apart": lambda m, x: m.apart(x),
    "gate": lambda m, x: m.mix(x * torch.sigmoid(m.gate(x.mean((2, 3), keepdim=True)))),
    "shortcut": lambda m, x: m.mix(x + m.norm(x)),
    "sum with a narrow map": lambda m, x: m.mix(x + m.gate(x)),
    "joined again": lambda m, x: torch.cat([x, m.gate(x)], 1),
    "first channels": lambda m, x: m.narrow(x[:, :16]),
    "channels across a border": lambda m, x: m.narrow(x[:, 4:20]),
    "halves": lambda m, x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "pieces": lambda m, x: m.narrow(torch.split(x, [20, 4], 1)[0][:, 2:18]),
    "every other channel": lambda m, x: x[:, ::2],
    "tokens": lambda m, x: x.flatten(2).transpose(1, 2).softmax(-1) + x.flatten(2).mT,
    "shuffle": lambda m, x: x.view(1, 2, 12, *x.shape[2:]).transpose(1, 2).reshape(x.shape),
    "in place": lambda m, x: m.mix(F.relu_(x).add_(x)),
    "turned": lambda m, x: m.mix(x.mT),
}


@pytest.mark.parametrize("rest", REST.values(), ids=REST)
@pytest.mark.parametrize("measure", ["energies", "paths"])
def test_runs_give_the_numbers_of_all_channels(rest, measure, monkeypatch):
    """Every function gives the same map whether channels are stored once for each run or all."""

    def look():
        net = Branches(rest).eval()
        return energy_map(net, SIZE)[0] if measure == "energies" else path_count_map(net, SIZE)[0]

    made = []
    monkeypatch.setattr(
        energy_moves, "concatenate_runs", lambda *a: made.append(concatenate_runs(*a)) or made[-1]
    )
    found = look()
    assert channel_runs(made[0]).counts == (16, 8)
    monkeypatch.setattr(energy_moves, "concatenate_runs", lambda *_: None)
    torch.testing.assert_close(found, look(), rtol=1e-12, atol=0)


def test_a_layer_padded_in_one_variant_keeps_its_runs():
    """Each variant of a batch is as it is alone."""
    net = Branches(REST["norm, rectifier, convolution"]).eval()
    both = energy_map(net, SIZE, padded=(None, 0))
    torch.testing.assert_close(both[0], energy_map(net, SIZE)[0], rtol=1e-12, atol=0)
    assert (both[0] - both[1]).abs().max() > 0.01 * both[0].max()


def test_runs_spell_out_to_all_channels_and_average_over_them():
    """Three and two equal channels: five, whose mean counts three and two times."""
    each = torch.tensor([1.0, 6.0])[None, :, None, None].expand(1, 2, 4, 4)
    x = ChannelRuns(each, (3, 2)).tensor()
    assert x.shape == (1, 5, 4, 4)
    assert expand(x)[0, :, 0, 0].tolist() == [1, 1, 1, 6, 6]
    assert compress(x, [1]).shape[1] == 5
    assert expand(alias(x))[0, :, 0, 0].tolist() == [1, 1, 1, 6, 6]
    assert float(channel_runs(x).mean()[0, 0, 0, 0]) == 3


def test_what_has_no_runs_to_speak_of_is_joined_as_it_is():
    """Runs that are as many as half of the channels save nothing."""
    single = torch.ones(1, 1, 4, 4, requires_grad=True)
    assert concatenate_runs([single * 1, single * 2, single * 3], 1) is None
    wide = widen(single * 1, (1, 8, 4, 4))
    assert channel_runs(concatenate_runs([wide, single * 2], 1)).counts == (8, 1)
    assert concatenate_runs([wide, wide], 2) is None
