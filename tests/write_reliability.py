"""Write docs/reliability.md: `python tests/write_reliability.py [TIMES]`, a minute for each time.

The exit code is 1 if a case did not survive.
"""

import sys
from pathlib import Path

from fuzzing.page import render_page

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reliability.md"


def main(arguments: list[str]) -> int:
    """Run every attack, TIMES (5) as many cases as the tests, and write the page."""
    text, well = render_page(int(arguments[0]) if arguments else 5)
    PAGE.write_text(text, encoding="utf-8")
    return int(not well)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
