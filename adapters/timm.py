"""timm models: `timm:NAME[.TAG]` (pretrained), `timm:NAME@init` (seeded), `timm:NAME@FILE`."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import urllib.request
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .device import pick_device
from .errors import ModelFileError, UnknownNameError, WeightsError, check_name, unknown
from .input_spec import InputSpec
from .meta_forward import ShapesOnly
from .model import Precision
from .pytorch.model import TorchModel
from .pytorch.tensors import copy_module
from .pytorch.weights import module_tensors_digest, set_scales_to_one
from .seeding import seeded_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


INIT_MEMBERS = 8
"""Default number of seeds of an `@init` model."""

CALIBRATION_IMAGES = 4
"""Number of images, the first ones, that calibrate the norms of an `@init` model."""


@cache
def known_models(family: str | None = None) -> tuple[str, ...]:
    """All architecture names of the installed timm, or those of one of its modules.

    Raises `UnknownNameError` for a family that timm does not have.
    """
    import timm

    if family is not None:
        check_name("family of timm models", family, timm.list_modules())
    return tuple(timm.list_models(module=family or ""))


def family_of(name: str) -> str | None:
    """The module of timm that defines the architecture `name`; None if timm does not have it."""
    import timm

    if not timm.is_model(name):
        return None
    return str(timm.model_entrypoint(name).__module__.rpartition(".")[2])


def with_tag(name: str) -> str:
    """The architecture `name` with timm's default tag, as `NAME.TAG`; `name` if there is none.

    Source: `timm.get_pretrained_cfg`.
    """
    import timm

    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    return f"{name}.{config.tag}" if config is not None and config.tag else name


def open_timm(
    name: str,
    state: str | None,
    *,
    device: str = "auto",
    target: str | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    members: int | None = None,
    precision: Precision = "float32",
) -> TorchModel:
    """Open the architecture `name`; `state` is None (pretrained), `init`, or a weights file.

    `size` overrides the (height, width) the model was made for. Raises `UnknownNameError` with near
    names, `WeightsError` when weights are not available or do not fit, `InputError` when the model
    refuses the size.
    """
    _check_name(name, pretrained=state is None)
    shell = _create(name, device="meta")
    build, source = _builder(name, state, seed)
    model = TorchModel(
        shell,
        build,
        reference=f"timm:{name}" + (f"@{state}" if state else ""),
        spec=_spec(shell, size),
        device=pick_device(device),
        source=source,
        target=target,
        prefix=getattr(shell, "num_prefix_tokens", None),
        members=(members or INIT_MEMBERS) if state == "init" else 1,
        calibrated=CALIBRATION_IMAGES if state == "init" else 0,
        precision=precision,
    )
    if state == "init":
        model.notes.append(
            f"untrained: up to {model.members} seeded initial states, norms calibrated"
        )
    return model


def _check_name(name: str, *, pretrained: bool) -> None:
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise UnknownNameError(unknown("timm model", name, known_models()))
    tags = [n.partition(".")[2] for n in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise UnknownNameError(unknown("weights tag", tag, tags) + f" for {architecture}")
    if pretrained and not tags:
        raise WeightsError(
            f"timm has no pretrained weights for {architecture!r}; audit its initial state "
            f"(timm:{architecture}@init) or a file (timm:{architecture}@FILE)"
        )


def _create(name: str, **options: Any) -> nn.Module:
    """Build an architecture without weights, on `device` if given."""
    import timm

    device = options.pop("device", "cpu")
    try:
        with torch.device(device), ShapesOnly():
            module: nn.Module = timm.create_model(name, pretrained=False, **options)
    except Exception:
        if device == "cpu":
            raise
        return _create(name, **options)  # a few architectures compute with their weights when built
    return module.eval()


def _spec(module: nn.Module, size: tuple[int, int] | None) -> InputSpec:
    from timm.data.config import resolve_model_data_config

    config = resolve_model_data_config(module)
    channels, height, width = config["input_size"]
    return InputSpec(
        height=size[0] if size else height,
        width=size[1] if size else width,
        channels=channels,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        crop_pct=config["crop_pct"],
    )


def _builder(name: str, state: str | None, seed: int) -> tuple[Any, Mapping[str, str]]:
    """Return the function that builds a weight set, and the source of the weights."""
    import timm

    source = {"runtime": "torch", "timm": timm.__version__, "architecture": name.partition(".")[0]}
    if state == "init":
        return partial(_initial, name, seed), {**source, "weights": "initial state"}
    path = None if state is None else Path(state)
    loaded = _with_file(name, path) if path is not None else _pretrained(name)
    source["tensors_sha256"] = module_tensors_digest(loaded)
    if path is not None:
        source["file"] = path.name
        source["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return partial(_copy, loaded), source


def _copy(module: nn.Module, _member: int) -> nn.Module:
    return copy_module(module)


def _initial(name: str, seed: int, member: int) -> nn.Module:
    """Build the initial state of seed `seed` + `member`, with scales of 1."""
    with seeded_weights(seed + member):
        module = _create(name)
    set_scales_to_one(module)
    return module


def _pretrained(name: str) -> nn.Module:
    import timm

    try:
        with _offline_if_unreachable():
            module: nn.Module = timm.create_model(name, pretrained=True)
    except Exception as error:
        architecture = name.partition(".")[0]
        raise WeightsError(
            f"the pretrained weights of {name!r} are neither cached nor reachable "
            f"({type(error).__name__}); audit the initial state "
            f"(timm:{architecture}@init), or give a weights file (timm:{architecture}@FILE)"
        ) from error
    return module.eval()


@contextlib.contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Use the cache only if the hub does not answer: its client would retry for a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or urllib.request.getproxies() or _answers(constants.ENDPOINT):
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


def _answers(endpoint: str) -> bool:
    address = urllib.parse.urlsplit(endpoint)
    try:
        socket.create_connection((address.hostname, address.port or 443), timeout=3).close()
    except OSError:
        return False
    return True


def _with_file(name: str, path: Path) -> nn.Module:
    module = _create(name)
    state = read_state(path)
    fitted = _fit(state, module.state_dict())
    if fitted is None:
        raise WeightsError(
            f"{path} holds {len(state)} tensors that do not fit {name!r} "
            f"({len(module.state_dict())} tensors), neither by name nor by order and shape"
        )
    module.load_state_dict(fitted)
    return module.eval()


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from safetensors or a weights-only torch file; nothing is unpickled.

    Raises `WeightsError` when there is no such file, `ModelFileError` when it cannot be read or
    holds no tensors.
    """
    if not path.is_file():
        raise WeightsError(f"no weights file {str(path)!r}; give a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelFileError(
            f"{path} cannot be read as weights ({type(error).__name__}); expected safetensors, or "
            "a torch file that contains tensors only (pickled objects are refused)"
        ) from error
    for key in ("state_dict", "model", "state_dict_ema"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = content if isinstance(content, dict) else {}
    state = {str(k).removeprefix("module."): v for k, v in tensors.items() if _is_tensor(v)}
    if not state:
        raise ModelFileError(f"{path} contains no tensors; expected a state dict")
    return state


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _fit(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """Match `state` to the entries of `own` by name, else by order and shape; None if neither fits.

    Step counters of batch norm may be absent.
    """
    counters = {k: v for k, v in own.items() if k.endswith("num_batches_tracked")}
    wanted = {k: v for k, v in own.items() if k not in counters}
    given = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    if given.keys() == wanted.keys():
        pairs = {k: given[k] for k in wanted}
    elif len(given) == len(wanted):
        pairs = dict(zip(wanted, given.values(), strict=True))
    else:
        return None
    if any(pairs[k].shape != wanted[k].shape for k in wanted):
        return None
    return {**counters, **pairs}
