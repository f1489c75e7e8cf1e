"""The page in a real headless browser: what a reader does with it, and what must never happen."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import browser as browsers
import planted_boards as planted
import pytest
from planted_report import record
from scipy.stats import spearmanr
from test_board import HOSTILE
from test_page import MARKUP, blocks, many

from perimetry.bench.output.templates import asset
from perimetry.bench.output.text import clean
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.page.join import Joined, Match
from perimetry.bench.ranking.page.page import write_page
from perimetry.bench.ranking.view import View
from perimetry.bench.records.parts import Value
from perimetry.suites.deadpixel.suite import NOT_ALWAYS_BETTER

COUNT = 60
LINKS = "#table a[data-model]"
AS_IT_IS = '.tabulator-col[tabulator-field="asis"]'


@pytest.fixture(scope="module")
def browser():
    with browsers.opened() as one:
        yield one


def planted_value(place):
    """Values whose order as numbers is not their order as texts, one of them missing."""
    return 100.0 if place == 5 else 0.001 * (place * 37 % 61)


def zoo():
    """60 models x 2, one without a number, in families of both kinds, with maps and accuracy."""
    records = []
    for place in range(COUNT):
        extra = {"weakest": Value(value=None, reason="no phases at all")} if place == 7 else {}
        name = f"model_{place:02}.onnx" if place % 3 else f"net_{place:02}"
        value = planted_value(place)
        records += planted.pair(name, value, 1.0, half=0.0004, place=place, metrics=extra)
    return planted.board(records)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The zoo's page, with top1 joined for all models but two."""
    board = zoo()
    names = [row.model for row in board.rows if row.fill == "none"]
    accuracy = [math.sin(k) + 70 if k > 1 else None for k in range(len(names))]
    path = tmp_path_factory.mktemp("page") / "zoo.html"
    write_page(
        board,
        path,
        title="Planted zoo",
        joined=Joined({"top1": accuracy}, (Match("r.csv", "r.csv", {}),)),
    )
    return path


@pytest.fixture
def visit(browser, place):
    one = browsers.Visit(browser, place)
    yield one
    assert one.problems == []
    assert one.requests == [place.as_uri()]
    one.close()


VALUES = "Tabulator.findTable('#table')[0].getData('active').map(row => row.asis)"


def values(visit):
    """The column `as it is` of all rows, also of those that are not drawn, in the order shown."""
    return [None if v is None else round(v, 3) for v in visit.page.evaluate(VALUES)]


def test_the_page_opens_with_the_best_rows_on_top(visit):
    """The page opens with title, number of models and the best model, of rank 1, on top."""
    assert visit.page.title().startswith("Planted zoo")
    assert visit.texts("#count") == ["60 models"]
    assert visit.texts(LINKS)[0] == "model_05.onnx"
    assert visit.texts(".rank")[0] == "1"
    assert NOT_ALWAYS_BETTER in visit.texts("#about")[0]


def test_columns_sort_as_numbers_with_what_is_missing_last(visit):
    """Down and up, 100 comes before 0.06, and n/a is last both ways."""
    expected = sorted(round(planted_value(k), 3) for k in range(COUNT) if k != 7)
    visit.page.click(AS_IT_IS)
    assert values(visit) == [*(round(v, 3) for v in reversed(expected)), None]
    visit.page.click(AS_IT_IS)
    assert values(visit) == [*expected, None]
    assert visit.page.get_attribute(AS_IT_IS, "aria-sort") == "ascending"


def test_a_column_s_head_sorts_by_key(visit):
    """Enter on a focused head does what a click does."""
    visit.page.focus(AS_IT_IS)
    visit.page.keyboard.press("Enter")
    assert visit.page.get_attribute(AS_IT_IS, "aria-sort") == "descending"


def test_search_and_family_leave_what_matches(visit):
    """Every word must be in name or family; the count says how many are left."""
    visit.page.fill("#search", "NET 2")
    assert visit.texts("#count") == ["5 of 60 models"]
    assert all(name.startswith("net_") and "2" in name for name in visit.texts(LINKS))
    visit.page.fill("#search", "")
    visit.page.select_option("#family", "ONNX file")
    assert visit.texts("#count") == ["40 of 60 models"]
    visit.page.fill("#search", "nothing like it")
    assert visit.texts(".tabulator-placeholder") == [
        "No model matches: widen the search or the filters."
    ]


