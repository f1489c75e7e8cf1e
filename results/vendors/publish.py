"""Write this folder: `python results/vendors/publish.py RUN_DIR comparison.json`.

RUN_DIR holds the records; comparison.json is what `perimetry compare --format json` printed, see
run.sh. Written: records.jsonl.gz (packed records), decision.json (of the comparison what decides),
README.md. Without arguments the README alone is written again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from perimetry.bench.records.archive import pack_records

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from publishing import filled, reflow, run_records, table  # noqa: E402

KEPT = ("models", "decision", "side_by_side")


def matrix(found: dict[str, Any], names: list[str]) -> str:
    """The table of all models, with the letters of what is not shown to differ."""
    rows = [
        [f"`{row['row']}`", *(_cell(row, place) for place in range(len(names)))]
        for row in found["side_by_side"]
    ]
    return table(["", *names], rows)


def _cell(row: dict[str, Any], place: int) -> str:
    letters = row["letters"][place] if row["letters"] else ""
    return f"{row['cells'][place]} {letters}".strip()


def render() -> str:
    """README.md from its template and decision.json."""
    found = json.loads((HERE / "decision.json").read_text(encoding="utf-8"))
    names = [f"{letter}.onnx" for letter in "abcd"]
    parts = {
        "decision": "\n".join(f"- **{one['topic']}**: {one['text']}" for one in found["decision"]),
        "matrix": matrix(found, names),
    }
    return reflow(filled(HERE, parts))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        store = run_records(sys.argv[1])
        found = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
        pack_records(store, HERE / "records.jsonl.gz")
        kept = json.dumps({name: found[name] for name in KEPT}, indent=1)
        (HERE / "decision.json").write_text(kept + "\n", encoding="utf-8")
    (HERE / "README.md").write_text(render(), encoding="utf-8")
