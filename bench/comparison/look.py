"""Opening compared models again, to find where they diverge: stages, outputs, shifts and nodes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...adapters.errors import PerimetryError
from ..execution.plan import parse_fills
from ..execution.rerun import RerunOptions, RunSpec, rerun, run_spec_of
from .divergence import (
    first_divergent_stage,
    not_looked_at,
    output_differences,
    stage_differences,
)
from .fingerprint import CELL, NAME, WithFingerprint
from .nodes import NodeTable, node_table, stage_shift
from .result import Pair
from .sides import Side, why_not_measured

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ..records.record import Record


SHIFTED = 0.05
"""A smaller difference of features is no shift of a map."""


@dataclass(frozen=True)
class ReopenedModels:
    """Opens models again to find where they diverge; `firsts` are the ids of the references."""

    options: RerunOptions
    firsts: Collection[int]

    def at_stages(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Open every model once, and add the stage differences of each pair."""
        fingerprints: dict[int, Record | str] = {}

        def fingerprint_of(side: Side) -> Record | str:
            if id(side) not in fingerprints:
                fingerprints[id(side)] = _fingerprint(side, self.options)
            return fingerprints[id(side)]

        found = []
        for pair in pairs:
            one, other = fingerprint_of(pair.first), fingerprint_of(pair.second)
            if isinstance(one, str) or isinstance(other, str):
                why = one if isinstance(one, str) else str(other)
                found.append(replace(pair, stages=why))
            else:
                differences = stage_differences(one, other)
                stages = differences if isinstance(differences, str) else tuple(differences)
                outputs = tuple(output_differences(one, other))
                unread = tuple(not_looked_at(one, other))
                found.append(replace(pair, stages=stages, outputs=outputs, unread=unread))
        return [self._with_shift(p) if id(p.first) in self.firsts else p for p in found]

    def _with_shift(self, pair: Pair) -> Pair:
        """Say of the first stage that differs from the reference's whether its map is shifted."""
        stages = () if isinstance(pair.stages, str) else pair.stages
        first = first_divergent_stage([s for s in stages if not s.output])
        if first is None or not first.difference > SHIFTED:
            return pair
        try:
            names = (first.first, first.second)
            shift = stage_shift(pair.first, pair.second, names, self.options)
        except PerimetryError:
            return pair
        new = tuple(replace(s, shift=shift) if s is first else s for s in stages)
        return replace(pair, stages=new)

    def at_nodes(self, pairs: Sequence[Pair], *, alone: bool) -> list[Pair]:
        """Compare the nodes of the references with those of the others."""

        def nodes(pair: Pair) -> NodeTable | str:
            try:
                return node_table(pair.first, pair.second, self.options, alone=alone)
            except PerimetryError as error:
                return str(error)

        return [replace(p, nodes=nodes(p)) if id(p.first) in self.firsts else p for p in pairs]


def _fingerprint(side: Side, options: RerunOptions) -> Record | str:
    """The fingerprint of a side, or why it has none, such as weights that have changed since."""
    stored_print = side.records.get(CELL)
    if stored_print is not None and stored_print.status == "ok":
        return stored_print
    records = list(side.records.values())
    broken = why_not_measured(side)
    if broken is not None:
        return f"{side.name} could not be measured: {broken}"
    try:
        spec = run_spec_of(records, replace(options, inputs={}))
        spec = RunSpec(replace(spec.settings, options={}), (NAME,))
        run = replace(options.run, toolkit=WithFingerprint(options.run.toolkit))
        made = rerun(side.thing, spec, parse_fills([side.fill]), run, name=side.reference)
    except PerimetryError as error:
        why = str(error)
        return why if why.startswith(side.name) else f"{side.name}: {why}"
    record = next(r for r in made if r.suite == NAME)
    if record.status != "ok":
        return f"{side.name} cannot be opened now: {record.why}"
    stored = next((r.model.source for r in records if r.model.source), {})
    if changed_tensors(stored, record.model.source):
        return f"the weights of {side.name} have changed since it was measured"
    return record


def changed_tensors(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether two sources name weights, and different ones."""
    hashes = [source.get("tensors_sha256") or source.get("sha256") for source in (before, now)]
    return None not in hashes and hashes[0] != hashes[1]
