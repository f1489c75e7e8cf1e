"""The handbook of metrics: every metric has its block, and no block is about none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from perimetry.suites.registry import SUITES

TEXT = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
PARTS = ("Definition", "Range", "Read", "Misleads", "Source")
SCREEN = 24
"""Lines of a terminal."""


def blocks():
    """(suite, names in the heading, text) of each block."""
    found = []
    for section in re.split(r"^## ", TEXT, flags=re.M)[1:]:
        head, *parts = re.split(r"^### ", section, flags=re.M)
        (suite,) = re.findall(r"^`(\w+)`", head)
        for part in parts:
            heading, _, text = part.partition("\n")
            found.append((suite, re.findall(r"`([^`]+)`", heading), text))
    return found


def pattern(name):
    """What a heading's name stands for: a last `p`, `t` or `f` behind `_` or `@` is a number."""
    return re.sub(r"(?<=[_@])[ptf]$", r"[\\d.]+", re.escape(name))


def shown():
    return [(suite, pattern(name)) for suite, names, _ in blocks() for name in names]


@pytest.mark.parametrize("suite", SUITES)
def test_every_metric_of_a_suite_has_exactly_one_block(suite):
    """Whatever `perimetry list metrics` names can be looked up, in one place."""
    patterns = [one for name, one in shown() if name == suite]
    for metric in SUITES[suite].metrics:
        hits = [one for one in patterns if re.fullmatch(one, metric.name)]
        assert len(hits) == 1, (suite, metric.name, hits)


def test_no_block_is_about_a_metric_that_does_not_exist():
    """Every name in a heading is that of a metric of the suite above it."""
    for suite, one in shown():
        assert any(re.fullmatch(one, m.name) for m in SUITES[suite].metrics), (suite, one)


def test_every_block_answers_the_five_questions_on_one_screen():
    """Definition, range, how to read it, when it misleads, source: in order, none empty."""
    for suite, names, text in blocks():
        parts = re.findall(r"^- \*\*(\w+)\.\*\* (\S)", text, flags=re.M)
        assert [part for part, _ in parts] == list(PARTS), (suite, names)
        assert len(text.strip().split("\n")) <= SCREEN, (suite, names)


def test_metrics_named_in_passing_exist():
    """`suite.metric` anywhere in the text names a metric."""
    known = {f"{suite}.{m.name}" for suite in SUITES for m in SUITES[suite].metrics}
    suites = "|".join(SUITES)
    mentioned = re.findall(rf"`((?:{suites})\.[\w@.]+)`", TEXT)
    assert mentioned
    assert set(mentioned) <= known


ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_path_of_a_page_leads_somewhere(page):
    """Relative links exist from where the page is, code paths in backticks from the root."""
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    paths = re.findall(r"`((?:adapters|suites|bench|tests|src|examples)/[\w/.]*\w)`", text)
    assert [p for p in paths if "NAME" not in p and not (ROOT / p).exists()] == []


def test_the_guided_tour_visits_few_folders_and_files():
    """The tour visits at most 3 folders for a trail, and 5 files for the ranking and a check."""
    tour = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## A guided tour")[2]
    parts = re.split(r"^\*\*", tour, flags=re.M)
    stops = [re.findall(r"^\| `([\w/.]+)`", part, flags=re.M) for part in parts]
    erf, padding, ranking, comparison, check = (part for part in stops if part)
    assert len({Path(path).parent for path in comparison}) == 2
    assert len({Path(path).parent for path in erf}) == 3
    assert len({Path(path).parent for path in padding}) == 2
    assert len(ranking) == len(check) == 5
    assert len({Path(path).parent for path in check}) == 1


def test_the_glossary_is_in_order_and_linked_from_the_readme():
    """Its words are sorted; README links it where the first of them is used."""
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = [word.lower() for word in re.findall(r"^\| \*\*([^*]+)\*\*", text, flags=re.M)]
    assert len(words) > 24
    assert words == sorted(words)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.index("docs/glossary.md") < readme.index("## Why")
