"""Theoretical receptive fields: the table of Araujo, Norris & Sim (Distill 2019) beside ours.

Their numbers are those of TF-Slim's networks, published with the paper for several input sizes
(github.com/google-research/receptive_field, RECEPTIVE_FIELD_TABLE.md). Ours are of timm's networks
of the same name, and, where timm builds them otherwise, of TF-Slim's variant rebuilt here.
"""

from __future__ import annotations

from collections.abc import Iterator

import timm
import torch
from torch import nn

from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.model import wrap
from perimetry.adapters.treatment import Fill
from perimetry.suites.architecture.receptive_field import ReceptiveField, receptive_field

from .check import ReferenceCheck
from .nets import DEPTHS, alexnet_v2, slim_resnet

GROUP = "Theoretical receptive fields (size, stride, padding)"


SOURCE = "Araujo et al., Distill 2019, table of google-research/receptive_field"


SAME_NETS = (
    ("vgg11", "vgg_a", 224, (150, 32, 59)),
    ("vgg16", "vgg_16", 224, (212, 32, 90)),
    ("inception_v3", "inception_v3", 224, (1311, 32, 618)),
    ("inception_v4", "inception_v4", 224, (2071, 32, 998)),
    ("inception_resnet_v2", "inception_resnet_v2", 224, (3039, 32, 1482)),
    ("legacy_seresnet50", "resnet_v1_50", 224, (483, 32, 239)),
    ("legacy_seresnet101", "resnet_v1_101", 224, (1027, 32, 511)),
    ("legacy_seresnet152", "resnet_v1_152", 224, (1507, 32, 751)),
)
"""timm's name, TF-Slim's name, input side, published (size, stride, padding)."""


STAGES = (
    ("vgg16", "features.4", "vgg_16/pool1", (6, 2, 2)),
    ("vgg16", "features.9", "vgg_16/pool2", (16, 4, 6)),
    ("vgg16", "features.16", "vgg_16/pool3", (44, 8, 18)),
    ("vgg16", "features.23", "vgg_16/pool4", (100, 16, 42)),
    ("inception_v3", "Mixed_5b", "inception_v3/Mixed_5b", (63, 8, 18)),
    ("inception_v3", "Mixed_6a", "inception_v3/Mixed_6a", (159, 16, 58)),
    ("inception_v3", "Mixed_6e", "inception_v3/Mixed_6e", (927, 16, 442)),
    ("inception_v3", "Mixed_7a", "inception_v3/Mixed_7a", (1055, 32, 490)),
)
"""timm's name, its layer, TF-Slim's end point, published values."""


SLIM_RESNETS = ((50, 224, 239), (50, 321, 241), (101, 224, 511), (152, 224, 751), (200, 224, 879))


SLIM_SIZES = {50: 483, 101: 1027, 152: 1507, 200: 1763}


SLIM_BLOCKS = ((1, (35, 8, 15)), (2, (99, 16, 47)), (3, (291, 32, 143)))
"""Blocks of resnet_v1_50 at 224 pixels."""


HOW = "receptive_field(load(...).skeleton(), x)"


def checks(*, quick: bool) -> Iterator[ReferenceCheck]:
    """Compare sizes, strides and paddings; `quick` keeps one network of each family."""
    for name, slim, side, published in SAME_NETS[1::3] if quick else SAME_NETS:
        yield _check(f"timm {name} at {side} for {slim}", published, _timm(name, side))
    for name, layer, point, published in STAGES[::4] if quick else STAGES:
        yield _check(f"timm {name}, {layer} for {point}", published, _timm(name, 224, layer))
    yield _check("alexnet_v2 rebuilt, to pool5", (195, 32, 64), _wrapped(alexnet_v2(), 224))
    yield from _centres()
    yield from _slim_resnets(quick=quick)
    yield from _timm_resnets(quick=quick)
    yield from _mobilenets()


def _centres() -> Iterator[ReferenceCheck]:
    """Stage 4 of the usual ResNets; kernel padding adds 1 + 2 + 4 + 8 + 16 pixels."""
    cases: tuple[tuple[str, Fill, float, float], ...] = (
        ("resnet18", "none", 435, 96.0),
        ("resnet50", "none", 427, 96.0),
        ("resnet50", "box", 427 + 31, 96 + 31 / 2),
    )
    for name, fill, size, centre in cases:
        field = _timm(name, 224, fill=fill)
        kernels = "odd kernels" if fill == "none" else "kernel padding"
        what = f"timm {name} at 224, {kernels}: size, centre of unit (3, 3)"
        ours = (field.size[0], field.center((3, 3))[0])
        yield ReferenceCheck(
            GROUP, what, "closed form (recursion of Araujo et al.)", (size, centre), ours, HOW
        )


