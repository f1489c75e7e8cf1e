"""What the published sets' scripts share: prose, tables, dates of architectures, correlation."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections import defaultdict
from datetime import UTC, datetime
from functools import cache
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import timm
from scipy.stats import spearmanr
from tabulate import tabulate

from perimetry.adapters.errors import InputError
from perimetry.bench.output.files import StoreError
from perimetry.bench.output.text import days as days_of
from perimetry.bench.records.archive import PUBLISHED, RecordArchive, open_records, pack_records
from perimetry.bench.records.environment import environment
from perimetry.bench.records.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from perimetry.bench.records.parts import Value
    from perimetry.bench.records.record import Record

DRAWS = 2000


def read_board(folder: Path) -> pd.DataFrame:
    """board.csv of a set; a column has one type, even where its first rows are all empty."""
    return pd.read_csv(folder / "board.csv", low_memory=False)


def reflow(text: str) -> str:
    """Fill paragraphs and list items; tables, headings and commands stay."""
    blocks = []
    for block in text.split("\n\n"):
        if block.startswith(("|", "#", "    ", "<!--")):
            blocks.append(block)
            continue
        items = re.split(r"\n(?=- )", block)
        filled = []
        for item in items:
            indent = "  " if item.startswith("- ") else ""
            filled.append(fill(" ".join(item.split()), 108, subsequent_indent=indent))
        blocks.append("\n".join(filled))
    return "\n\n".join(blocks).rstrip("\n") + "\n"


def complete(store: Store, folder: Path) -> None:
    """Add to `store` what `folder` has published of other subjects, so that a set can grow.

    A record of a subject that was measured again is left out, unless the measurement failed. Maps
    are not packed: those of what is added are gone. Raises `StoreError` when the packed file
    cannot be read in full.
    """
    published, problems = RecordArchive(folder / PUBLISHED).read()
    if problems:
        raise StoreError(problems[0])
    measured = {r.subject for r in store.read(tables=False)[0] if r.status != "failed"}
    for record in published:
        if record.subject not in measured:
            store.put(record)


def require_one_target(records: Iterable[Record]) -> None:
    """Raise `ValueError` with the models of which two suites measured different maps.

    Numbers of a row would belong to different layers, as after a change of the rule for the target
    between two runs of a set. Models at several input sizes are several models.
    """
    found = defaultdict(set)
    for record in records:
        if record.model.target is not None:
            size = tuple(record.model.spec[side] for side in ("height", "width"))
            found[record.model.reference, record.fill, *size].add(record.model.target["name"])
    mixed = sorted(
        f"{reference} ({kind}): {', '.join(sorted(names))}"
        for (reference, kind, *_), names in found.items()
        if len(names) > 1
    )
    if mixed:
        raise ValueError(f"measured at different targets, measure again: {'; '.join(mixed)}")


def filled(folder: Path, parts: Mapping[str, str]) -> str:
    """README.md.in of `folder` with each @name@ replaced by the part of that name.

    Raises `KeyError` for a name that has no part.
    """
    text = (folder / "README.md.in").read_text(encoding="utf-8")
    return re.sub(r"@(\w(?:[\w. -]*\w)?)@", lambda found: parts[found[1]], text)


def run_records(folder: Path | str) -> Store:
    """The records of a run, from the folder that it was given as --out.

    Raises `InputError` where there are none, so that nothing that is published is replaced.
    """
    store = open_records(folder)
    if not isinstance(store, Store) or not store.read(tables=False)[0]:
        raise InputError(f"{str(folder)!r} has no records; expected the --out of a run")
    return store


def publish(folder: Path, render: Callable[[], str]) -> None:
    """Write README.md of `folder`; the run that the command names is packed before."""
    if len(sys.argv) > 1:
        pack_records(run_records(sys.argv[1]), folder / "records.jsonl.gz")
    (folder / "README.md").write_text(render(), encoding="utf-8")


def days(records: Iterable[Record]) -> str:
    """The day on which records were made, or the first and the last of several."""
    return days_of(record.created for record in records)


def commits(records: Iterable[Record]) -> str:
    """The commit that records were measured at, or that of each suite, and uncommitted changes.

    Where records of one suite are of several commits, how many there were.
    """
    suites: dict[str, set[str]] = defaultdict(set)
    dirty = False
    for record in records:
        if (git := record.environment.git) is not None:
            suites[git.commit[:12]].add(record.suite)
            dirty |= git.dirty
    several = sum(map(len, suites.values())) > len(set().union(*suites.values()))
    if not suites or several:
        named = f"{len(suites)} commits"
    elif len(suites) == 1:
        named = f"commit `{next(iter(suites))}`"
    else:
        parts = sorted(suites.items(), key=lambda item: (-len(item[1]), item[0]))
        named = "commits " + " and ".join(f"`{c}` ({', '.join(sorted(s))})" for c, s in parts)
    return named + (" with changes" if dirty else "")


@cache
def made() -> dict[str, str]:
    """With what a row of a table is made: commit, versions and day."""
    known = environment()
    libraries = {name: known.libraries[name] for name in ("torch", "timm")}
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    return {"commit": known.stamp, **libraries, "day": day}


def one(frame: pd.DataFrame, column: str) -> str:
    """What all rows were made with, or the first and the last of it."""
    values = sorted(frame[column].astype(str).unique())
    return values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"


def table(heads: Iterable[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of text."""
    drawn: str = tabulate(rows, list(heads), "github", disable_numparse=True)
    return drawn


def shown(value: Value) -> str:
    """A value with its interval, or why there is none."""
    if value.value is None:
        return f"n/a: {value.reason}"
    if value.low is None:
        return f"{value.value:.3g}"
    high = "open" if value.high is None else f"{value.high:.3g}"
    return f"{value.value:.3g} ({value.low:.3g} to {high})"


@cache
def families() -> dict[str, str]:
    """The module of timm that defines each architecture."""
    return {
        name: module for module in timm.list_modules() for name in timm.list_models(module=module)
    }


def by_family(frame: pd.DataFrame) -> str:
    """How many rows each family has, the most first."""
    return ", ".join(f"{family} {n}" for family, n in frame.family.value_counts().items())


@cache
def year(family: str) -> int | None:
    """Year of the first paper that timm's module names in its docstring, or None."""
    text = inspect.getdoc(importlib.import_module(f"timm.models.{family}")) or ""
    found = re.search(r"arxiv\.org/(?:abs|pdf)/(\d\d)\d\d\.\d+", text)
    return 2000 + int(found[1]) if found else None


def rank_correlation(x, y, seed: int = 0) -> str:
    """Spearman's rank correlation of the pairs (x, y), with its 95 % bootstrap interval and n."""
    pairs = np.array([p for p in zip(x, y, strict=True) if None not in p], dtype=float)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    draws = np.random.default_rng(seed).integers(0, len(pairs), (DRAWS, len(pairs)))
    found = [spearmanr(*pairs[draw].T).statistic for draw in draws]
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return f"{spearmanr(*pairs.T).statistic:.2f} ({low:.2f} to {high:.2f}, n = {len(pairs)})"
