"""docs/reliability.md: how many cases of each attack were tried, and what came of them."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from .attacks import ATTACKS, OUTCOMES, run_attack
from .interruptions import INTERRUPTIONS, board, start, survivals

HEAD = """# Reliability

What happens to damaged and hostile files, as the tests find it. This page is written by
`tests/write_reliability.py`; `tests/test_fuzz.py` runs a part of the same cases each time.
Every case is one copy of a valid file with one to four seeded changes: bytes cut,
flipped, filled, repeated, removed or exchanged, or fields of the document exchanged, removed or
renamed. A case survives if it ends as *measured* (the change did no harm, or was named and left
out), *skipped*, *failed with a reason* or *refused* with a message; and if no other model lost
its row, no control character reached the output, and no damaged baseline passed for whole.

"""

INTERRUPTED = """
A run that is interrupted survives if the same command, given again, ends with the board of a run
that was not, to the last digit, and if none of its processes is left.

"""

TAIL = """
Named attacks, which are no random damage, are in `tests/test_damaged_arrays.py` (pickles, bombs,
pipes, devices), `tests/test_picture_files.py` (programs that are named as pictures),
`tests/test_gate_damage.py` (baselines), `tests/test_odd_names.py`, `tests/test_onnx_hostile.py`,
`tests/test_output_files.py`, `tests/test_privacy.py`, `tests/test_bounded.py` (files that never
end, crashes, memory), `tests/test_surroundings.py` (signals, closed output, a folder that has
gone), `tests/test_not_finite.py` and `tests/test_runner.py` (killed runs). What is promised about
untrusted files is in [SECURITY.md](../SECURITY.md).
"""


def render_page(times):
    """The page, with `times` as many cases as the tests run; and whether all of them survived."""
    lines = [f"| attack | tried | survived | {' | '.join(OUTCOMES)} |", "|---" * 7 + "|"]
    well = True
    for attack in ATTACKS:
        with tempfile.TemporaryDirectory() as folder:
            found = Counter(run_attack(attack, Path(folder), seed=1, times=times))
        tried, survived = sum(found.values()), sum(found[name] for name in OUTCOMES)
        cells = (tried, survived, *(found[name] for name in OUTCOMES))
        lines.append(f"| {attack.name} | {' | '.join(map(str, cells))} |")
        well &= tried == survived
    table, also_well = _interrupted(times)
    return HEAD + "\n".join(lines) + "\n" + INTERRUPTED + table + "\n" + TAIL, well and also_well


def _interrupted(times):
    """The table of interruptions, and whether all were survived."""
    lines, well = ["| interruption | tried | survived |", "|---" * 3 + "|"], True
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        start(folder / "undisturbed").wait()
        undisturbed = board(folder / "undisturbed")
        for number, one in enumerate(INTERRUPTIONS):
            found = survivals(one, undisturbed, folder / str(number), seed=1, times=times)
            lines.append(f"| {one.name} | {len(found)} | {sum(found)} |")
            well &= all(found)
    return "\n".join(lines), well
