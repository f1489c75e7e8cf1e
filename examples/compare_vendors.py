"""Which vendor's file hears every pixel? Opaque ONNX files side by side, as a Markdown report.

    python compare_vendors.py report.md ours.onnx vendor-a.onnx vendor-b.onnx

All files see the same images and the first one is the measure. Files that want other sizes or
normalisation are compared all the same (`force`), and the report says what differs.
"""

import sys
from pathlib import Path

from perimetry import compare
from perimetry.bench.comparison.html import draw_differences
from perimetry.bench.execution.settings import Settings

IMAGES = 16


def report(place: Path, files: list[str], images: int = IMAGES) -> None:
    """Write the report to `place`, and difference maps beside it."""
    found = compare(
        *files,
        suites=("structure", "erf", "deadpixel"),
        settings=Settings(count=images),
        force=True,
    )
    pictures = draw_differences(found, place.with_suffix(".maps"))
    links = [f"![{path.stem}]({path.parent.name}/{path.name})" for path in pictures]
    place.write_text("\n\n".join(["# Vendors", found.markdown(), *links]) + "\n")


if __name__ == "__main__":
    report(Path(sys.argv[1]), sys.argv[2:])
