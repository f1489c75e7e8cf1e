"""New and grown dead regions: what `check` says of two lists of regions, against their masks."""

from __future__ import annotations

import numpy as np
import pytest

from perimetry.bench.regression.dead_regions import changed_regions
from perimetry.suites.measuring.dead_regions import MOST_REGIONS, Region, connected_regions


def regions(*boxes):
    """The regions of a 40 x 40 mask with these boxes set, as a record lists them."""
    mask = np.zeros((40, 40), dtype=bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return connected_regions(mask)[:MOST_REGIONS]


HOLE = (10, 10, 20, 20)
CASES = {
    "none before and now": ([], [], None),
    "the same": ([HOLE], [HOLE], None),
    "new": ([], [HOLE], "new dead region: 100 pixels in rows 10 to 19, columns 10 to 19"),
    "new beside an old one": ([HOLE], [HOLE, (30, 30, 31, 31)], "new dead region: 1 pixel in"),
    "healed": ([HOLE], [], None),
    "shrunk": ([HOLE], [(12, 12, 18, 18)], None),
    "fallen apart": ([HOLE], [(10, 10, 20, 14), (10, 16, 20, 20)], None),
    "a row more": ([HOLE], [(10, 10, 21, 20)], "-> 110 pixels in rows 10 to 20"),
    "moved by two": ([HOLE], [(12, 10, 22, 20)], "dead region grew"),
    "moved away": ([HOLE], [(25, 25, 35, 35)], "new dead region: 100 pixels in rows 25"),
    "two became one": (
        [(10, 10, 20, 14), (10, 16, 20, 20)],
        [HOLE],
        "80 pixels in rows 10 to 19, columns 10 to 19 -> 100 pixels",
    ),
    "touching, not meeting": ([HOLE], [HOLE, (22, 10, 24, 20)], "new dead region: 20 pixels"),
}


@pytest.mark.parametrize(("before", "now", "shown"), CASES.values(), ids=CASES)
def test_a_region_is_new_or_grown_exactly_when_pixels_are_dead_outside_the_old_ones(
    before, now, shown
):
    """A region is new or grown exactly if the masks show newly dead pixels, with their box."""
    found = changed_regions({"all": regions(*before)}, {"all": regions(*now)}, 0.01)
    assert len(found) == (shown is not None)
    assert shown is None or shown in found[0]


@pytest.mark.parametrize(("limit", "found"), [(0.01, 1), (99, 1), (100, 0), (1e4, 0)])
def test_a_tolerance_in_pixels_is_that_of_new_regions_too(limit, found):
    """A new region of 100 pixels is one that had 0 and grew by 100."""
    new = {"all": [Region(100, HOLE)]}
    assert len(changed_regions({"all": []}, new, limit)) == found


def test_more_pixels_within_the_same_box_are_growth():
    """A ring that fills up has the same box; the number of pixels tells."""
    ring = Region(36, HOLE)
    (text,) = changed_regions({"all": [ring]}, {"all": [Region(100, HOLE)]}, 0.01)
    assert "36 pixels" in text
    assert changed_regions({"all": [ring]}, {"all": [Region(100, HOLE)]}, 64) == []


def test_a_channel_counts_where_it_is_not_dead_with_the_others():
    """A hole in all channels is one finding, not four; one in channel 2 alone is named so."""
    hole, other = Region(100, HOLE), Region(9, (30, 30, 33, 33))
    everywhere = {"all": [hole], "channel 0": [hole], "channel 1": [hole], "channel 2": [hole]}
    assert len(changed_regions({}, everywhere, 0.01)) == 1
    alone = {**everywhere, "channel 2": [hole, other]}
    (text,) = changed_regions(everywhere, alone, 0.01)
    assert text.endswith("(in channel 2 alone)")


def test_what_may_have_been_too_small_for_the_list_is_no_alarm():
    """Of many single pixels eight are listed: a ninth that moves up is not new, a larger one is."""
    many = [Region(1, (0, 2 * k, 1, 2 * k + 1)) for k in range(MOST_REGIONS)]
    before, moved = {"all": many}, Region(1, (30, 30, 31, 31))
    assert changed_regions(before, {"all": [*many[1:], moved]}, 0.01) == []
    assert len(changed_regions(before, {"all": [Region(2, (30, 30, 31, 32)), *many]}, 0.01)) == 1