def _slim_resnets(*, quick: bool) -> Iterator[ReferenceCheck]:
    for depth, side, padding in SLIM_RESNETS[:2] if quick else SLIM_RESNETS:
        published = (SLIM_SIZES[depth], 32, padding)
        field = _wrapped(slim_resnet(DEPTHS[depth]), side)
        yield _check(f"resnet_v1_{depth} rebuilt as in TF-Slim, at {side}", published, field)
    for block, published in SLIM_BLOCKS:
        field = _wrapped(slim_resnet(DEPTHS[50], block), 224)
        yield _check(f"resnet_v1_50/block{block} rebuilt, at 224", published, field)


def _timm_resnets(*, quick: bool) -> Iterator[ReferenceCheck]:
    """timm strides in the first 3 x 3 of a stage, TF-Slim in the last of the stage before."""
    lost = sum(2 * (after - before) for before, after in ((4, 8), (8, 16), (16, 32)))
    for depth, side, padding in SLIM_RESNETS:
        if side != 224 or (quick and depth != 50):
            continue
        published = (SLIM_SIZES[depth], 32, padding)
        # Half of what the size loses is padding; the pool pads 1 unit of stride 2 on both sides.
        predicted = (SLIM_SIZES[depth] - lost, 32, padding - lost // 2 + 2)
        yield _check(
            f"timm resnet{depth} at 224 for resnet_v1_{depth}",
            published,
            _timm(f"resnet{depth}", 224),
            because=(
                "timm (as torchvision) puts a stage's stride in the 3 x 3 of its first unit, which "
                "then still reads the finer grid; TF-Slim in the last unit of the stage before. "
                f"Three such kernels read 2 x (8 - 4), 2 x (16 - 8) and 2 x (32 - 16) = {lost} "
                "pixels less, half of it padding; and timm's stem pool pads both sides by 1 (2 "
                "pixels) where TensorFlow's SAME pads an even input at its end only. TF-Slim's "
                "placement, rebuilt above, gives the published values; so do timm's "
                "legacy_seresnets, whose stride sits in the first 1 x 1"
            ),
            predicted=predicted,
        )


def _mobilenets() -> Iterator[ReferenceCheck]:
    name = "mobilenetv1_100"
    for side, padding in ((224, 126), (321, 157)):
        field = _wrapped(timm.create_model(name, pad_type="same"), side)
        published = (315, 32, padding)
        yield _check(f"timm {name}, pad_type='same', at {side} for mobilenet_v1", published, field)
    lost = sum(2**layer for layer in range(5))
    yield _check(
        f"timm {name} at 224 for mobilenet_v1",
        (315, 32, 126),
        _timm(name, 224),
        because=(
            "timm pads each of the five strided 3 x 3 by 1 on both sides; TensorFlow's SAME pads "
            f"an even input at its end only, which is 1 + 2 + 4 + 8 + 16 = {lost} pixels less in "
            "front. With pad_type='same' timm's network gives the published padding"
        ),
        predicted=(315, 32, 126 + lost),
    )


def _check(
    what: str,
    published: tuple[int, int, int],
    field: ReceptiveField,
    *,
    because: str = "",
    predicted: tuple[int, int, int] | None = None,
) -> ReferenceCheck:
    ours = (field.size[0], field.stride[0], -field.start[0])
    return ReferenceCheck(
        GROUP, what, SOURCE, published, ours, HOW, because=because, predicted=predicted
    )


def _timm(name: str, side: int, target: str | None = None, fill: Fill = "none") -> ReceptiveField:
    model = load(f"timm:{name}@init", device="cpu", size=(side, side), target=target)
    if fill != "none":
        model = model.padded(fill)
    return receptive_field(model.skeleton(), torch.ones(1, 3, side, side))


def _wrapped(module: nn.Module, side: int) -> ReceptiveField:
    model = wrap(module, spec=InputSpec(side, side), device="cpu")
    return receptive_field(model.skeleton(), torch.ones(1, 3, side, side))