@pytest.mark.parametrize(
    ("wanted", "holds"),
    [
        ("> 0.05", lambda v: v > 0.05),
        ("<=0.01", lambda v: v <= 0.01),
        ("0.02..0.03", lambda v: 0.02 <= v <= 0.03),
        ("0.058", lambda v: v >= 0.058),
    ],
)
def test_numbers_filter_by_bounds(visit, wanted, holds):
    """A bound, a span, or a least value; what has no number is left out."""
    visit.page.click("#filters")
    visit.page.locator(f"{AS_IT_IS} input").press_sequentially(wanted)
    kept = sum(holds(round(planted_value(k), 6)) for k in range(COUNT) if k != 7)
    visit.page.wait_for_function(
        "n => document.getElementById('count').textContent.startsWith(n + ' of')", arg=str(kept)
    )


def test_a_model_opens_by_key_and_gives_the_focus_back(visit):
    """Down, Enter, Escape: the panel shows that model's maps, then the ranking is as it was."""
    page = visit.page
    page.locator(LINKS).first.focus()
    page.keyboard.press("ArrowDown")
    name = page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    page.wait_for_selector("#panel .field canvas")
    assert visit.texts("#panel-title") == [name]
    shades = page.locator("#panel .field .picture canvas").evaluate(
        "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
    )
    assert shades > 10
    page.keyboard.press("Escape")
    assert not page.locator("#panel").is_visible()
    assert page.evaluate("document.activeElement.textContent") == name


@pytest.mark.parametrize("scale", [1, 1.25, 2, 3])
@pytest.mark.parametrize("width", [390, 1400])
def test_each_value_of_a_map_is_a_whole_number_of_screen_pixels(browser, place, scale, width):
    """The size computed for a map is an integer multiple of its values, at any zoom and width.

    The computed style is read: neither animations nor the progress of the layout change it.
    """
    one = browsers.Visit(browser, place, width=width, scale=scale)
    one.page.locator(LINKS).first.click()
    one.page.wait_for_selector("#panel .field canvas")
    sizes = one.page.locator("#panel .picture canvas").evaluate_all(
        """all => all.map(c => [devicePixelRatio * parseFloat(c.style.width) / c.width,
                                devicePixelRatio * parseFloat(c.style.height) / c.height,
                                parseFloat(getComputedStyle(c).width)
                                / parseFloat(c.style.width)])"""
    )
    assert len(sizes) >= 2
    for across, down, laid_out in sizes:
        assert across == pytest.approx(round(across), rel=1e-4)
        assert across == pytest.approx(down, rel=1e-4)
        assert across > 0.99
        assert laid_out == pytest.approx(1, abs=0.01)
    one.close()


def test_the_difference_is_drawn_and_the_variants_change_the_map(visit):
    """The map as it is, with padding and as difference are three different pictures."""
    page = visit.page
    page.locator(LINKS).nth(3).click()
    page.wait_for_selector("#panel .field canvas")
    pictures = set()
    for name in ("as it is", "kernel padding box", "difference"):
        page.get_by_role("button", name=name, exact=True).click()
        pictures.add(page.locator("#panel .profile canvas").first.evaluate("c => c.toDataURL()"))
    assert len(pictures) == 3
    assert "means of either map" in page.locator("#panel .field .scale").inner_text()


def test_the_records_of_a_model_can_be_downloaded(visit):
    """The file holds what the store holds: both variants, every digit."""
    page = visit.page
    page.locator(LINKS).nth(1).click()
    name = page.inner_text("#panel-title")
    with page.expect_download() as waiting:
        page.click("#download")
    found = json.loads(waiting.value.path().read_text())
    stored = [r for r in zoo().records if r.model.reference == name]
    assert {r["fill"]: r["metrics"] for r in found} == {
        r.fill: r.model_dump(mode="json")["metrics"] for r in stored
    }


def test_the_table_downloads_as_csv(visit):
    """The CSV has the rows shown in their order, with numbers as numbers and gaps empty."""
    with visit.page.expect_download() as waiting:
        visit.page.click("#csv")
    rows = list(csv.DictReader(io.StringIO(waiting.value.path().read_text())))
    assert len(rows) == COUNT
    assert float(rows[0]["deadpixel.weakest"]) == planted_value(5)
    assert rows[-1]["deadpixel.weakest"] == ""
    assert list(rows[0])[:7] == [
        *("rank", "model", "family", "defects"),
        *("deadpixel.weakest", "deadpixel.weakest.low", "deadpixel.weakest.high"),
    ]
    key = "deadpixel.weakest[box]"
    assert float(rows[0][key]) - float(rows[0]["deadpixel.weakest"]) == pytest.approx(
        float(rows[0][f"{key}.change"])
    )
    assert float(rows[0][f"{key}.low"]) < float(rows[0][key]) < float(rows[0][f"{key}.high"])


