"""A comparison as a page: what it shows, that it runs and fetches nothing, that names are text."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import browser as browsers
import planted_boards as planted
import pytest
import toys
from test_board import HOSTILE
from test_page import MARKUP
from typer.testing import CliRunner

from perimetry import compare
from perimetry.bench.cli.main import app
from perimetry.bench.comparison.compare import Comparison
from perimetry.bench.comparison.divergence import StageDifference
from perimetry.bench.comparison.html import comparison_page
from perimetry.bench.comparison.matrix import matrix_of
from perimetry.bench.comparison.sides import side_of
from perimetry.bench.records.store import Store

WHEN = datetime(2026, 1, 2, tzinfo=UTC)


def compared(first="a", second="b", before=0.4, after=0.9, **changes):
    """Two planted models with maps, their intervals apart unless their values are near."""
    sides = [
        side_of([planted.record(n, v, maps=planted.field(v), **changes)])
        for n, v in ((first, before), (second, after))
    ]
    return compare(*sides, stages=False, known=toys.SUITES)


def text_of(found):
    return comparison_page(found, created=WHEN)


class Outline(HTMLParser):
    """Counts elements; everything must close."""

    VOID = ("meta", "link", "img")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.addresses = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [v for k, v in attributes if k in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_has_verdict_maps_and_every_metric():
    """The page has the verdict, three pictures per map and a row per metric."""
    found = compared()
    text = text_of(found)
    outline = Outline(text)
    assert "b against a" in text
    assert "They differ in 1 of" in text
    assert outline.tags.count("img") == 3 * 2
    side_by_side = 1 + len(matrix_of(found, found.groups[0]).rows)
    assert outline.tags.count("tr") == side_by_side + 1 + len(found.pairs[0].rows)
    assert text.count('<tr class="shown">') == len(found.pairs[0].differing) == 1


@pytest.mark.parametrize(("after", "reaches"), [(0.9, False), (0.405, True)])
def test_a_whisker_crosses_zero_where_the_difference_is_not_shown(after, reaches):
    """The whisker's ends lie on both sides of the middle just when the interval holds 0."""
    text = text_of(compared(after=after))
    ends = re.search(r'class="whisker" x1="([\d.]+)%" x2="([\d.]+)%"', text).groups()
    low, high = map(float, ends)
    assert (low < 50 < high) is reaches


def test_stages_are_drawn_in_proportion():
    """The largest difference of stages fills its bar, and half of it fills half."""
    found = compared()
    stages = tuple(StageDifference(n, n, (8, 4, 4), d) for n, d in (("stem", 0.1), ("head", 0.2)))
    text = text_of(Comparison((replace(found.pairs[0], stages=stages),), groups=found.groups))
    assert "width:50.0%" in text
    assert "width:100.0%" in text
    assert "20 %" in text


def test_nothing_runs_and_nothing_is_fetched():
    """No script at all, and every address is data inside the page."""
    text = text_of(compared())
    outline = Outline(text)
    assert "script" not in outline.tags
    assert all(address.startswith("data:") for address in outline.addresses)
    assert "default-src 'none'" in text


@pytest.mark.parametrize("name", [*HOSTILE, *MARKUP])
def test_names_and_reasons_are_only_text(name):
    """A hostile name adds no element and no control character."""
    plain = Outline(text_of(compared("a", "b")))
    text = text_of(compared(name, f"{name}2"))
    assert Outline(text).tags == plain.tags
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202e\ud800]", text)


def test_the_page_in_a_browser(tmp_path):
    """It draws without a complaint or a request, in light and dark, and fits 390 px."""
    path = tmp_path / "compared.html"
    path.write_text(text_of(compared()), encoding="utf-8")
    with browsers.opened() as browser:
        colours = []
        for width, dark in ((1200, False), (390, True)):
            one = browsers.Visit(browser, path, width=width, dark=dark, ready="section")
            widths = one.page.locator("img").evaluate_all("all => all.map(i => i.naturalWidth)")
            assert min(widths) > 0
            assert one.page.evaluate("document.documentElement.scrollWidth") <= width
            colours.append(one.page.evaluate("getComputedStyle(document.body).backgroundColor"))
            assert one.problems == []
            assert [r for r in one.requests if not r.startswith("data:")] == [path.as_uri()]
            one.close()
        assert colours[0] != colours[1]


def test_the_command_writes_the_page(tmp_path):
    """`compare --html` writes the page of the comparison."""
    store = Store(tmp_path / "set")
    for name, value in (("a", 0.4), ("b", 0.9)):
        store.put(planted.record(name, value))
    out = tmp_path / "page.html"
    words = ["compare", str(store.root), "a", "b", "--no-stages", "--html", str(out)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "b against a" in out.read_text()
