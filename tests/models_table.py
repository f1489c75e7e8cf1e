"""The table of docs/models.md: the corpus as modules of torch and as ONNX files.

python tests/models_table.py            # writes the table
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path

from corpus import CORPUS, built, exported

from perimetry import audit
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.pytorch.model import wrap

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- corpus: begin -->", "<!-- corpus: end -->"
HEADS = ("model", "route", "target", "field", "ERF", "evenness", "seconds")
SUITES = ("structure", "erf", "deadpixel")
OPTIONS = {"count": 4, "draws": 50, "device": "cpu", "seed": 0}


def rows(name: str, folder: Path) -> list[dict[str, str]]:
    """One row as a module, one as a file; a number that is missing is `n/a`."""
    spec = InputSpec(*CORPUS[name].size)
    found = []
    for route in ("torch", "ONNX"):
        begun = time.perf_counter()
        if route == "torch":
            model = wrap(built(name), name=name, spec=spec, device="cpu")
        else:
            model = open_onnx(exported(name, folder), device="cpu", spec=spec)
        records = {r.suite: r for r in audit(model, SUITES, **OPTIONS)}
        target = model.target
        values = {
            "field": records["structure"].metrics.get("receptive_field"),
            "ERF": records["erf"].metrics.get("luo_size"),
            "evenness": records["deadpixel"].metrics.get("weakest"),
        }
        found.append(
            {
                "model": name,
                "route": route,
                "target": f"`{target.name}` {target.channels} x {target.height} x {target.width}",
                **{head: _number(value) for head, value in values.items()},
                "seconds": f"{time.perf_counter() - begun:.1f}",
            }
        )
    return found


def _number(value) -> str:
    return "n/a" if value is None or value.value is None else f"{value.value:.3g}"


def read() -> list[dict[str, str]]:
    """The rows of the page."""
    lines = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].split("\n")
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if "|" in line]
    return [dict(zip(HEADS, row, strict=True)) for row in cells[2:]]


def write(table: list[dict[str, str]]) -> None:
    """Put the rows into the page."""
    lines = [
        f"| {' | '.join(HEADS)} |",
        "|---|---|---|--:|--:|--:|--:|",
        *(f"| {' | '.join(row[head] for head in HEADS)} |" for row in table),
    ]
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    tail = rest.partition(END)[2]
    PAGE.write_text(f"{head}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{tail}", encoding="utf-8")


def main() -> None:
    """Measure the corpus and write the table."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        write([row for name in CORPUS for row in rows(name, Path(folder))])


if __name__ == "__main__":
    main()
