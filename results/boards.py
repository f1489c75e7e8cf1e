"""Write the boards of the packed sets: `python results/boards.py [SET ...]`.

For the records.jsonl.gz of a set these are board.csv, a row a variant with every number, and
board.html, a page that opens from disk; for a pack of another name, files of that name. Records of
different settings, such as targets, share no column: the table then has their rows one below the
other, with the number of their `board`, and each has a page of its own, of that number. Tables and
pages that a set's publish.py writes are left to it. With `--check` nothing is written: the exit
code is 1 if a table is stale or a page is missing, and its file is named.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pandas as pd

from perimetry import load_records
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.page.page import write_page
from perimetry.bench.ranking.view import board_frame
from perimetry.bench.records.record import Record
from perimetry.bench.records.selection import MixedRecordsError, check_unmixed

HERE = Path(__file__).parent
OWN_PAGE = ("timm-init", "timm-structure")
OWN_TABLE = (*OWN_PAGE, "openerf", "training")
"""Sets whose publish.py writes board.html, and board.csv."""


def groups(records: list[Record]) -> list[list[Record]]:
    """The records of each board: a record is in the first whose others have its settings."""
    found: list[list[Record]] = []
    for record in records:
        for group in found:
            try:
                check_unmixed([*group, record])
            except MixedRecordsError:
                continue
            group.append(record)
            break
        else:
            found.append([record])
    return found


def table(boards: list[list[Record]]) -> pd.DataFrame:
    """A row a variant; with the number of its board, if there are several."""
    frames = [board_frame(Board(records)) for records in boards]
    if len(frames) > 1:
        for number, frame in enumerate(frames, 1):
            frame.insert(0, "board", number)
    return pd.concat(frames, ignore_index=True)


def csv_text(boards: list[list[Record]]) -> str:
    """The table as it is written."""
    stream = io.StringIO()
    table(boards).to_csv(stream, index=False)
    return stream.getvalue()


def packs(names: list[str]) -> list[tuple[Path, Path]]:
    """Each pack of the sets `names`, and its table."""
    found = []
    for pack in sorted(HERE.glob("*/*.jsonl.gz")):
        if names and pack.parent.name not in names:
            continue
        stem = pack.name.removesuffix(".jsonl.gz")
        found.append((pack, pack.parent / f"{'board' if stem == 'records' else stem}.csv"))
    return found


def main(arguments: list[str]) -> int:
    """Write or check the boards; the exit code."""
    checked = "--check" in arguments
    stale = []
    for pack, path in packs([a for a in arguments if a != "--check"]):
        if pack.parent.name in OWN_PAGE:
            continue
        boards = groups(load_records(pack))
        pages = [
            path.with_name(f"{path.stem}{'' if len(boards) == 1 else f'-{number}'}.html")
            for number in range(1, len(boards) + 1)
        ]
        text = None if pack.parent.name in OWN_TABLE else csv_text(boards)
        if checked:
            stale += [page for page in pages if not page.exists()]
            stale += [path] if text is not None and text != _read(path) else []
            continue
        if text is not None:
            path.write_text(text, encoding="utf-8")
        for page, records in zip(pages, boards, strict=True):
            title = f"perimetry: {pack.parent.name}, {page.stem}"
            write_page(Board(records), page, title=title)
    for path in stale:
        sys.stderr.write(f"stale: {path}; python results/boards.py writes it\n")
    return int(bool(stale))


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
