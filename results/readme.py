"""Write the tables of README.md here and above from the sets: `python results/readme.py`.

With `--check` nothing is written: the exit code is 1 if a table is stale, and its file is named.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from tabulate import tabulate

from perimetry import load_records
from perimetry.bench.output.text import days
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.tables import render_board
from perimetry.bench.ranking.view import View
from perimetry.bench.records.selection import choose

if TYPE_CHECKING:
    from perimetry.bench.records.record import Record

HERE = Path(__file__).parent
sys.path.append(str(HERE))
from publishing import read_board  # noqa: E402

README = HERE.parent / "README.md"
SHOWN = (
    *("mobilenetv3_small_100", "convformer_s18", "levit_128s", "regnety_008", "efficientnet_lite0"),
    *("mobilenetv2_100", "resnet50d", "resnet50", "resnet18", "densenet121", "swin_tiny"),
    *("vgg11_bn", "convnext_atto", "vit_tiny_patch16_224"),
)
"""Architectures by the first letters of their names."""


COLUMNS = (
    *("deadpixel.weakest", "structure.weakest", "deadpixel.imbalance"),
    *("erf.luo_size", "erf.r_squared"),
)


def examples() -> dict[str, str]:
    """A board of some models of results/timm-init, and how many seeds each is averaged over."""
    models = "|".join(f"timm:{name}*" for name in SHOWN)
    records = choose(load_records(HERE / "timm-init", tables=False), [f"model={models}"])
    (seeds,) = {record.settings["members"] for record in records if record.suite == "deadpixel"}
    return {"board": f"\n{board(records)}\n", "seeds": str(seeds)}


def board(records: list[Record]) -> str:
    """The board of `records`, the least even first, as the README shows it."""
    view = View("models", COLUMNS, worst_first=True)
    lines = render_board(Board(records), "md", view=view).split("\n")
    notes = [line for line in lines if line.startswith("[")]
    return "\n".join([*(line for line in lines if line.startswith("|")), "", *notes])


def counts() -> dict[str, str]:
    """The figures that the README names, as sentences."""
    frame = read_board(HERE / "timm-structure")
    known = frame[frame.weakest.notna()]
    plain = known[known.fill == "none"].set_index("model").weakest
    treated = known[known.fill == "zero"].set_index("model").weakest
    uneven = plain[plain < 0.95].index
    padded = int((treated.reindex(uneven) >= 0.95).sum())
    measured = read_board(HERE / "timm-init").model.nunique()
    return {
        "measured": str(measured),
        "structure": f"{(plain >= 0.95).sum()} are even, {len(uneven)} are not; padding makes "
        f"{padded} of these even; {frame.model.nunique() - len(plain)} have no phases to compare.",
        "padded": _padded(pd.read_csv(HERE / "kernel-padding/zoo.csv")),
    }


def _padded(zoo: pd.DataFrame) -> str:
    """How many architectures kernel padding is about, and how many it grows, in two lines."""
    uneven = zoo[zoo.status != "even"].model.nunique()
    grown = zoo[(zoo.fill == "box") & (zoo.status == "padded")].model.nunique()
    return (
        f"Of timm's {zoo.model.nunique():,}\narchitectures, {uneven} have a strided kernel that is "
        f"not divisible by its stride, and {'all ' * (grown == uneven)}{grown} can be padded"
    )


def sets() -> str:
    """One row a published set: what it holds, of which protocol versions, and its command."""
    rows = []
    for folder in sorted(HERE.glob("*/README.md")):
        title = folder.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        packs = sorted(folder.parent.glob("*.jsonl.gz"))
        name = folder.parent.name
        rows.append((f"[{name}]({name}/README.md)", title, *_contents(packs)))
    heads = ("set", "what", "records", "protocol versions", "measured")
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True)


def _contents(packs: list[Path]) -> tuple[str, str, str]:
    """How many records the files hold, of which versions, and between which days."""
    texts = [gzip.decompress(pack.read_bytes()).decode() for pack in packs]
    lines = [json.loads(line) for text in texts for line in text.strip().split("\n")]
    records = [line for line in lines if "suite" in line]  # the first line is about the file
    if not records:
        return "", "tables only", ""
    versions: dict[str, set[str]] = defaultdict(set)
    for record in records:
        versions[f"{record['suite']}:{record['protocol']}"].add(record["version"])
    names = ", ".join(f"{name} {'/'.join(sorted(v))}" for name, v in sorted(versions.items()))
    return str(len(records)), names, days(record["created"] for record in records)


def render(text: str) -> str:
    """The root README `text` with the current tables between `<!-- NAME -->` and `<!-- / -->`."""
    return fill_in(text, examples() | counts())


def render_index(text: str) -> str:
    """The same of the README of all sets."""
    return fill_in(text, {"sets": f"\n{sets()}\n"})


def fill_in(text: str, parts: dict[str, str]) -> str:
    """`text` with each of `parts` between its marks. Raises `ValueError` unless each has one."""
    for name, made in parts.items():
        marked = rf"(<!-- {name} -->).*?(<!-- / -->)"
        text, found = re.subn(marked, lambda m, made=made: m[1] + made + m[2], text, flags=re.S)
        if found != 1:
            raise ValueError(f"README.md marks {name!r} {found} times; expected once")
    return text


def main(check: bool) -> int:
    """Write the READMEs, or with `check` name the stale ones; the exit code."""
    stale = 0
    for path, made in ((README, render), (HERE / "README.md", render_index)):
        text = path.read_text(encoding="utf-8")
        fresh = made(text)
        if check and fresh != text:
            sys.stdout.write(f"{path} is stale; run python results/readme.py\n")
            stale = 1
        elif not check:
            path.write_text(fresh, encoding="utf-8")
    return stale


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
