"""Which devices a run uses: one worker process for each."""

from __future__ import annotations

from ...adapters.errors import InputError

BATCH = {"cpu": 8, "cuda": 64}
"""Images a pass, by kind of device."""


BENCH_IMAGES = {"cpu": 12, "cuda": 64}
"""Images that `perimetry bench` takes, by kind of device."""


def devices(text: str) -> tuple[str, ...]:
    """Read `auto`, `cpu`, `cuda` (every GPU) or a comma-separated list as device names.

    Raises `InputError` for a device that is not here, and for a mixture of kinds, whose numbers
    would not compare bit for bit.
    """
    import torch

    from ...adapters.device import pick_device

    names: list[str] = []
    for word in (part.strip() for part in text.split(",")):
        device = pick_device(word)
        many = device.type == "cuda" and device.index is None
        count = torch.cuda.device_count() if many else 0
        names += [f"cuda:{i}" for i in range(count)] if many else [str(device)]
    if len({name.partition(":")[0] for name in names}) > 1:
        raise InputError(f"devices {text!r} are of unlike kinds; take one kind a run")
    return tuple(dict.fromkeys(names))


def default_batch(device: str) -> int:
    """Images a pass on `device`: what fits the caches of a CPU, what fills a GPU."""
    return BATCH["cpu" if device == "cpu" else "cuda"]
