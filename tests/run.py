"""All tests of the gate, side by side on the cores of this machine.

With arguments, one pytest with exactly these: `tox -e tests -- tests/test_store.py`. tests/speed is
not among them: its ratios of times depend on what else the machine does (`tox -e speed`).
"""

import subprocess
import sys

SIDE_BY_SIDE = ["-n", "logical", "--maxprocesses", "4", "--dist", "worksteal"]
"""One process per core, at most four to limit memory; idle ones take over waiting tests."""
NO_BENCHMARKS = ["-p", "no:benchmark"]
"""The plugin warns that it is disabled under xdist, and a warning is an error."""


def main(arguments: list[str]) -> int:
    """Run pytest and return its exit code."""
    return subprocess.call(
        [sys.executable, "-m", "pytest", *(arguments or [*SIDE_BY_SIDE, *NO_BENCHMARKS])]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
