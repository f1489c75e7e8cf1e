"""Write docs/validation.md: `python tests/write_validation.py`, about half an hour on one core.

`python tests/write_validation.py PART ...` computes some parts alone and leaves the others as they
are: known, fields, published, monte_carlo, estimates (four minutes), outputs, differences (two
minutes), before_after (ten minutes).
The exit code is 1 if a value differs from its reference without an explanation.
"""

import sys
from pathlib import Path

from validation.page import PARTS, before_and_after, render_validation, run_validation

PAGE = Path(__file__).resolve().parents[1] / "docs" / "validation.md"


def main(parts: list[str]) -> int:
    """Compute the checks of `parts`, all without any, and write the page."""
    unknown = set(parts) - PARTS.keys()
    if unknown:
        sys.exit(f"unknown parts {sorted(unknown)}; expected some of {', '.join(PARTS)}")
    checks = run_validation(parts or PARTS)
    comparison = before_and_after() if "before_after" in (parts or PARTS) else ""
    page = PAGE.read_text(encoding="utf-8") if parts else ""
    text = render_validation(checks, comparison=comparison, page=page)
    PAGE.write_text(text, encoding="utf-8")
    return int(any(check.verdict == "differs" for check in checks))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
