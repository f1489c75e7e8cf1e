"""The page as a whole in a real headless browser: looks, widths, hostile names, large zoos."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import browser as browsers
import planted_boards as planted
import pytest
from browser import AS_IT_IS, CLIPPED, LINKS
from test_board import HOSTILE
from test_page import MARKUP, blocks, many

from perimetry.bench.output.text import clean
from perimetry.bench.ranking.page.page import write_page
from perimetry.bench.records.parts import Value


@pytest.mark.parametrize(("deaths", "tries"), [(0, 1), (2, 3), (3, 3)])
def test_a_browser_that_dies_at_its_start_is_started_again(deaths, tries):
    """Twice, no more: what is broken for good is told."""
    from playwright.sync_api import Error

    tried = []

    def launch():
        tried.append("once")
        if len(tried) <= deaths:
            raise Error("signal=SIGSEGV")
        return "a browser"

    if deaths < tries:
        assert browsers.start(launch) == "a browser"
    else:
        with pytest.raises(Error, match="SIGSEGV"):
            browsers.start(launch)
    assert len(tried) == tries


def test_every_control_has_a_name(visit):
    """Buttons, fields, links and pictures say what they are to those who do not see them."""
    visit.page.click("#filters")
    visit.page.locator(LINKS).first.click()
    visit.page.wait_for_selector("#panel .field canvas")
    nameless = visit.page.evaluate(
        """() => [...document.querySelectorAll('button, select, input, a, [role=img]')]
             .filter(e => e.offsetParent !== null)
             .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim()
                            || e.labels?.length || e.title)).map(e => e.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
    assert visit.page.locator("[role=tab][aria-selected=true]").count() == 1
    assert visit.page.locator("[role=columnheader]").count() >= 6


def brightness(visit):
    """Mean of the page's background, 0 to 255."""
    colour = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, colour[4:-1].split(","))) / 3


def test_light_and_dark_follow_the_system_and_the_button(browser, zoo_page):
    """The system's choice first; the button takes the page from it to light, then to dark."""
    light, dark = (browsers.Visit(browser, zoo_page, dark=dark) for dark in (False, True))
    assert brightness(light) > 200 > 60 > brightness(dark)
    dark.page.click("#theme")
    assert brightness(dark) > 200
    dark.page.click("#theme")
    assert brightness(dark) < 60
    for one in (light, dark):
        assert one.problems == []
        one.close()


def test_a_telephone_s_width_holds_the_page(browser, zoo_page):
    """At 390 px nothing is wider than the screen, in the ranking, in a model and in the plots."""
    one = browsers.Visit(browser, zoo_page, width=390, height=844)
    wide = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
    assert one.page.evaluate(wide) <= 390
    assert one.page.locator(AS_IT_IS).is_visible()
    one.page.locator(LINKS).first.click()
    one.page.wait_for_selector("#panel .field canvas")
    assert one.page.evaluate("document.getElementById('panel').scrollWidth") <= 390
    one.page.keyboard.press("Escape")
    one.page.click("#tab-plots")
    one.page.wait_for_selector("#scatter svg circle")
    assert one.page.evaluate(wide) <= 390
    assert one.problems == []
    one.close()


@pytest.mark.parametrize("width", [1500, 1280, 420])
def test_nothing_is_clipped_at_three_widths(browser, zoo_page, width):
    """No cell, head or control hides a part of its text, and nothing is wider than the window."""
    one = browsers.Visit(browser, zoo_page, width=width, height=900)
    assert one.page.evaluate(CLIPPED) == []
    for tab in ("ranking", "plots", "guide"):
        one.page.click(f"#tab-{tab}")
        assert one.page.evaluate("document.documentElement.scrollWidth") <= width
    assert one.problems == []
    one.close()


def test_hostile_names_are_only_text(browser, tmp_path):
    """Markup, scripts, escapes and direction marks in names, notes, metrics, reasons: no effect."""
    names = [*HOSTILE, *MARKUP]
    records = [
        planted.record(
            name,
            0.5 + 0.01 * k,
            maps=planted.field(0.5),
            notes=[name],
            metrics={name: Value(value=1.0), "by_period_2": Value(value=None, reason=name)},
            model={"source": {"weights": name}},
        )
        for k, name in enumerate(names)
    ]
    path = tmp_path / "hostile.html"
    write_page(planted.board(records), path, title=MARKUP[0])
    one = browsers.Visit(browser, path, height=1500)
    assert one.texts("h1") == [MARKUP[0]]
    assert sorted(one.texts(LINKS)) == sorted(clean(n, 200) for n in names)
    one.page.click("#columns summary")
    for box in one.page.locator("#column-list input").all():
        box.check()
    for place in range(len(names)):
        one.page.locator(LINKS).nth(place).click()
        one.page.wait_for_selector("#panel .field canvas")
        one.page.keyboard.press("Escape")
    one.page.click("#tab-plots")
    one.page.wait_for_selector("#scatter svg circle")
    assert one.page.locator("img, #injected, main script, dialog script, iframe").count() == 0
    with one.page.expect_download() as waiting:
        one.page.click("#tab-ranking")
        one.page.click("#csv")
    rows = list(csv.DictReader(io.StringIO(waiting.value.path().read_text())))
    assert len(rows) == len(names)
    assert not any(str(v).startswith(("=", "@", "+")) for row in rows for v in row.values())
    assert one.problems == []
    assert one.requests == [path.as_uri()]
    one.close()


def test_a_whole_zoo_draws_no_more_than_a_screen_of_models(browser, tmp_path):
    """Rows are drawn as they come into view: 1,400 models cost as many elements as 200 do."""
    elements = []
    for count in (200, 1400):
        path = tmp_path / f"{count}.html"
        write_page(many(count), path, title="All")
        seen = browsers.Visit(browser, path)
        assert seen.texts("#count") == [f"{count:,} models"]
        assert 5 < seen.page.locator(".tabulator-row").count() < 100
        elements.append(seen.page.evaluate("document.querySelectorAll('.tabulator-row *').length"))
        assert seen.problems == []
        seen.close()
    assert elements[1] < 1.5 * elements[0]


def test_the_published_zoo_is_what_its_table_says(browser):
    """All of timm from real records: every number of board.csv, one page, and it opens."""
    folder = Path(__file__).parents[1] / "results" / "timm-structure"
    data = json.loads(blocks((folder / "board.html").read_text())["data"])
    place = [metric["id"] for metric in data["metrics"]].index("structure.weakest")
    names = [name.removesuffix("@init") for name in data["models"]["name"]]
    with (folder / "board.csv").open(newline="") as stream:
        table = {(row["model"], row["fill"]): row["weakest"] for row in csv.DictReader(stream)}
    for fill, held in data["numbers"][place].items():
        for name, value in zip(names, held["v"], strict=True):
            stated = table[name, fill]
            assert (value is None and stated == "") or value == pytest.approx(
                float(stated), abs=1e-6
            )
    one = browsers.Visit(browser, folder / "board.html")
    assert one.texts("#count") == [f"{len(names):,} models"]
    assert len(names) > 1300
    one.page.fill("#search", "resnet50d")
    one.page.locator(LINKS).first.click()
    one.page.wait_for_selector("#panel .field canvas")
    assert one.problems == []
    one.close()
