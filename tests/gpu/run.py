"""Everything that a GPU is wanted for, in one command: acceptance first, then the measurements.

    python tests/gpu/run.py --out gpu                        # on a GPU, within eight minutes
    python tests/gpu/run.py --out gpu --device cpu --small   # the rehearsal, without one

It writes OUT/gpu.json and OUT/gpu.md as results come in. On SIGTERM or SIGINT, or when the time is
up, it ends its parts, writes what they have found and says what was cut off. With --page FILE the
Markdown replaces the part of that file between the marks of this kind of device, as in
docs/performance.md. Nothing is taken from the network.

Exit codes: 0 all tests passed and everything was measured, 1 a test or a part failed, 3 cut off.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

LIMIT_S = 460.0
"""Time for everything: eight minutes, less what it takes to end."""

ACCEPTANCE_SHARE = 0.5
"""Part of the time after which the acceptance ends, so that the measurements have the rest."""

GRACE_S = 5.0
"""How long a part may take to end when it is asked to."""

LEFT_OUT_SMALL = (
    "test_vit or two_workers or (padding and fit) or erf or (decoder and (shift or output))"
)
"""Tests that the small rehearsal leaves out: they take longest, and others are like them."""

CUT_OFF, FAILED, DONE = 3, 1, 0


@dataclass
class Part:
    """One part: a command in a process of its own, and how it ended."""

    name: str
    command: list[str]
    share: float = 1.0
    environment: dict[str, str] = field(default_factory=dict)
    state: str = "not begun"
    seconds: float = 0.0
    log: str = ""


class Run:
    """The parts one after another, and the files that are written meanwhile."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.out: Path = given.out.resolve()
        self.begun = time.monotonic()
        self.cut_off = ""
        self.parts = [acceptance(given, self.out), measurements(given, self.out)]

    def all(self) -> int:
        """Run all parts; the exit code."""
        self.out.mkdir(parents=True, exist_ok=True)
        for name in ("acceptance.jsonl", "bench.json", "step"):
            (self.out / name).unlink(missing_ok=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        for part in self.parts:
            if not self.cut_off:
                self._run(part)
            self.write()
        if self.given.page is not None and "bench" in self.found():
            update_page(self.given.page, mark(self.given), page(self.found()))
        return self.exit_code()

    def _stop(self, number: int, _frame: object) -> None:
        self.cut_off = signal.Signals(number).name

    def _run(self, part: Part) -> None:
        begun, written = time.monotonic(), time.monotonic()
        until = self.begun + self.given.limit_s * part.share
        log = self.out / f"{part.name}.log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                part.command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, **part.environment},
                start_new_session=True,  # its own workers end with it
            )
            while process.poll() is None and not self.cut_off and time.monotonic() < until:
                time.sleep(0.2)
                if time.monotonic() - written > 2:
                    self.write()
                    written = time.monotonic()
            part.state = self._end(process, part)
        part.seconds = round(time.monotonic() - begun, 1)
        part.log = log.read_text(errors="replace")[-4000:]

    def _end(self, process: subprocess.Popen[bytes], part: Part) -> str:
        """How `process` ended; it is ended where it has not by itself."""
        code = process.poll()
        if code is not None:
            return "done" if code == 0 else f"exit code {code}"
        why = self.cut_off or "the time was up"
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                continue
        if part is self.parts[-1]:
            self.cut_off = why
        step = self.out / "step"
        where = f", while measuring {step.read_text()}" if step.exists() else ""
        return f"cut off: {why}{where}"

    def found(self) -> dict[str, Any]:
        """Everything that is known so far."""
        tests, bench = self.out / "acceptance.jsonl", self.out / "bench.json"
        results = read_lines(tests)
        found: dict[str, Any] = {
            "version": 1,
            "device": self.given.device,
            "small": self.given.small,
            "seconds": round(time.monotonic() - self.begun, 1),
            "cut_off": self.cut_off,
            "parts": [
                {"name": p.name, "state": p.state, "seconds": p.seconds, "log": p.log}
                for p in self.parts
            ],
            "acceptance": results,
        }
        if bench.exists():
            found["bench"] = json.loads(bench.read_text())
        return found

    def write(self) -> None:
        """Write the JSON and the Markdown, each whole or not at all."""
        found = self.found()
        replace(self.out / "gpu.json", json.dumps(found, indent=1))
        replace(self.out / "gpu.md", f"{framed(mark(self.given), page(found))}\n")

    def exit_code(self) -> int:
        """Cut off comes before failed: what is missing is not known to be right."""
        if self.cut_off or any(p.state.startswith("cut off") for p in self.parts):
            return CUT_OFF
        failed = any(line["outcome"] == "failed" for line in self.found()["acceptance"])
        return FAILED if failed or any(p.state != "done" for p in self.parts) else DONE