def test_plots_draw_every_model_that_has_both_and_the_rank_correlation(visit):
    """A dot each, and scipy's own rho and n; clicking a dot opens its model."""
    page = visit.page
    page.click("#tab-plots")
    page.wait_for_selector("#scatter svg circle")
    shown = [row for row in zoo().rows if row.fill == "none"]
    both = [
        (row.value("deadpixel.weakest"), math.sin(k) + 70)
        for k, row in enumerate(shown)
        if k > 1 and row.value("deadpixel.weakest") is not None
    ]
    assert page.locator("#scatter svg circle").count() == len(both)
    rho = spearmanr(*zip(*both, strict=True)).statistic
    stated = page.inner_text("#correlation").replace("\N{MINUS SIGN}", "-")
    assert f" = {rho:.3f} (95 %" in stated
    assert stated.endswith(f"n = {len(both)}")
    page.locator("#scatter svg circle").nth(9).hover()
    page.mouse.down()
    page.mouse.up()
    page.wait_for_selector("#panel-title")


def test_any_number_can_be_plotted_against_any_other(visit):
    """Metrics as they are, with padding and their change; what was joined; what it cost."""
    page = visit.page
    page.click("#tab-plots")
    for what, which in (("m1", "plain"), ("c:measure", "plain"), ("j:top1", "plain")):
        page.select_option("#x-what", what)
        page.select_option("#y-which", "change")
        page.select_option("#x-which", which)
    page.select_option("#y-what", label="deadpixel.weakest")
    assert page.locator("#scatter svg circle").count() == COUNT - 3
    page.click("#swap")
    assert page.input_value("#y-what") == "j:top1"
    assert page.locator("#strip svg circle").count() == COUNT - 3


def test_another_metric_changes_the_ranks(visit):
    """The select changes the numbers, the ranks and the words beside them."""
    visit.page.select_option("#metric", label="deadpixel.by_period_2")
    visit.page.wait_for_function(
        "document.getElementById('about').textContent.startsWith('deadpixel.by_period_2')"
    )
    visit.page.wait_for_function(
        "document.querySelectorAll('[tabulator-field=asis] .missing').length > 5"
    )
    assert visit.texts(".rank")[0] == "\N{EN DASH}"


def test_further_columns_show_joined_numbers(visit):
    """A column from the menu is there with its values, and sorts."""
    visit.page.click("#columns summary")
    visit.page.check('#column-list input[value="j:top1"]')
    head = '.tabulator-col[tabulator-field="j:top1"]'
    visit.page.wait_for_selector(head)
    visit.page.keyboard.press("Escape")
    visit.page.click("#about")
    visit.page.click(head)
    cell = visit.page.locator('.tabulator-row [tabulator-field="j:top1"]').first
    best = max(math.sin(k) + 70 for k in range(2, COUNT))
    assert float(cell.inner_text()) == pytest.approx(best, abs=0.05)


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


def test_light_and_dark_follow_the_system_and_the_button(browser, place):
    """The system's choice first; the button takes the page from it to light, then to dark."""
    light, dark = (browsers.Visit(browser, place, dark=dark) for dark in (False, True))
    assert brightness(light) > 200 > 60 > brightness(dark)
    dark.page.click("#theme")
    assert brightness(dark) > 200
    dark.page.click("#theme")
    assert brightness(dark) < 60
    for one in (light, dark):
        assert one.problems == []
        one.close()


def test_a_telephone_s_width_holds_the_page(browser, place):
    """At 390 px nothing is wider than the screen, in the ranking, in a model and in the plots."""
    one = browsers.Visit(browser, place, width=390, height=844)
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


CLIPPED = """() => [...document.querySelectorAll(
    ".tabulator-cell, .tabulator-cell *, .tabulator-col-title *, .tools *, header *")]
  .filter((node) => node.clientWidth && getComputedStyle(node).overflowX !== "visible"
    && node.scrollWidth > node.clientWidth + 1)
  .filter((node) => !["SELECT", "INPUT", "OPTION"].includes(node.tagName))
  .map((node) => node.textContent)"""
