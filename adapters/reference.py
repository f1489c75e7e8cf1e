"""The grammar of references, by which the command line and records name models.

    timm:NAME[.VARIANT]             pretrained weights of timm
    timm:NAME[.VARIANT]@init        initial states from seeds
    timm:NAME[.VARIANT]@FILE        weights from a file; with FILE#KEY those of that name in it
    torchvision:NAME[.VARIANT]      a model of torchvision, with the same three kinds of weights
    hf:ORG/NAME, hf:./FOLDER        a model of transformers; with @init, its initial states
    py:package.module:factory       a module that the user's own code gives
    PATH.onnx                       an ONNX file
    PATH.pt2                        a program of torch.export

A model given in Python has a name that its author chose; its runtime is "". A further runtime needs
one line in `PREFIXES` or `SUFFIXES`, and a branch in `load`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path, PurePath

from .errors import UnknownNameError

FORMS = (
    "timm:NAME[.TAG], torchvision:NAME[.WEIGHTS] (either @init or @FILE), "
    "hf:ORG/NAME[@init], py:package.module:factory, PATH.onnx or PATH.pt2"
)

PREFIXES = ("timm", "torchvision", "hf", "py")
"""Runtimes that a reference names before a colon."""

STATED = ("timm", "torchvision", "hf")
"""Runtimes whose models state their own input."""

SUFFIXES = {".onnx": "onnx", ".pt2": "pt2"}
"""Runtimes by the suffix of a file."""

HUB = ("hf-hub:", "hf_hub:")
"""Beginnings of names that timm reads from the Hugging Face hub itself."""

GROUP = "perimetry.adapters"
"""Entry points of other packages; the name is the prefix, the value a function that opens."""


@cache
def other_runtimes() -> dict[str, EntryPoint]:
    """The runtimes that other packages add, by prefix; ours cannot be replaced."""
    return {e.name: e for e in entry_points(group=GROUP) if e.name not in PREFIXES}


INIT = "init"
"""The weights part of a reference to seeded initial states."""

_KEY = re.compile(r"(?P<file>.+)#(?P<key>[A-Za-z_]\w*)", re.DOTALL)


def split_key(weights: str) -> tuple[Path, str | None]:
    """The file of `FILE` or `FILE#KEY`, and the key of the weights in it.

    >>> split_key("run.pth.tar#state_dict")[1]
    'state_dict'
    """
    found = _KEY.fullmatch(weights)
    return (Path(found["file"]), found["key"]) if found else (Path(weights), None)


@dataclass(frozen=True)
class Reference:
    """A parsed reference; `str` gives the text that it was parsed from.

    `runtime` is one of `PREFIXES`, a value of `SUFFIXES`, or "" for a model given in Python.
    `name` is the architecture, the path of a file, or `package.module:factory`. `variant` is the
    tag of pretrained weights, "" for the default. `weights` is None (pretrained), `init`, or a
    path.

    >>> Reference.parse("timm:resnet18.a1_in1k@init")
    Reference(runtime='timm', name='resnet18', variant='a1_in1k', weights='init')
    """

    runtime: str
    name: str
    variant: str = ""
    weights: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse the reference of a model that can be loaded.

        Raises `UnknownNameError`, with a near form where there is one.
        """
        found = cls.parse_any(text)
        if found.runtime:
            return found
        prefix, colon, rest = text.partition(":")
        near = get_close_matches(prefix, PREFIXES, n=1) if colon else []
        hint = f"; did you mean {near[0]}:{rest}?" if near else ""
        raise UnknownNameError(f"model {text!r} is not of a known form; expected {FORMS}{hint}")

    @classmethod
    def parse_any(cls, text: str) -> Reference:
        """Parse any reference that a record may have: of all other forms `runtime` is ""."""
        prefix, colon, rest = text.partition(":")
        suffix = PurePath(text).suffix
        if colon and (prefix == "py" or prefix in other_runtimes()):
            return cls(prefix, rest)
        if colon and prefix in PREFIXES:
            name, at, weights = rest.partition("@")
            if prefix == "hf" or name.startswith(HUB):  # dots are part of these names
                return cls(prefix, name, "", weights if at else None)
            architecture, _, variant = name.partition(".")
            name = architecture if variant else name
            return cls(prefix, name, variant, weights if at else None)
        if suffix in SUFFIXES:
            return cls(SUFFIXES[suffix], text)
        name, at, weights = text.partition("@")
        return cls("", name, "", weights if at else None)

    def __str__(self) -> str:
        return self.bare if self.weights is None else f"{self.bare}@{self.weights}"

    @property
    def tagged_name(self) -> str:
        """`NAME.VARIANT`, or `NAME` without a variant."""
        return f"{self.name}.{self.variant}" if self.variant else self.name

    @property
    def bare(self) -> str:
        """The reference without its weights, such as `timm:resnet18`."""
        prefix = (
            f"{self.runtime}:" if self.runtime and self.runtime not in SUFFIXES.values() else ""
        )
        return prefix + self.tagged_name

    @property
    def short(self) -> str:
        """The reference without `timm:`, such as `resnet18@init`."""
        return (self.tagged_name if self.runtime == "timm" else self.bare) + (
            "" if self.weights is None else f"@{self.weights}"
        )

    @property
    def states_input(self) -> bool:
        """Whether the model's library states its input, so that none is declared."""
        return self.runtime in STATED

    @property
    def untrained(self) -> bool:
        """Whether it names initial states from seeds."""
        return self.weights == INIT

    @property
    def file(self) -> Path | None:
        """The file of the model or of its weights; None where the reference names no file."""
        if self.runtime in SUFFIXES.values():
            return Path(self.name)
        return split_key(self.weights)[0] if self.weights and not self.untrained else None
