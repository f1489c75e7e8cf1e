"""Planning: what is to be measured, and the key of every record before any model is opened.

A *cell* is one record to be made: model reference, fill, suite, protocol. Its key is a sha256 over
everything that can change its numbers: the reference and the bytes of the file it names, fill,
suite, protocol and its version, the suite's own settings, target, input size, seed, weight sets,
the kind of device, the versions of the libraries in `environment.STACK`, and, for suites that look
at images, the images (generator, count and seed; or the files' bytes), the number of bootstrap
draws, precision and its goal, recalibration; for the kernel padding `fit` also the images it is
fitted on, if they are the user's. Batch size and thread count are left out on purpose, since they
change nothing beyond float noise (0.2 % of the thresholds and the comb of `perturbation`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...adapters.errors import InputError, PerimetryError, check_name
from ...adapters.reference import Reference
from ...adapters.treatment import FILLS, Fill
from ...suites.settings import configure, settings_of
from ..records.environment import STACK, versions
from ..records.hashing import digest, hashes, images_identity, module_identity
from ..records.parts import to_json_value
from .settings import GOAL_FIELDS, PRECISION_OF, fit_settings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from ...suites.base import Suite
    from .settings import Settings


DEFAULT_SUITES = ("structure", "erf", "deadpixel")

TREATED_ONLY = "fidelity"
"""The suite that is added to padded variants when another suite uses images."""


@dataclass(frozen=True)
class Cell:
    """One record to be made; `settings` are those of `used_settings`."""

    suite: str
    protocol: str
    version: str
    random: bool
    settings: Mapping[str, Any]
    key: str


@dataclass(frozen=True)
class Job:
    """All cells of one model variant, for which the model is opened once."""

    reference: str
    fill: Fill
    cells: tuple[Cell, ...]

    def only(self, keys: Iterable[str]) -> Job:
        """The same variant with the cells of `keys` alone."""
        wanted = set(keys)
        return Job(self.reference, self.fill, tuple(c for c in self.cells if c.key in wanted))

    def without(self, keys: Collection[str]) -> Job:
        """The same variant without the cells of `keys`."""
        return self.only(c.key for c in self.cells if c.key not in keys)


@dataclass(frozen=True)
class AuditPlan:
    """Which models to measure with which suites, kernel paddings and settings.

    `device` is a kind (`cpu`, `cuda`), `known` the suites by name; `identities` gives the hashes
    that are known already: those of modules given in Python, and of `identities`.
    """

    references: Sequence[str]
    suites: Sequence[str]
    fills: Sequence[str]
    settings: Settings
    device: str
    known: Mapping[str, Suite]
    identities: Mapping[str, str] = field(default_factory=dict)

    def jobs(self) -> list[Job]:
        """Every variant of every model, in the order given, with keys; files are hashed once.

        Raises `UnknownNameError` with near names for suites, protocols and fills, `InputError` for
        images that cannot be used.
        """
        return list(self._jobs)

    @cached_property
    def _jobs(self) -> list[Job]:
        settings = self.settings
        known = configure(self.known, settings.options)
        chosen, fills = parse_suites(self.suites, known), parse_fills(self.fills)
        _check_goal(settings, chosen)
        used = {random: used_settings(settings, random=random) for random in (True, False)}
        fitted = fit_settings(settings) if "fit" in fills else {}
        jobs = []
        for reference in dict.fromkeys(self.references):
            identity = self.identities.get(reference)
            if identity is None:
                identity = file_identity(reference, settings)
            for fill in fills:
                common = [reference, identity, fill, self.device, settings.seed, versions(STACK)]
                own = fitted if fill == "fit" else {}
                cells = [
                    _cell(known[suite], protocol, {**used[known[suite].random], **own}, common)
                    for suite, protocol in _for_fill(chosen, fill, known)
                ]
                if cells:
                    jobs.append(Job(reference, fill, tuple(cells)))
        return jobs


def _check_goal(settings: Settings, chosen: Collection[tuple[str, str]]) -> None:
    """Raise `InputError` for a precision goal about a metric that is not measured."""
    if settings.precision_goal is not None and PRECISION_OF not in chosen:
        suite, protocol = PRECISION_OF
        raise InputError(
            f"a precision goal of {settings.precision_goal:g} was given without the suite that it "
            f"is about; expected {suite} (protocol {protocol}) among the suites"
        )


def _cell(suite: Suite, protocol: str, used: Mapping[str, Any], common: list[Any]) -> Cell:
    version = suite.protocols[protocol]
    settings = {**used, **to_json_value(settings_of(suite, protocol))}
    key = digest([common, suite.name, protocol, version, settings])
    return Cell(suite.name, protocol, version, suite.random, settings, key)


@dataclass(frozen=True)
class Choice:
    """A selection of models: excluded shell patterns, a family, a share, a maximum number.

    `shard` is (i, n): the i-th of n interleaved shares, from 1.
    """

    exclude: tuple[str, ...] = ()
    family: str | None = None
    shard: tuple[int, int] = (1, 1)
    limit: int | None = None

    def of(self, references: Sequence[str]) -> list[str]:
        """Choose from `references`, in their order."""
        chosen = []
        for reference in references:
            parsed = Reference.parse_any(reference)
            names = (reference, parsed.bare, parsed.tagged_name)
            if not any(fnmatchcase(name, pattern) for name in names for pattern in self.exclude):
                chosen.append(reference)
        if self.family is not None:
            from ...adapters.names import family_of, list_models

            list_models(family=self.family)  # raises for an unknown family
            chosen = [r for r in chosen if family_of(r) == self.family]
        first, step = self.shard
        return chosen[first - 1 :: step][: self.limit]


def parse_shard(text: str) -> tuple[int, int]:
    """Read `I/N` as (i, n). Raises `InputError`."""
    first, slash, count = text.partition("/")
    if slash and first.isdigit() and count.isdigit() and 1 <= int(first) <= int(count):
        return int(first), int(count)
    raise InputError(f"shard {text!r} was given; expected I/N with I from 1 to N, such as 2/8")


def expand_references(references: Sequence[str], choice: Choice) -> list[str]:
    """Replace wildcards by the models that match, each once, and choose.

    Raises `UnknownNameError` for a pattern that matches nothing.
    """
    from ...adapters.names import expand_wildcards

    found = (name for reference in references for name in expand_wildcards(reference))
    return choice.of(list(dict.fromkeys(found)))


def parse_suites(names: Sequence[str], known: Mapping[str, Suite]) -> list[tuple[str, str]]:
    """Read `erf`, `erf:kim2023` and `erf:all` as (suite, protocol) pairs, each once, in order.

    Raises `UnknownNameError` with near names, `InputError` when there is none.
    """
    pairs: dict[tuple[str, str], None] = {}
    for text in names:
        name, _, protocol = text.strip().partition(":")
        suite = known[check_name("suite", name, known)]
        default = next(iter(suite.protocols))
        wanted = list(suite.protocols) if protocol == "all" else [protocol or default]
        for one in wanted:
            pairs[name, check_name(f"protocol of {name}", one, suite.protocols)] = None
    if not pairs:
        raise InputError(f"no suite was given; expected some of {', '.join(known)}")
    return list(pairs)


def parse_fills(names: Sequence[str]) -> list[Fill]:
    """Check the names of kernel-padding fills, each once, in order. Raises `UnknownNameError`."""
    checked = [check_name("kernel padding", name.strip(), FILLS) for name in names]
    return [fill for fill in FILLS if fill in checked]


def file_identity(reference: str, settings: Settings | None = None) -> str:
    """What decides the model of a reference, beside its text: hashes of files, library version.

    Of an ONNX file also the external data and the TOML declaration beside it, and what `settings`
    declare of its input and output. Opening the model says what is wrong with a file.
    """
    from ...adapters.load import files_of, library_version

    files = files_of(reference)
    own = own_identity(reference, settings.seed if settings is not None else 0)
    parts = [own, library_version(reference), *hashes(files)]
    if (files or own) and settings is not None and settings.inputs:
        parts.append(digest(to_json_value(dict(settings.inputs))))
    return "+".join(part for part in parts if part)


def own_identity(reference: str, seed: int) -> str:
    """Hash of the module of a `py:` reference: structure, tensors and stated size; else ''.

    Code that fails gives '', and a failed record when it is opened.
    """
    from ...adapters.load import own_module

    try:
        built = own_module(reference, seed)
    except PerimetryError:
        return ""
    return digest([module_identity(built[0]), built[1]]) if built else ""


def used_settings(settings: Settings, *, random: bool) -> dict[str, Any]:
    """The settings, seed apart, that can change the numbers of a suite; exact ones use no images.

    Records of one suite, protocol and version compare only when these are equal.
    """
    used: dict[str, Any] = {
        "target": settings.target,
        "size": list(settings.size) if settings.size else None,
        "members": settings.members,
    }
    if random:
        images = settings.open_images().check()
        used["images_sha256"] = images_identity(images)
        used["draws"] = settings.draws
        used["precision"] = settings.precision
        used["recalibrate"] = settings.recalibrate
        if settings.precision_goal is not None:
            used |= {name: getattr(settings, name) for name in GOAL_FIELDS}
    return used


def _for_fill(
    chosen: Sequence[tuple[str, str]], fill: Fill, known: Mapping[str, Suite]
) -> list[tuple[str, str]]:
    """The (suite, protocol) pairs of one fill: fidelity is for treated variants."""
    pairs = [pair for pair in chosen if pair[0] != TREATED_ONLY]
    asked = len(pairs) < len(chosen) or any(known[suite].random for suite, _ in pairs)
    if fill != "none" and asked and TREATED_ONLY in known:
        pairs.append((TREATED_ONLY, next(iter(known[TREATED_ONLY].protocols))))
    return pairs
