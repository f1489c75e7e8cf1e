"""Draws in 16 bits, and boards that are the same in memory, from a folder and from a pack."""

import numpy as np
import pytest
import toys

from perimetry import audit, leaderboard
from perimetry.adapters.errors import InputError
from perimetry.bench.records.archive import open_records, pack_records
from perimetry.bench.records.arrays import pack_draws, round_draws, unpack_draws
from perimetry.bench.records.store import Store


def test_rounding_is_fine_keeps_the_ends_and_changes_nothing_twice():
    """Draws are rounded to 1/65535 of their range, ends exactly, and once is enough."""
    values = np.random.default_rng(0).normal(0.5, 0.1, 200)
    once = round_draws({"a": values})["a"]
    assert np.abs(once - values).max() <= np.ptp(values) / 65535 / 2 * 1.0001
    assert (once.min(), once.max()) == (values.min(), values.max())
    np.testing.assert_array_equal(round_draws({"a": once})["a"], once)


def test_packed_draws_come_back_bit_for_bit():
    """Constant draws and ordinary ones; what is not finite is left out."""
    draws = {
        "a": np.random.default_rng(1).normal(size=50),
        "b": np.ones(50),
        "c": np.full(5, np.inf),
    }
    kept = round_draws(draws)
    assert set(kept) == {"a", "b"}
    back = unpack_draws(pack_draws(draws))
    for name, values in kept.items():
        np.testing.assert_array_equal(back[name], values)


@pytest.mark.parametrize(
    "packed",
    [[], {"a": 1}, {"a": {"low": 0, "high": 1}}, {"a": {"low": 0, "high": 1, "steps": "?"}}],
)
def test_what_is_not_packed_draws_is_refused(packed):
    """A damaged pack is an error that says so, not a crash."""
    with pytest.raises(InputError):
        unpack_draws(packed)


def test_a_board_is_the_same_in_memory_from_the_folder_and_from_the_pack(tmp_path):
    """Every number, interval, paired change and rank, to the last digit."""
    records = [
        record
        for name in ("toy:a", "toy:b")
        for record in audit(
            name,
            ("structure", "deadpixel"),
            ("none", "box"),
            toolkit=toys.toolkit(),
            images="noise",
        )
    ]
    store = Store(tmp_path / "run")
    for record in records:
        store.put(record)
    pack_records(store, tmp_path / "run.jsonl.gz")
    boards = [
        leaderboard(found, suites=toys.SUITES)
        for found in (records, store.records(), open_records(tmp_path / "run.jsonl.gz").records())
    ]
    assert (boards[0].filter(regex="change.method") == "paired").any().any()
    assert boards[0].equals(boards[1])
    assert boards[0].equals(boards[2])
