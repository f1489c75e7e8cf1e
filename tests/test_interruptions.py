"""Runs that are killed, stopped by a signal, or not alone end as undisturbed ones."""

import re
from pathlib import Path

import pytest
from fuzzing.interruptions import INTERRUPTIONS, board, start, survivals

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The board of one run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    assert start(folder).wait() == 0
    return board(folder)


@pytest.mark.parametrize("interruption", INTERRUPTIONS, ids=lambda one: one.disturb.__name__)
def test_an_interrupted_run_ends_with_the_board_of_an_undisturbed_one(
    interruption, undisturbed, tmp_path
):
    """The same command again makes what is missing, bit for bit, and no process is left."""
    found = survivals(interruption, undisturbed, tmp_path)
    assert found == [True] * interruption.cases


def test_the_page_has_every_interruption_and_none_that_was_not_survived():
    """docs/reliability.md lists every interruption in order, with all of its cases survived."""
    text = PAGE.read_text().partition("| interruption |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \| (\d+) \|$", text, flags=re.M)
    assert [name for name, _, _ in rows] == [one.name for one in INTERRUPTIONS]
    for (_, tried, survived), one in zip(rows, INTERRUPTIONS, strict=True):
        assert int(tried) >= one.cases
        assert tried == survived
