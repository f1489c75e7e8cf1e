"""Runs that are killed, stopped by a signal, or not alone: their folder ends as an undisturbed one.

An interruption survives if the same command, given again, ends with the same board to the last
digit, and if no process of the interrupted one is left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from perimetry import leaderboard
from perimetry.bench import demo

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLES = Path(demo.__file__).parent / demo.FOLDER
MODELS = tuple(str(SAMPLES / f"{name}.onnx") for name in demo.SAMPLES)
"""ONNX files: a process that opens a model of timm takes twice as long, for its imports."""
SETTINGS = (
    *("--suite", "structure,deadpixel", "--kernel-padding", "none,box"),
    *("--count", "4", "--device", "cpu"),
)
RUN = "from perimetry.bench.cli.start import main; main()"
GIVEN_UP_S = 300
"""No command here takes nearly as long; what does is counted as not survived."""


@dataclass(frozen=True)
class Interruption:
    """`disturb(folder, rng)` starts runs into `folder` and interrupts or crowds them."""

    name: str
    cases: int
    disturb: Callable[[Path, np.random.Generator], bool]


def start(folder, workers=1):
    """The command, in a process group of its own."""
    words = ("--out", str(folder), "--workers", str(workers), *SETTINGS)
    return subprocess.Popen(
        [sys.executable, "-c", RUN, "run", *MODELS, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_heed_signals,
    )


def _heed_signals():
    """Take back what the surroundings may ignore, as `nohup` and background jobs do."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def board(folder):
    """The board as text, with every number in full."""
    return leaderboard(folder).to_csv(index=False)


def group_is_gone(group):
    """Whether no process of the group is left after a while; one that nobody has reaped is dead."""
    for _ in range(100):
        if not any(_is_of(process, group) for process in psutil.process_iter()):
            return True
        time.sleep(0.1)
    return False


def _is_of(process, group):
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False


def _wait_for_records(folder, running, count):
    """Until `count` records are there, or the command has ended: a moment without a clock."""
    records = folder / "records"
    while running.poll() is None:
        if records.is_dir() and len(list(records.glob("*.json"))) >= count:
            return
        time.sleep(0.02)


def killed(folder, rng):
    """SIGKILL to all processes of the command, after a random number of records."""
    running = start(folder, workers=2)
    _wait_for_records(folder, running, int(rng.integers(0, 6)))
    os.killpg(running.pid, signal.SIGKILL)
    running.wait(GIVEN_UP_S)
    return group_is_gone(running.pid)


def stopped(folder, rng):
    """SIGTERM, SIGINT or SIGHUP to the command alone or to its group."""
    number = rng.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    running = start(folder)
    _wait_for_records(folder, running, int(rng.integers(0, 6)))
    send = os.killpg if rng.random() < 0.5 else os.kill
    send(running.pid, int(number))
    running.wait(GIVEN_UP_S)
    return group_is_gone(running.pid)


def crowded(folder, rng):
    """Two commands that write into one folder at the same time."""
    del rng
    both = [start(folder), start(folder)]
    return all(one.wait(GIVEN_UP_S) == 0 for one in both)


INTERRUPTIONS = (
    Interruption("SIGKILL to a run and its workers, then the same command again", 1, killed),
    Interruption("SIGTERM, SIGINT or SIGHUP to a run or its group, then again", 1, stopped),
    Interruption("two runs that write into one folder at the same time", 1, crowded),
)


def survivals(interruption, undisturbed, folder, *, seed=0, times=1):
    """Whether each case ended with the board `undisturbed`, and left no process."""
    found = []
    for case in range(interruption.cases * times):
        place = folder / str(case)
        clean = interruption.disturb(place, np.random.default_rng([seed, case]))
        again = start(place).wait(GIVEN_UP_S) == 0
        found.append(clean and again and board(place) == undisturbed)
    return found
