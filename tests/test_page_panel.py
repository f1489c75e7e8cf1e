"""A model's panel on the page in a real headless browser: its maps and its records."""

from __future__ import annotations

import json

import browser as browsers
import planted_boards as planted
import pytest
from browser import LINKS


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
def test_each_value_of_a_map_is_a_whole_number_of_screen_pixels(browser, zoo_page, scale, width):
    """The size computed for a map is an integer multiple of its values, at any zoom and width.

    The computed style is read: neither animations nor the progress of the layout change it.
    """
    one = browsers.Visit(browser, zoo_page, width=width, scale=scale)
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
    page.wait_for_selector("#panel .field canvas")
    name = page.inner_text("#panel-title")
    with page.expect_download() as waiting:
        page.click("#download")
    found = json.loads(waiting.value.path().read_text())
    stored = [r for r in planted.zoo().records if r.model.reference == name]
    assert {r["fill"]: r["metrics"] for r in found} == {
        r.fill: r.model_dump(mode="json")["metrics"] for r in stored
    }
