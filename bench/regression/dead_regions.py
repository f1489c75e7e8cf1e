"""Dead regions of two records: which are new, and which have grown.

A region is *new* if its box meets no box that was there before in the same channel. It has *grown*
if it has more pixels than the regions whose boxes it meets have together, or if it reaches out of
the box around these. Regions of a single channel count where they are not dead in all channels;
those that the target reads and the output does not always count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...suites.measuring.dead_regions import ALL, MOST_REGIONS, OUTPUT, Region
from ..output.files import try_or_none

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..records.record import Record

    Box = tuple[int, int, int, int]

TABLE, OF_BLACK_BOXES = "dead_regions", "silent_regions"
"""The table of `deadpixel`, which names the detector's findings, and that of `padding`."""

NOT_ALONE = {ALL: "", OUTPUT: " (not read by the output)"}
"""What is said of regions that are not those of a single channel."""


def regions_of(record: Record) -> dict[str, list[Region]] | None:
    """The dead regions of `record` by channel, largest first; None if they were not looked for."""
    tables = [record.tables[name] for name in (TABLE, OF_BLACK_BOXES) if name in record.tables]
    return try_or_none(_by_channel, tables[0]) if tables else None


def _by_channel(rows: Sequence[dict[str, Any]]) -> dict[str, list[Region]]:
    found: dict[str, list[Region]] = {}
    for row in rows:
        found.setdefault(str(row["channel"]), []).append(Region.of_row(row))
    return found


def changed_regions(
    before: dict[str, list[Region]], now: dict[str, list[Region]], limit: float
) -> list[str]:
    """A clause for each region of `now` that is larger than before by more than `limit` pixels.

    One that is new had none before.
    """
    everywhere = now.get(ALL, [])
    return [
        text + NOT_ALONE.get(name, f" (in {name} alone)")
        for name, regions in now.items()
        for region in regions
        if name in NOT_ALONE or not any(region.within(other) for other in everywhere)
        if (text := _change(before.get(name, []), region, limit))
    ]


def _change(before: Sequence[Region], region: Region, limit: float) -> str:
    """What became of the regions `before` that meet `region`; empty if it is within them."""
    met = [
        old
        for old in before
        if all(
            max(old.box[k], region.box[k]) < min(old.box[k + 2], region.box[k + 2]) for k in (0, 1)
        )
    ]
    if not met:
        # one that was there before may have been too small for the list
        least = min((old.pixels for old in before), default=0)
        known = len(before) >= MOST_REGIONS and region.pixels <= least
        within = known or region.pixels <= limit
        return "" if within else f"new dead region: {region.text}"
    pixels = sum(old.pixels for old in met)
    around = _around([old.box for old in met])
    if region.within(Region(int(pixels + limit), around)):
        return ""
    return f"dead region grew: {Region(pixels, around).text} -> {region.text}"


def _around(boxes: Sequence[Box]) -> Box:
    tops, lefts, bottoms, rights = zip(*boxes, strict=True)
    return min(tops), min(lefts), max(bottoms), max(rights)