"""Texts of elements that do not show all of their text."""


@pytest.mark.parametrize("width", [1500, 1280, 420])
def test_nothing_is_clipped_at_three_widths(browser, place, width):
    """No cell, head or control hides a part of its text, and nothing is wider than the window."""
    one = browsers.Visit(browser, place, width=width, height=900)
    assert one.page.evaluate(CLIPPED) == []
    for tab in ("ranking", "plots", "guide"):
        one.page.click(f"#tab-{tab}")
        assert one.page.evaluate("document.documentElement.scrollWidth") <= width
    assert one.problems == []
    one.close()


def test_words_and_metrics_are_explained_where_they_stand(browser, tmp_path):
    """The line above the table explains words of the glossary, heads their metric."""
    one = record("deadpixel", {"weakest": (0.5, 0.1)})
    write_page(Board([one]), tmp_path / "one.html", title="One")
    visit = browsers.Visit(browser, tmp_path / "one.html")
    shown = visit.page.eval_on_selector_all("#about abbr", "all => all.map((one) => one.title)")
    assert json.loads(asset("page_words.json"))["phase"] in shown
    assert all(text in json.loads(asset("page_words.json")).values() for text in shown)
    heads = visit.page.eval_on_selector_all(
        ".tabulator-col [title]", "all => all.map((one) => one.title)"
    )
    assert any("1 on an even model" in text for text in heads)
    visit.page.click("#tab-guide")
    assert {"weakest", "phase", "deadpixel.weakest"} <= set(visit.texts("#guide dt"))
    assert visit.problems == []
    visit.close()


def test_plots_are_named_and_can_be_saved(visit):
    """Names stand beside dots; the picture is a file of its own without the page's variables."""
    visit.page.click("#tab-plots")
    visit.page.wait_for_selector("#scatter svg circle")
    few = visit.page.locator("#scatter .names text").count()
    visit.page.select_option("#labels", "all")
    dots = visit.page.locator("#scatter [aria-label=dot] circle").count()
    assert 0 < few <= visit.page.locator("#scatter .names text").count() == dots
    visit.page.select_option("#labels", "none")
    assert visit.page.locator("#scatter .names text").count() == 0
    with visit.page.expect_download() as vector:
        visit.page.click("#save-svg")
    text = Path(vector.value.path()).read_text(encoding="utf-8")
    assert text.startswith("<svg")
    assert "var(" not in text
    with visit.page.expect_download() as picture:
        visit.page.click("#save-png")
    assert Path(picture.value.path()).read_bytes().startswith(b"\x89PNG")
    visit.page.select_option("#labels", "some")
    visit.page.click("#tab-ranking")


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


def test_no_interval_is_on_a_page_of_numbers_alone(browser, tmp_path):
    """`--no-intervals` leaves neither whiskers nor ± in the ranking, which has both without it."""
    board = planted.board([*planted.pair("b", 0.4, 0.9), *planted.pair("a", 0.8, 0.85)])
    for intervals in (True, False):
        path = tmp_path / f"{intervals}.html"
        write_page(board, path, title="t", view=View(intervals=intervals))
        page = browser.new_page(viewport={"width": 1500, "height": 800})
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]")
        assert (page.locator("#table .whisker").count() > 0) == intervals
        assert ("±" in page.locator("#table").inner_text()) == intervals
        assert ("±" in page.locator("body").inner_text()) == intervals
        page.close()


def test_further_columns_have_room_and_take_their_facts_along(browser, tmp_path):
    """With columns of sizes no column is cut off at 1,280 pixels, and names do not repeat them."""
    sized = [
        one.model_copy(update={"model": one.model.model_copy(update={"parameters": 25_557_032})})
        for one in [*planted.pair("b", 0.4, 0.9), *planted.pair("a", 0.8, 0.85)]
    ]
    path = tmp_path / "page.html"
    for columns in ((), ("model.parameters", "family")):
        write_page(planted.board(sized), path, title="t", view=View(columns=columns))
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]")
        holder = page.locator("#table .tabulator-tableholder")
        assert holder.evaluate("e => e.scrollWidth <= e.clientWidth")
        assert ("25.6" in page.locator("#table .facts").first.inner_text()) == (not columns)
        assert "25.6" in page.locator("#table").inner_text()
        page.close()
