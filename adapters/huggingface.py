"""Models of transformers: `hf:ORG/NAME`, `hf:ORG/NAME@init`, `hf:./FOLDER`, `hf:./FOLDER@init`.

Code that comes with a model is never run, and weights are read from safetensors only.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .created import Created, Opening, channel_values
from .errors import UnknownNameError, WeightsError
from .hub import offline_if_unreachable
from .input_spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from .pytorch.model import TorchModel


def check_transformers_name(name: str) -> None:
    """Raise `UnknownNameError` where transformers is missing, or a folder has no config.json."""
    _library()
    if name.startswith((".", "/", "~")) and not (_place(name) / "config.json").is_file():
        raise UnknownNameError(
            f"there is no file config.json in {str(_place(name))!r}; give the folder of a model"
        )
    if not name:
        raise UnknownNameError("no model was named; expected hf:ORG/NAME or hf:./FOLDER")


def _place(name: str) -> Path:
    return Path(name).expanduser()


def _library() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UnknownNameError(
            f"hf: needs the library transformers, which cannot be imported ({error}); install it: "
            "pip install transformers (or perimetry[hf])"
        ) from error
    return transformers


def open_hf(name: str, state: str | None, how: Opening) -> TorchModel:
    """Open the model `name`; `state` is None (pretrained) or `init`.

    Raises `UnknownNameError`, `WeightsError` when configuration or weights are neither cached nor
    reachable, `InputError` when the model refuses the size.
    """
    check_transformers_name(name)
    if state not in (None, "init"):
        raise WeightsError(f"hf: takes no weights file; give hf:{name} or hf:{name}@init")
    local = (_place(name) / "config.json").is_file()
    with offline_if_unreachable(local=local):
        return _created(name, state, str(_place(name)) if local else name).open(how)


def _created(name: str, state: str | None, place: str) -> Created:
    """The model in the folder `place`, or of that name on the hub."""
    library = _library()
    config = _fetched(partial(library.AutoConfig.from_pretrained, place), name)
    kind, build, note = _class(library, config)
    loaded: nn.Module | None = None
    if state is None:
        get = partial(kind.from_pretrained, place, use_safetensors=True)
        loaded = _fetched(get, name).eval()
    return Created(
        f"hf:{name}" + (f"@{state}" if state else ""),
        build,
        loaded,
        _spec(library, place, config),
        {
            "library": f"transformers {library.__version__}",
            "architecture": str(config.model_type),
            **({"weights": "initial state"} if state else {}),
        },
        note,
    )


def _class(library: Any, config: Any) -> tuple[Any, Callable[[], nn.Module], tuple[str, ...]]:
    """The class of transformers that the configuration names, what builds it, and a note.

    A class that the library does not have is replaced by the model without a head.
    """
    for name in config.architectures or ():
        kind = getattr(library, str(name), None)
        if isinstance(kind, type) and issubclass(kind, library.PreTrainedModel):
            return kind, partial(kind, config), ()
    auto = library.AutoModel
    return auto, partial(auto.from_config, config), ("opened without its head (AutoModel)",)


def _fetched(get: Any, name: str) -> Any:
    """What `get` gives from a folder, the cache or the hub; never with code of the model's own."""
    try:
        return get(trust_remote_code=False)
    except Exception as error:
        raise WeightsError(
            f"{name!r} cannot be opened: it is neither cached nor reachable, or not of a form that "
            f"transformers reads without code of its own ({type(error).__name__}: "
            f"{str(error)[:200]}); audit the initial state of a local folder with config.json "
            "(hf:./FOLDER@init)"
        ) from error


def _spec(library: Any, place: str, config: Any) -> InputSpec:
    """The input that the processor states; else the size of the configuration, or 224."""
    try:
        reader = library.image_processing_base.ImageProcessingMixin
        stated, _ = reader.get_image_processor_dict(place)
    except Exception:  # many models have no processor
        stated = {}
    size = stated.get("crop_size") if stated.get("do_center_crop") else stated.get("size")
    given = size or getattr(config, "image_size", None) or 224
    height, width = _sides(given)
    channels = int(getattr(config, "num_channels", 3) or 3)
    mean: Any = IMAGENET_MEAN
    std: Any = IMAGENET_STD
    if stated.get("do_normalize") is False:
        mean, std = (0.0,), (1.0,)
    mean, std = stated.get("image_mean", mean), stated.get("image_std", std)
    guessed = () if stated else ("mean", "std")
    if channels != 3 and not stated:
        mean, std = (0.0,), (1.0,)
    return InputSpec(
        height,
        width,
        channels=channels,
        mean=channel_values(list(mean), channels),
        std=channel_values(list(std), channels),
        guessed=guessed,
    )


def _sides(size: Any) -> tuple[int, int]:
    """Height and width of a side, a pair or a table of transformers."""
    if isinstance(size, dict):
        side: Any = size.get("shortest_edge", 224)
        return int(size.get("height") or side), int(size.get("width") or side)
    sides = [size] if isinstance(size, int) else list(size)
    return int(sides[0]), int(sides[-1])
