"""Write docs/validation.md: `python tests/write_validation.py`, about ten minutes on two cores.

The exit code is 1 if a value differs from its reference without an explanation.
"""

import sys
from pathlib import Path

from validation.page import render_validation, run_validation

PAGE = Path(__file__).resolve().parents[1] / "docs" / "validation.md"


def main() -> int:
    """Compute every check and write the page."""
    checks = run_validation()
    PAGE.write_text(render_validation(checks), encoding="utf-8")
    return int(any(check.verdict == "differs" for check in checks))


if __name__ == "__main__":
    sys.exit(main())
