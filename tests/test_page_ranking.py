"""The ranking of the page in a real headless browser: sorting, filters, columns, words."""

from __future__ import annotations

import csv
import io
import json
import math

import browser as browsers
import planted_boards as planted
import pytest
from browser import AS_IT_IS, LINKS
from planted_report import model, record

from perimetry.bench.output.templates import asset
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.page.page import write_page
from perimetry.bench.ranking.view import View
from perimetry.suites.deadpixel.suite import NOT_ALWAYS_BETTER

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
    expected = sorted(round(planted.zoo_value(k), 3) for k in range(planted.MODELS) if k != 7)
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
    kept = sum(holds(round(planted.zoo_value(k), 6)) for k in range(planted.MODELS) if k != 7)
    visit.page.wait_for_function(
        "n => document.getElementById('count').textContent.startsWith(n + ' of')", arg=str(kept)
    )


def test_the_table_downloads_as_csv(visit):
    """The CSV has the rows shown in their order, with numbers as numbers and gaps empty."""
    with visit.page.expect_download() as waiting:
        visit.page.click("#csv")
    rows = list(csv.DictReader(io.StringIO(waiting.value.path().read_text())))
    assert len(rows) == planted.MODELS
    assert float(rows[0]["deadpixel.weakest"]) == planted.zoo_value(5)
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
    best = max(math.sin(k) + 70 for k in range(2, planted.MODELS))
    assert float(cell.inner_text()) == pytest.approx(best, abs=0.05)


def test_every_value_is_drawn_on_the_scale_of_the_axis(browser, tmp_path):
    """The worst of many stands left of the others by as much as its number says."""
    values = {"worst": 0.3, **{f"m{k:02}": 0.7 + 0.01 * k for k in range(20)}}
    records = [
        record("structure", {"weakest": value}, model=model(name)) for name, value in values.items()
    ]
    write_page(Board(records), tmp_path / "scale.html", title="Scale")
    visit = browsers.Visit(browser, tmp_path / "scale.html")
    drawn = visit.page.eval_on_selector_all(
        ".tabulator-row",
        """rows => rows.map(row => [
            row.querySelector("[tabulator-field=asis]").innerText,
            row.querySelector("circle.asis").getAttribute("cx"),
        ])""",
    )
    places = {float(value): float(x.rstrip("%")) for value, x in drawn}
    slope = (places[0.89] - places[0.7]) / 0.19
    for value, x in places.items():
        assert x - places[0.7] == pytest.approx(slope * (value - 0.7), abs=1e-6)
    assert visit.problems == []
    visit.close()


def test_an_interval_beyond_the_scale_has_an_arrow_head(browser, tmp_path):
    """One very wide interval of many neither squeezes the others nor seems to end at the axis."""
    records = [
        record(
            "deadpixel", {"imbalance": (1.0 + 0.01 * k, 50.0 if k == 7 else 0.1)}, model=model(n)
        )
        for k, n in enumerate(f"m{k:03}" for k in range(120))
    ]
    board = Board(records, sort="deadpixel.imbalance")
    write_page(board, tmp_path / "wide.html", title="Wide")
    visit = browsers.Visit(browser, tmp_path / "wide.html")
    visit.page.fill("#search", "m007")
    visit.page.wait_for_function("document.querySelectorAll('.tabulator-row').length === 1")
    assert visit.page.locator(".drawn .beyond").count() == 2
    visit.close()


def test_counts_are_whole(browser, tmp_path):
    """25 layers are not 25.0, as the figures of a model are not either."""
    records = [
        record("structure", {"weakest": 0.25, "uneven_layers": float(count)}, model=model(name))
        for name, count in (("a.onnx", 25), ("b.onnx", 3))
    ]
    board = Board(records, sort="structure.uneven_layers")
    write_page(board, tmp_path / "counts.html", title="Counts")
    visit = browsers.Visit(browser, tmp_path / "counts.html")
    assert sorted(visit.texts('.tabulator-row [tabulator-field="asis"]')) == ["25", "3"]
    visit.page.click(LINKS)
    visit.page.wait_for_selector("#panel .metrics")
    (layers,) = (row for row in visit.texts("tr") if row.startswith("uneven_layers"))
    assert layers.split()[-1] == "3"
    assert "0.250" in visit.texts(".metrics")[0]
    assert visit.problems == []
    visit.close()


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
