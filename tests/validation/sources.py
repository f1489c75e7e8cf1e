"""What samples of the comparisons are drawn from: planted profiles, and pools of real maps.

`planted` profiles are known; their samples are gamma noise of a third of each phase. `pools` are
maps of real networks at a stride of 8; samples are drawn from them with replacement, so that their
truth is exactly the profile of the mean of all maps, roughness of 192 maps included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from trained_weights import LITE0

from perimetry.adapters.load import load
from perimetry.suites.architecture.expectation import expected_profile
from perimetry.suites.architecture.receptive_field import target_stride
from perimetry.suites.base import Array
from perimetry.suites.deadpixel.suite import DEADPIXEL
from perimetry.suites.images import open_images
from perimetry.suites.measuring import phases
from perimetry.suites.measuring.gradients import gradient_maps, normalise_members
from perimetry.suites.measuring.unbiased import pseudo_values

SEEDS = 100
POOL_SEEDS = 60
PERIOD = 16
NOISE = 10
"""Shape of the gamma noise of a phase in one sample: a standard deviation of 0.32."""
POOL = 192


@dataclass(frozen=True)
class Source:
    """A true profile, `draw(count, rng)`, which gives samples of it, and the structure, if any."""

    profile: Array
    draw: Callable[[int, np.random.Generator], Array]
    expected: Array | None = None
    seeds: int = SEEDS

    @property
    def truth(self) -> float:
        """Its weakest phase."""
        return float(self.profile.min())


def noisy(truth: Array, count: int, rng: np.random.Generator) -> Array:
    profiles = truth * rng.standard_gamma(NOISE, (count, *truth.shape)) / NOISE
    scaled: Array = profiles / profiles.mean((1, 2), keepdims=True)
    return scaled


def _tiled(along: list[float]) -> Array:
    """The outer square of a pattern along one axis, over the period."""
    axis = np.resize(along, PERIOD)
    return _scaled(np.outer(axis, axis))


def _scaled(profile: Array) -> Array:
    """Of mean 1."""
    return profile / profile.mean()


def _deep() -> Array:
    """A factor for each nested period, the shorter ones the stronger."""
    axis = np.ones(PERIOD)
    for period, strength in ((2, 0.3), (4, 0.2), (8, 0.1), (16, 0.05)):
        axis = axis * np.where(np.arange(PERIOD) % period < period / 2, 1 - strength, 1 + strength)
    return _scaled(np.outer(axis, axis))


def _lone(value: float) -> Array:
    profile = np.ones((PERIOD, PERIOD))
    profile[5, 9] = value
    return _scaled(profile)


def _graded() -> Array:
    """A smooth wave: the weakest phase has neighbours that nearly tie."""
    axis = 1 - 0.3 * np.cos(2 * np.pi * np.arange(PERIOD) / PERIOD)
    return _scaled(np.outer(axis, axis))


def _rough() -> Array:
    return _scaled(np.exp(0.2 * np.random.default_rng(0).standard_normal((PERIOD, PERIOD))))


def planted() -> dict[str, Source]:
    """Known profiles, some with the structure that their network would have."""
    stem, deep = _tiled([5, 6, 4, 6]), _deep()
    cases: dict[str, tuple[Array, Array | None]] = {
        "flat": (np.ones((PERIOD, PERIOD)), None),
        "3/2": (_tiled([1, 2]), None),
        "stem, structure known": (stem, stem),
        "stem, structure unknown": (stem, None),
        "deep, structure known": (deep, deep),
        "deep, structure unknown": (deep, None),
        "one dead phase": (_lone(0.0), None),
        "one weak phase (0.3)": (_lone(0.3), None),
        "one weak phase (0.3) of a stem, structure known": (_scaled(stem * _lone(0.3)), stem),
        "graded": (_graded(), None),
        "every phase differs by 20 %": (_rough(), None),
        "wrong structure (stem for deep)": (deep, stem),
        "wrong structure (stem for flat)": (np.ones((PERIOD, PERIOD)), stem),
    }
    return {
        name: Source(truth, partial(noisy, truth), expected)
        for name, (truth, expected) in cases.items()
    }


def pools() -> dict[str, Source]:
    """Maps of real networks: untrained, with `box` padding, trained."""
    options = {"device": "cpu", "size": (128, 128)}
    untrained = load("timm:resnet18@init", target="layer2", members=POOL, **options)
    trained = load(f"timm:tf_efficientnet_lite0@{LITE0}", target="blocks.2", **options)
    models = {
        "untrained ResNet-18": untrained,
        "untrained ResNet-18, `box`": untrained.padded("box"),
        "trained EfficientNet-Lite0": trained,
    }
    return {name: _pool(model) for name, model in models.items()}


def _pool(model: object) -> Source:
    (probe,) = DEADPIXEL.probes(model, "energy", 0)
    images = open_images("dead-leaves", POOL, 0).load(model.spec)
    maps = gradient_maps(model, images, [probe], batch=8).maps[probe.name]
    maps = normalise_members(model, maps.sum(1))
    period = phases.fit_period(maps.shape[1:], target_stride(model))
    profile = partial(phases.phase_profile, period=period)
    expected = expected_profile(model, period)

    def draw(count: int, rng: np.random.Generator) -> Array:
        return pseudo_values(maps[rng.integers(0, POOL, count)], profile)

    truth = profile(maps.mean(0, keepdims=True))[0]
    return Source(truth, draw, None if isinstance(expected, str) else expected, POOL_SEEDS)
