"""timm models: `timm:NAME[.TAG]` (pretrained), `timm:NAME@init` (seeded), `timm:NAME@FILE`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .checkpoint.fit import fit, without_prefix
from .checkpoint.read import Checkpoint, read_checkpoint
from .created import Created, Opening, file_source, on_meta, weights_unavailable
from .errors import UnknownNameError, WeightsError, check_name, unknown
from .hub import offline_if_unreachable
from .input_spec import InputSpec
from .reference import HUB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .pytorch.model import TorchModel


@cache
def timm_names(family: str | None = None) -> tuple[str, ...]:
    """All architecture names of the installed timm, or those of one of its modules.

    Raises `UnknownNameError` for a family that timm does not have.
    """
    import timm

    if family is not None:
        check_name("family of timm models", family, timm.list_modules())
    return tuple(timm.list_models(module=family or ""))


def timm_family(name: str) -> str | None:
    """The module of timm that defines the architecture `name`; None if timm does not have it."""
    import timm

    if not timm.is_model(name):
        return None
    return str(timm.model_entrypoint(name).__module__.rpartition(".")[2])


def with_default_tag(name: str) -> str:
    """The architecture `name` with timm's default tag, as `NAME.TAG`; `name` if there is none.

    Source: `timm.get_pretrained_cfg`.
    """
    import timm

    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    return f"{name}.{config.tag}" if config is not None and config.tag else name


def open_timm(name: str, state: str | None, how: Opening) -> TorchModel:
    """Open the architecture `name`; `state` is None (pretrained), `init`, or a weights file.

    `how.size` overrides the (height, width) the model was made for. Raises `UnknownNameError` with
    near names, `WeightsError` when weights are not available or do not fit, `InputError` when the
    model refuses the size.
    """
    import timm

    check_timm_name(name, pretrained=state is None)
    shell = _on_hub(name) if name.startswith(HUB) else _shell(name)
    source = {
        "timm": timm.__version__,
        "library": f"timm {timm.__version__}",
        "architecture": name.partition(".")[0],
    }
    loaded, notes = None, tuple[str, ...]()
    options: Mapping[str, Any] = {}
    if state is None:
        loaded = _pretrained(name)
    elif state == "init":
        source["weights"] = "initial state"
    else:
        filled = _with_file(shell, name, read_checkpoint(state))
        loaded, options, notes = filled.module, filled.options, tuple(filled.notes)
        shell = _shell(name, **options) if options else shell
        source |= file_source(state)
    made = Created(
        f"timm:{name}" + (f"@{state}" if state else ""),
        partial(_create, name),
        loaded,
        _spec(shell, None, options.get("in_chans")),
        source,
        notes,
        shell=shell,
        prefix=getattr(shell, "num_prefix_tokens", None),
    )
    return made.open(how)


def timm_input(name: str, size: tuple[int, int] | None = None) -> InputSpec:
    """The input of the architecture `name`, without its weights."""
    return _spec(_on_hub(name) if name.startswith(HUB) else _shell(name), size)


def check_timm_name(name: str, *, pretrained: bool) -> None:
    """Raise `UnknownNameError` with near names, `WeightsError` for weights that timm has not."""
    import timm

    if name.startswith(HUB):  # timm's own loader says what is there
        return
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise UnknownNameError(unknown("timm model", name, timm_names()))
    tags = [n.partition(".")[2] for n in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise UnknownNameError(unknown("weights tag", tag, tags) + f" for {architecture}")
    if pretrained and not tags:
        raise WeightsError(
            f"timm has no pretrained weights for {architecture!r}; audit its initial state "
            f"(timm:{architecture}@init) or a file (timm:{architecture}@FILE)"
        )


def _create(name: str, **options: Any) -> nn.Module:
    """Build an architecture without weights."""
    import timm

    module: nn.Module = timm.create_model(name, pretrained=False, **options)
    return module.eval()


def _on_hub(name: str) -> nn.Module:
    """The shell of a model whose configuration is in the cache or on the hub."""
    try:
        with offline_if_unreachable():
            return _shell(name)
    except Exception as error:
        raise WeightsError(
            f"{name!r} is neither cached nor reachable ({type(error).__name__}); name an "
            "architecture of timm itself, such as timm:resnet18@init"
        ) from error


def _shell(name: str, **options: Any) -> nn.Module:
    return on_meta(partial(_create, name, **options))


def _spec(
    module: nn.Module, size: tuple[int, int] | None, channels: int | None = None
) -> InputSpec:
    """The input that timm states; with other `channels`, the mean of its normalisation."""
    from timm.data.config import resolve_model_data_config

    config = resolve_model_data_config(module)
    usual, height, width = config["input_size"]
    mean, std = tuple(config["mean"]), tuple(config["std"])
    if channels not in (None, usual):
        mean, std = ((sum(values) / len(values),) * channels for values in (mean, std))
    return InputSpec(
        height=size[0] if size else height,
        width=size[1] if size else width,
        channels=channels or usual,
        mean=mean,
        std=std,
        interpolation=config["interpolation"],
        crop_pct=config["crop_pct"],
    )


def _pretrained(name: str) -> nn.Module:
    import timm

    try:
        with offline_if_unreachable():
            module: nn.Module = timm.create_model(name, pretrained=True)
    except Exception as error:
        init = f"timm:{name.partition('.')[0]}@init"
        raise WeightsError(weights_unavailable("pretrained", name, error, init)) from error
    return module.eval()


def _with_file(shell: nn.Module, name: str, checkpoint: Checkpoint) -> FromFile:
    """The architecture of `shell` with the weights of a file, and as many classes as there."""
    options, notes = _options(shell, checkpoint)
    module = _create(name, **options)
    fitted = fit(checkpoint, module.state_dict(), name.partition(".")[0])
    module.load_state_dict(fitted.state)
    return FromFile(module.eval(), options, [*fitted.notes, *notes])


@dataclass(frozen=True)
class FromFile:
    """A module with the weights of a file, the `options` it was built with, and notes."""

    module: nn.Module
    options: Mapping[str, Any]
    notes: list[str]


def _options(shell: nn.Module, checkpoint: Checkpoint) -> tuple[dict[str, Any], list[str]]:
    """Numbers of classes and channels in which the file differs from `shell`, and notes."""
    own = shell.state_dict()
    state, _ = without_prefix(checkpoint.state, list(own))
    config: Any = getattr(shell, "pretrained_cfg", {})
    options, notes = {}, []
    for option, key, axis, what in (
        ("num_classes", "classifier", 0, "classes"),
        ("in_chans", "first_conv", 1, "input channels"),
    ):
        found = _sizes(own, state, config.get(key) or (), axis)
        if found is not None and found[0] != found[1]:
            options[option] = found[1]
            notes.append(f"{found[1]} {what}, as in the file, instead of {found[0]}")
    return options, notes


def _sizes(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], layers: Any, axis: int
) -> tuple[int, int] | None:
    """Length of `axis` of the first of `layers` here and in the file; 0 if it is not there."""
    names = [f"{n}.weight" for n in ((layers,) if isinstance(layers, str) else layers)]
    name = next((n for n in names if n in own and own[n].ndim > axis), None)
    if name is None:
        return None
    if name in state:
        return own[name].shape[axis], state[name].shape[axis] if state[name].ndim > axis else -1
    layer = name.removesuffix("weight")
    similar = 2 * len(own.keys() & state.keys()) > len(own)
    absent = similar and axis == 0 and not any(key.startswith(layer) for key in state)
    return (own[name].shape[axis], 0) if absent else None
