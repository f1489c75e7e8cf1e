"""Boards of planted records: models that never were, with the numbers and maps a test wants."""

from __future__ import annotations

import functools
import math

import numpy as np
import toys

from perimetry import audit
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.page.join import Joined, Match
from perimetry.bench.ranking.page.page import write_page
from perimetry.bench.records.parts import Value

COUNT = 8
MODELS = 60
STRIDE = 4
SIDE = 32


@functools.cache
def templates():
    """A finished record of the toy suites by suite and kernel padding."""
    suites, fills = ("structure", "deadpixel"), ("none", "box")
    made = audit("toy:a", suites, fills, toolkit=toys.toolkit(), images="noise", count=COUNT)
    return {(r.suite, r.fill): r for r in made}


def record(name, value, *, half=0.01, fill="none", suite="deadpixel", maps=None, **changes):
    """One record with a planted `weakest`, and any other metrics or fields."""
    base = templates()[suite, fill]
    ends = (
        {} if suite == "structure" or half is None else {"low": value - half, "high": value + half}
    )
    metrics = {"weakest": Value(value=value, **ends), **changes.pop("metrics", {})}
    model = base.model.model_copy(update={"reference": name, **changes.pop("model", {})})
    key = f"{name} {fill} {suite}"
    names = sorted(maps or {})
    updates = {"model": model, "metrics": metrics, "key": key, "map_names": names, **changes}
    return base.model_copy(update=updates).attach((maps or {}, {}))


def field(weakest, seed=0):
    """A map of stride 4 whose phase (0, 0) gets `weakest` of the mean, and its profile."""
    profile = np.full((STRIDE, STRIDE), (16 - weakest) / 15)
    profile[0, 0] = weakest
    noise = np.random.default_rng(seed).uniform(0.9, 1.1, (SIDE, SIDE))
    return {
        "sensitivity": np.tile(profile, (SIDE // STRIDE, SIDE // STRIDE)) * noise,
        "phase_profile": profile,
    }


def pair(name, before, after, *, half=0.01, place=0, **changes):
    """A model as it is and with kernel padding `box`."""
    return [
        record(name, v, half=half, fill=f, maps=field(v, place), **changes)
        for f, v in (("none", before), ("box", after))
    ]


def board(records, **options):
    """The board of the toy suites."""
    return Board(records, suites=toys.SUITES, **options)


def zoo_value(place):
    """Values whose order as numbers is not their order as texts; that of place 7 is not given."""
    return 100.0 if place == 5 else 0.001 * (place * 37 % 61)


def zoo():
    """60 models x 2, one without a number, in families of both kinds, with maps."""
    records = []
    for place in range(MODELS):
        extra = {"weakest": Value(value=None, reason="no phases at all")} if place == 7 else {}
        name = f"model_{place:02}.onnx" if place % 3 else f"net_{place:02}"
        value = zoo_value(place)
        records += pair(name, value, 1.0, half=0.0004, place=place, metrics=extra)
    return board(records)


def zoo_page(path):
    """The page of the zoo, written to `path`, with top1 joined for all models but two."""
    made = zoo()
    names = [row.model for row in made.rows if row.fill == "none"]
    accuracy = [math.sin(k) + 70 if k > 1 else None for k in range(len(names))]
    joined = Joined({"top1": accuracy}, (Match("r.csv", "r.csv", {}),))
    write_page(made, path, title="Planted zoo", joined=joined)
    return path
