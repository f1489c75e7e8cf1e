"""How many channels a module's image has: what its first layer takes, in any order of layers."""

import pytest
import torch.nn.functional as F
from torch import nn

from perimetry.adapters.errors import InputError
from perimetry.adapters.load import input_of, load
from perimetry.adapters.pytorch.model import wrap

SIZE = (32, 32)


class PatchEmbed(nn.Module):
    """Patches through a linear layer; a convolution of features is registered first."""

    def __init__(self, channels):
        super().__init__()
        self.mix = nn.Conv2d(16, 16, 3, padding=1)
        self.embed = nn.Linear(channels * 64, 16)

    def forward(self, x):
        patches = F.unfold(x, 8, stride=8).mT
        y = self.embed(patches).mT.unflatten(2, (x.shape[2] // 8, -1))
        return self.mix(y)


class HeadFirst(nn.Module):
    """Its head is registered before its stem."""

    def __init__(self, channels):
        super().__init__()
        self.head, self.stem = nn.Conv2d(8, 4, 1), nn.Conv2d(channels, 8, 3, 2, 1)

    def forward(self, x):
        return self.head(self.stem(x).relu())


class GateFirst(HeadFirst):
    """A gate of one channel is registered before everything else."""

    def __init__(self, channels):
        nn.Module.__init__(self)
        self.gate = nn.Conv2d(1, 1, 3, padding=1)
        self.head, self.stem = nn.Conv2d(8, 4, 1), nn.Conv2d(channels, 8, 3, 2, 1)

    def forward(self, x):
        y = self.stem(x)
        return self.head(y * self.gate(y.mean(1, keepdim=True)).sigmoid())


class Video(nn.Module):
    """A single frame through a 3-D convolution, then a 2-D one of its features."""

    def __init__(self, channels):
        super().__init__()
        self.flat, self.deep = nn.Conv2d(8, 8, 3, 2, 1), nn.Conv3d(channels, 8, 3, 2, 1)

    def forward(self, x):
        return self.flat(self.deep(x[:, :, None])[:, :, 0])


class Unshuffled(nn.Module):
    """A norm of the image, then blocks of pixels as channels."""

    def __init__(self, channels):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(channels), nn.Conv2d(4 * channels, 8, 3, 1, 1)

    def forward(self, x):
        return self.conv(F.pixel_unshuffle(self.norm(x), 2))


@pytest.mark.parametrize("kind", [PatchEmbed, HeadFirst, GateFirst, Video, Unshuffled])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_first_layer_that_the_image_reaches_says_how_many_channels_there_are(kind, channels):
    """Not the convolution that happens to be registered first; a guess is marked as one."""
    net = kind(channels)
    spec = wrap(net, size=SIZE).spec
    assert spec.channels == len(spec.mean) == channels
    first = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    assert ("channels" in spec.guessed) == (first.in_channels != channels)


def test_the_input_that_is_known_before_a_model_is_opened_has_them_too():
    """`compare` refuses models that are fed differently by it, and leaves the module as it is."""
    net = HeadFirst(3).train()
    assert input_of(net, size=SIZE) == wrap(net, size=SIZE).spec
    assert net.training
    assert net.stem.weight.requires_grad


def test_what_is_declared_holds_and_a_mean_of_three_numbers_fits():
    """`channels` is not tried against the layers, a mean is that of the number that is taken."""
    declared = {"mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0]}
    assert load(HeadFirst(3), size=SIZE, inputs=declared).spec.mean == (0.1, 0.2, 0.3)
    assert (
        load(PatchEmbed(1), size=SIZE, inputs={"channels": 1}).spec.guessed.count("channels") == 0
    )
    with pytest.raises(InputError, match="to have 3 channels"):
        load(HeadFirst(3), size=SIZE, inputs={"channels": 1})


def test_channels_are_found_where_the_size_is_wrong_too():
    """The refusal names the sizes that pass, for the number of channels that the layer takes."""

    class OneSize(HeadFirst):
        def forward(self, x):
            if x.shape[-1] != 64:
                raise ValueError("64 pixels")
            return super().forward(x)

    with pytest.raises(InputError, match=r"3 x 32 x 32 .*: ValueError: 64 pixels; 64 x 64"):
        wrap(OneSize(3), size=SIZE)


def test_a_refusal_of_a_guess_says_how_to_state_the_channels():
    """Where nothing passes, the number is said to be a guess, with the option that states it."""

    class Six(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 8)

        def forward(self, x):
            return self.fc(x.mT.mT.movedim(1, -1)).movedim(-1, 1)

    with pytest.raises(InputError, match=r"3 channels is a guess: .*--input channels=1"):
        wrap(Six(), size=SIZE)
