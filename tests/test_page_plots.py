"""The plots of the page in a real headless browser: axes, dots, names, pictures."""

from __future__ import annotations

import math
from pathlib import Path

import planted_boards as planted
from scipy.stats import spearmanr


def test_plots_draw_every_model_that_has_both_and_the_rank_correlation(visit):
    """A dot each, and scipy's own rho and n; clicking a dot opens its model."""
    page = visit.page
    page.click("#tab-plots")
    page.wait_for_selector("#scatter svg circle")
    shown = [row for row in planted.zoo().rows if row.fill == "none"]
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
    assert page.locator("#scatter svg circle").count() == planted.MODELS - 3
    page.click("#swap")
    assert page.input_value("#y-what") == "j:top1"
    assert page.locator("#strip svg circle").count() == planted.MODELS - 3


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
