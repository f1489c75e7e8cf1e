"""The whole test suite: side by side on all cores, then what measures speed, alone.

With arguments, one pytest with these and nothing else: `tox -e tests -- tests/test_store.py`.
"""

import subprocess
import sys

SPEED = "tests/speed"
SIDE_BY_SIDE = ["-n", "logical", "--maxprocesses", "4", "--dist", "worksteal"]
"""A process a core, but at most four for the memory; one that is through takes another's tests."""
NO_BENCHMARKS = ["-p", "no:benchmark"]
"""The plugin warns that it measures nothing side by side, and a warning is an error."""


def main(arguments: list[str]) -> int:
    """Run pytest; 0 where every call of it ended well."""
    calls = [[*SIDE_BY_SIDE, *NO_BENCHMARKS, f"--ignore={SPEED}"], [SPEED]]
    pytest = [sys.executable, "-m", "pytest"]
    codes = [subprocess.call([*pytest, *call]) for call in ([arguments] if arguments else calls)]
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
