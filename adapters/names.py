"""Names of models: which exist, what wildcards stand for, and near names; nothing is opened."""

from __future__ import annotations

from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

from .errors import ModelFileError, UnknownNameError, WeightsError, unknown
from .reference import Reference


def parse_known(text: str) -> Reference:
    """Parse a reference; the error for the bare name of a timm model suggests its prefix."""
    try:
        return Reference.parse(text)
    except UnknownNameError as error:
        meant = Reference.parse_any(f"timm:{text}")
        if list_models(meant.name):
            raise UnknownNameError(f"{error}; did you mean {meant}?") from None
        raise


def check_reference(reference: str) -> None:
    """Raise for a reference that cannot exist, without opening anything.

    `UnknownNameError` for a text of no known form, a pattern that matches nothing or a name that
    its library does not have; `WeightsError` or `ModelFileError` for a file that is not there,
    `ModelFileError` for a `py:` factory that needs arguments. The message offers near names.
    """
    from .timm import check_timm_name

    names = expand_wildcards(reference)
    parsed = parse_known(names[0])
    if parsed.runtime == "timm":
        for name in names:
            one = parse_known(name)
            check_timm_name(one.tagged_name, pretrained=one.weights is None)
    if parsed.runtime == "hf":
        from .huggingface import check_transformers_name

        check_transformers_name(parsed.name)
    if parsed.runtime == "py":
        from .own_code import check_own

        check_own(parsed.name)
    if parsed.runtime == "torchvision":
        from .torchvision import check_torchvision_name

        for one in map(parse_known, names):
            check_torchvision_name(one.name, one.variant)
    if parsed.weights == "":
        raise WeightsError(
            f"no weights file was named; give {parsed.bare}@FILE or {parsed.bare}@init"
        )
    if parsed.file is not None and not _is_file(parsed.file):
        kind = ModelFileError if parsed.weights is None else WeightsError
        raise kind(f"no file {str(parsed.file)!r}{_near_file(parsed.file)}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or has a null byte
        return False


def _near_file(path: Path) -> str:
    """A clause with files of the same folder that have similar names."""
    try:
        names = [file.name for file in path.parent.iterdir()]
    except (OSError, ValueError):
        return "; give the path of a file that exists"
    near = get_close_matches(path.name, names, n=3)
    if not near:
        return "; give the path of a file that exists"
    return f"; did you mean {', '.join(repr(str(path.with_name(name))) for name in near)}?"


def list_models(pattern: str = "*", family: str | None = None) -> list[str]:
    """References of all timm architectures that match a shell `pattern`, such as `timm:resnet*`.

    A pattern that begins with `torchvision:` matches the models of torchvision instead.

    `family` is the module of timm that defines them, such as `resnet`, `regnet` or `convnext`.
    """
    if pattern.startswith("torchvision:"):
        from .torchvision import torchvision_names

        return [n for m in torchvision_names() if fnmatchcase(n := f"torchvision:{m}", pattern)]
    from .timm import timm_names

    names = [f"timm:{name}" for name in timm_names(family)]
    return [n for n in names if fnmatchcase(n, pattern) or fnmatchcase(n, f"timm:{pattern}")]


def expand_wildcards(reference: str) -> list[str]:
    """Expand wildcards in a timm or torchvision reference; others and existing paths stay as is."""
    pattern = Reference.parse_any(reference)
    if not any(c in pattern.bare for c in "*?[") or Path(reference).exists():
        return [reference]
    weights = str(pattern).removeprefix(pattern.bare)
    found = [name + weights for name in list_models(pattern.bare)]
    if not found:
        bare = "".join(c for c in pattern.bare if c not in "*?[]")
        all_names = list_models(f"{pattern.runtime or 'timm'}:*")
        near = unknown("pattern of models", bare, all_names).partition("; ")[2]
        raise UnknownNameError(f"no model matches {reference!r}; {near}")
    return found


def family_of(reference: str) -> str | None:
    """The family of a timm model: the module of timm that defines it, such as `resnet`.

    None for models of other runtimes and for architectures that the installed timm does not have.
    """
    from .timm import timm_family

    parsed = Reference.parse_any(reference)
    return timm_family(parsed.name) if parsed.runtime == "timm" else None


def with_tag(reference: str) -> str | None:
    """`NAME.TAG` of a pretrained timm model, with timm's default tag where none is given.

    None for models of other runtimes and for other weights.
    """
    from .timm import with_default_tag

    parsed = Reference.parse_any(reference)
    if parsed.runtime != "timm" or parsed.weights is not None:
        return None
    return parsed.tagged_name if parsed.variant else with_default_tag(parsed.name)
