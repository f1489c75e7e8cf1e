"""A user's program over the whole public interface: it must run, and pass `mypy --strict`.

    python user_program.py FOLDER

FOLDER holds the records of two models. `tests/test_public_interface.py` runs and checks this file.
"""

import sys
from pathlib import Path

import perimetry
from perimetry import Record, audit, check, compare, leaderboard, load_records


def headline(record: Record) -> float | None:
    """Value of the metric `weakest`, which is missing where it cannot be measured."""
    estimate = record.metrics["weakest"]
    if estimate.value is None:
        print(f"{record.model.reference}: {estimate.reason}")
    return estimate.value


def main(folder: Path) -> int:
    """Read, measure, rank, compare and check; return the exit code of the check."""
    print("perimetry", perimetry.__version__)
    stored: list[Record] = load_records(folder)
    now: list[Record] = audit("timm:test_resnet@init", ("structure",), device="cpu")
    for record in (*stored, *now):
        print(record.model.reference, record.suite, record.fill, headline(record))
    first, *_ = leaderboard(folder, sort="structure.weakest").to_dict("records")
    print("first:", first["model"])
    found = compare(
        *(f"{folder}:{record.model.reference}" for record in stored), suites=["structure"]
    )
    print(found.text(width=80))
    report = check(folder, "timm:test_resnet@init")
    print(report.verdict.words)
    return int(report.verdict.value)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
