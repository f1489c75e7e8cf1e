"""Records of a protocol whose definition has changed since are told as such."""

import pytest
from planted_report import record

from perimetry.bench.model_report.provenance import provenance
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.caption import caption
from perimetry.suites.registry import SUITES


@pytest.mark.parametrize("version", [SUITES["deadpixel"].protocols["energy"], "0"])
def test_a_board_and_a_report_say_that_a_definition_has_changed(version):
    """The version of the records and that of now, in one sentence; nothing where they agree."""
    made = record("deadpixel", {"weakest": (0.5, 0.02)}).model_copy(update={"version": version})
    now = SUITES["deadpixel"].protocols["energy"]
    sentence = f"deadpixel:energy version 0 is now version {now}: its definition has changed since"
    for lines in (caption(Board([made])), provenance([made], SUITES)):
        said = [line for line in map(str, lines) if "definition has changed" in line]
        assert bool(said) == (version == "0")
        assert all(line.startswith(sentence) for line in said)
