"""Comparison: records that were not measured alike are refused, and why."""

from dataclasses import replace

import pytest
from small_nets import SPEC, net, opened
from test_comparison import QUICK, flat

from perimetry import audit, compare
from perimetry.bench.comparison.compatibility import UnlikeRecordsError


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        ({"count": 4}, "images 8 x dead-leaves against 4 x dead-leaves"),
        ({"images": "noise"}, "images 8 x dead-leaves against 8 x noise"),
        ({"seed": 1}, "seed 0 against 1"),
        ({"draws": 50}, "setting draws 100 against 50"),
        ({"options": {"deadpixel": {}}, "precision": "float64"}, "setting precision"),
    ],
)
def test_unlike_images_and_settings_are_refused_and_named(options, phrase):
    """The refusal says what differs; forced, the comparison says it beside the numbers."""
    common = {"count": 8, "draws": 100, "device": "cpu"}
    first = audit(opened(net()), ("deadpixel",), **common)
    second = audit(opened(net()), ("deadpixel",), **(common | options))
    with pytest.raises(UnlikeRecordsError, match=phrase):
        compare(first, second, stages=False)
    found = compare(first, second, stages=False, force=True)
    assert any(phrase in text for text in found.pairs[0].forced)
    assert found.pairs[0].forced
    assert all(text in flat(found.text()) for text in found.pairs[0].forced)


def test_unlike_preprocessing_is_refused_unless_it_only_looks_unlike():
    """Another mean is refused; the same mean on a scale of 255 sees the same pixels."""
    spec = replace(SPEC, mean=(0.5, 0.5, 0.5))
    bytes_ = replace(
        SPEC,
        mean=tuple(255 * m for m in SPEC.mean),
        std=tuple(255 * s for s in SPEC.std),
        value_range=255.0,
        guessed=("mean",),
    )
    with pytest.raises(UnlikeRecordsError, match="preprocessing: mean"):
        compare(opened(net()), opened(net(), spec), **QUICK)
    found = compare(opened(net()), opened(net(), bytes_), **QUICK)
    assert found.pairs[0].forced == ()


def test_an_older_protocol_version_is_refused():
    """Records of different protocol versions are not compared."""
    first, second = (audit(opened(net()), ("structure",), device="cpu") for _ in range(2))
    second[0].version = "0"
    with pytest.raises(UnlikeRecordsError, match="protocol version 2 against 0"):
        compare(first, second)