def acceptance(given: argparse.Namespace, out: Path) -> Part:
    """The tests of this folder, alone: the conftest of the other tests is not needed."""
    command = [sys.executable, "-m", "pytest", "-q", "--confcutdir", str(HERE), str(HERE)]
    command += ["-p", "no:cacheprovider", "-o", "addopts=", "--strict-markers"]
    command += ["-k", f"not ({LEFT_OUT_SMALL})"] if given.small else []
    environment = {
        "PERIMETRY_GPU_DEVICE": given.device,
        "PERIMETRY_GPU_RESULTS": str(out / "acceptance.jsonl"),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }
    return Part("acceptance", command, ACCEPTANCE_SHARE, environment)


def measurements(given: argparse.Namespace, out: Path) -> Part:
    """The measurements, in the time that is left."""
    command = [sys.executable, str(HERE / "measure.py"), "--out", str(out)]
    command += ["--device", given.device, *(["--small"] if given.small else [])]
    return Part("measurements", command)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The outcomes so far; a line that is being written is left for the next time."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def page(found: dict[str, Any]) -> str:
    """The Markdown: outcome of the acceptance, what was cut off, and the tables."""
    counts = Counter(line["outcome"] for line in found["acceptance"])
    shown = ", ".join(f"{counts[name]} {name}" for name in ("passed", "failed", "skipped"))
    parts = [f"Acceptance ({'small, ' if found['small'] else ''}`{found['device']}`): {shown}."]
    rows = [line for line in found["acceptance"] if line["outcome"] != "passed"]
    if rows:
        parts.append("| test | outcome | reason |\n|---|---|---|\n" + "\n".join(map(row, rows)))
    parts += [
        f"The {part['name']} ended early: {part['state']}."
        for part in found["parts"]
        if part["state"] != "done"
    ]
    parts.append(found.get("bench", {}).get("page", "").strip() or "No measurement was finished.")
    return "\n\n".join(parts)


def row(line: dict[str, Any]) -> str:
    """One test as a row of a table; of a failure the last line says what it was."""
    reason = (line["reason"].strip().splitlines() or [""])[-1].replace("|", "\\|")
    return f"| `{line['test']}` | {line['outcome']} | {reason[:200]} |"


def mark(given: argparse.Namespace) -> str:
    """The name of the part of a page: the kind of device, unless it is a rehearsal."""
    return "rehearsal" if given.small else str(given.device).partition(":")[0]


def framed(name: str, text: str) -> str:
    """`text` between the marks that `perimetry bench --markdown` uses."""
    return f"<!-- measured: {name} -->\n\n{text.strip()}\n\n<!-- end: {name} -->"


def update_page(path: Path, name: str, text: str) -> None:
    """Put `text` in place of the part `name` of the page, or at its end."""
    old = path.read_text() if path.exists() else ""
    before, first, rest = old.partition(f"<!-- measured: {name} -->")
    after = rest.partition(f"<!-- end: {name} -->")[2] if first else "\n"
    before = before if first else f"{old.rstrip()}\n\n"
    replace(path, before + framed(name, text) + after)


def replace(path: Path, text: str) -> None:
    """Write a file so that it is whole at any time."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="Folder for the results.")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ... or cpu.")
    parser.add_argument("--small", action="store_true", help="One small model, few tests.")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="Seconds for everything.")
    parser.add_argument("--page", type=Path, help="Markdown file to update between its marks.")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(Run(arguments()).all())
