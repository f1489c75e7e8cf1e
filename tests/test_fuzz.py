"""Seeded damage of everything that is read has an outcome with a reason, and costs nothing else."""

import re
from pathlib import Path

import pytest
from fuzzing.attacks import ATTACKS, OUTCOMES, run_attack

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_damage_is_measured_skipped_failed_or_refused_with_a_reason(attack, tmp_path):
    """Never a traceback, never another row lost, never damage that passes for whole."""
    outcomes = run_attack(attack, tmp_path)
    assert len(outcomes) == attack.cases
    assert [one for one in outcomes if one not in OUTCOMES] == []


def test_the_page_has_every_attack_and_none_that_was_not_survived():
    """docs/reliability.md lists every attack in order, with all of its cases survived."""
    text = PAGE.read_text().partition("| interruption |")[0]
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \| (\d+) \|", text, flags=re.M)
    assert [name for name, _, _ in rows] == [attack.name for attack in ATTACKS]
    for name, tried, survived in rows:
        assert int(tried) >= next(a.cases for a in ATTACKS if a.name == name)
        assert tried == survived
