"""Audits in several threads at once give the numbers that each gives alone."""

import random
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from perimetry import audit
from perimetry.adapters.seeding import seeded_weights

MODELS = ("timm:test_resnet@init", "timm:test_convnext@init")
SETTINGS = {"count": 2, "members": 2, "draws": 10, "device": "cpu", "size": (32, 32)}


def numbers(reference):
    """The values of a short audit of initial states."""
    records = audit(reference, ("deadpixel",), **SETTINGS)
    assert [record.status for record in records] == ["ok"]
    return {name: value.value for r in records for name, value in r.metrics.items()}


def test_two_threads_that_audit_initial_states_get_the_numbers_of_one():
    """Eight audits in four threads have bit by bit the values of audits one at a time."""
    alone = {reference: numbers(reference) for reference in MODELS}
    asked = MODELS * 4
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(numbers, asked))
    for reference, found in zip(asked, together, strict=True):
        assert found == alone[reference]


def test_what_is_drawn_with_a_seed_depends_on_nothing_else():
    """Neither on what was drawn before nor on threads that draw at the same time."""

    def drawn(seed):
        with seeded_weights(seed):
            parts = []
            for _ in range(5):
                parts.append(torch.randn(100))
                time.sleep(0.001)  # lets another thread draw
            return torch.cat(parts)

    alone = [drawn(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(drawn, [0, 1, 2, 3] * 5))
    for number, found in enumerate(together):
        assert torch.equal(found, alone[number % 4])
    assert not torch.equal(alone[0], alone[1])


@pytest.mark.filterwarnings("default")
def test_an_audit_leaves_the_global_state_as_it_was():
    """An audit keeps generators, warning filters, gradient mode, threads and float type."""

    def state():
        return (
            torch.get_rng_state().tolist(),
            random.getstate(),
            [part.tolist() if hasattr(part, "tolist") else part for part in np.random.get_state()],  # noqa: NPY002
            list(warnings.filters),
            torch.is_grad_enabled(),
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.are_deterministic_algorithms_enabled(),
        )

    numbers(MODELS[0])  # imports may change state once
    before = state()
    numbers(MODELS[0])
    assert state() == before
