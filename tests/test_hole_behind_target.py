"""A hole behind the target: pixels that the map reads and the output does not, placed exactly."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from perimetry import audit, compare, leaderboard
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.pytorch.model import wrap
from perimetry.bench.regression.dead_regions import changed_regions, regions_of
from perimetry.suites.measuring.dead_regions import Region, connected_regions

SPEC = InputSpec(64, 64, mean=(0.5,) * 3, std=(0.25,) * 3)
PLACE = "400 pixels in rows 16 to 35, columns 24 to 43"
SAID = f"{PLACE}, which the target reads and the output does not"


class Flat(nn.Module):
    """Two convolutions, ReLU, and a head on the flattened map of 8 x 8 units.

    `left_out` are rows and columns of units whose weights in the head are 0; `hidden` is the
    number of its hidden units, 0 for none.
    """

    def __init__(self, left_out=((2, 5), (3, 6)), hidden=0):
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 4, 4), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()
        )
        first = nn.Linear(16 * 64, hidden or 10)
        rest = [nn.ReLU(), nn.Linear(hidden, 10)] if hidden else []
        self.head = nn.Sequential(first, *rest)
        rows, columns = (slice(*span) for span in left_out)
        with torch.no_grad():
            first.weight.view(-1, 16, 8, 8)[:, :, rows, columns] = 0

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


class Pooled(Flat):
    """The same map; the largest value of each channel is read, at one unit per image."""

    def __init__(self, read):
        super().__init__()
        self.head, self.read = nn.Linear(16, 10), read

    def forward(self, x):
        return self.read(self, self.body(x))


def outputs_regions(module, count=8, seed=0):
    """The rows of the table for what no output reads."""
    (record,) = audit(wrap(module, spec=SPEC), ("deadpixel",), count=count, seed=seed)
    rows = record.tables["dead_regions"]
    return [Region.of_row(row) for row in rows if row["channel"] == "output"], record


def literal_regions(module):
    """Pixels that some unit of the map reads and no class, by all their derivatives in turn."""
    x = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(7))

    def reads(function):
        jacobian = torch.autograd.functional.jacobian(lambda x: function(x).sum(0).flatten(), x)
        return (jacobian != 0).flatten(0, 0).any(2).any(1).any(0).numpy()

    with torch.no_grad():
        module.eval()
    return connected_regions(reads(module.body) & ~reads(module))


@pytest.mark.parametrize("hidden", [0, 24])
@pytest.mark.parametrize("left_out", [((2, 5), (3, 6)), ((0, 2), (0, 8)), ((0, 8), (6, 8))])
def test_units_that_the_head_leaves_out_are_a_hole_in_pixels(hidden, left_out):
    """A block, rows and columns of weights 0: the pixels that only their units read."""
    module = Flat(left_out, hidden)
    found, record = outputs_regions(module)
    assert found == literal_regions(module) != []
    assert record.metrics["dead_share"].value == 0  # the map itself is whole


def best(net, f, places):
    """The head at the mean of the `places` units of the largest first channel."""
    units = f.flatten(2)
    chosen = units[:, :1].topk(places, 2).indices.expand(-1, 16, -1)
    return net.head(units.gather(2, chosen).mean(2))


def central(net, f):
    """The head at the mean of eight units of the largest first channel, raised in the centre."""
    line = torch.linspace(-1, 1, 8)
    raised = 0.5 * torch.exp(-3 * (line[:, None] ** 2 + line**2))
    chosen = (f[:, :1] + raised).flatten(2).topk(8, 2).indices.expand(-1, 16, -1)
    return net.head(f.flatten(2).gather(2, chosen).mean(2))


def attention(net, f, scale):
    """The head at the mean of all units, weighed by a softmax of their first channel."""
    units = f.flatten(2)
    weights = (scale * units[:, :1]).softmax(2)
    return net.head((units @ weights.mT)[..., 0])


READS = {
    "best unit": lambda net, f: best(net, f, 1),
    "best half": lambda net, f: best(net, f, 32),
    "best units, near the centre": central,
    "sharp attention": lambda net, f: attention(net, f, 1e3),
    "largest of each channel": lambda net, f: net.head(f.amax((2, 3))),
    "mean": lambda net, f: net.head(f.mean((2, 3))),
    "two outputs, one of which reads all": lambda net, f: (
        net.head(f[..., 2:].mean((2, 3))),
        net.head(f.mean((2, 3))),
    ),
    "saturated scores": lambda net, f: (1e6 * net.head(f.mean((2, 3)))).softmax(-1),
    "two classes, whose sum is 1": lambda net, f: net.head(f.mean((2, 3)))[:, :2].softmax(-1),
    "a map of scores": lambda net, f: net.head(f.movedim(1, -1)).movedim(-1, 1) * torch.arange(8.0),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("count", [1, 2, 8])
def test_heads_without_a_hole_have_none(read, count):
    """Units that one image does not choose, other outputs, flat scores: no alarm."""
    assert outputs_regions(Pooled(read), count)[0] == []


def test_a_first_image_with_flat_scores_hides_no_hole():
    """Its gradient is 0 everywhere; the other images' is not."""

    class FlatAtFirst(Flat):
        def forward(self, x):
            scores = super().forward(x)
            return torch.where((x - first).abs().mean((1, 2, 3))[:, None] < 1e-3, 1.0, scores)

    module, seen = FlatAtFirst(), []
    first = torch.zeros(1)
    handle = module.body.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    outputs_regions(module)
    handle.remove()
    first = next(x for x in seen if len(x) >= 8)[:1].detach().clone()
    assert outputs_regions(module)[0] == literal_regions(module) != []


def test_a_hole_of_the_map_is_not_told_twice():
    """Pixels that not even the target reads are dead there."""
    module = Flat()
    mask = torch.ones(1, 1, 64, 64)
    mask[..., 20:30, 30:40] = 0
    body = module.body
    module.body = nn.Sequential(body)
    module.body.forward = lambda x: body(x * mask)
    found, record = outputs_regions(module)
    assert [region.pixels for region in found] == [400 - 100]
    assert record.metrics["silent_pixels"].value == 100


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A sound file, one whose head leaves out units; as ONNX."""
    folder = tmp_path_factory.mktemp("heads")
    for name, left_out in (("sound", ((0, 0), (0, 0))), ("holed", ((2, 5), (3, 6)))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Flat(left_out).eval(),
                (torch.zeros(1, 3, 64, 64),),
                str(folder / f"{name}.onnx"),
                dynamo=False,
                input_names=["image"],
                dynamic_axes={"image": {0: "n"}},
            )
    return folder


def test_a_file_with_such_a_hole_is_flagged_everywhere(files: Path, monkeypatch):
    """Its row on the board, the comparison with the sound file, and the check against it."""
    monkeypatch.chdir(files)
    sound, holed = (audit(f"{name}.onnx", ("deadpixel",), count=4) for name in ("sound", "holed"))
    rows = leaderboard([*sound, *holed]).set_index("model")
    assert SAID in rows.loc["holed.onnx", "defects"]
    assert rows["defects"].notna().tolist() == (rows.index == "holed.onnx").tolist()
    found = compare("sound.onnx", "holed.onnx", suites=["deadpixel"])
    assert SAID in " ".join(found.text().split())
    before, now = map(regions_of, (sound[0], holed[0]))
    (text,) = changed_regions(before, now, 0.01)
    assert text == f"new dead region: {PLACE} (not read by the output)"
    assert changed_regions(now, now, 0.01) == []
