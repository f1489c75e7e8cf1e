"""Arguments of torch's functions by the names and places that the rules take them by."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_OWN_NAMES = {"axis": "dim", "keepdims": "keepdim"}
"""Torch's own names of arguments that it also takes by numpy's."""

POWERS = frozenset({"pow", "ipow", "float_power"})

_OF_TWO = """
    add sub subtract rsub mul multiply div divide true_divide maximum minimum fmax fmin matmul
"""

_PARAMETERS = {
    **dict.fromkeys(_OF_TWO.split(), ("input", "other")),
    **dict.fromkeys(("bmm", "mm"), ("input", "mat2")),
    "addmm": ("input", "mat1", "mat2"),
    "baddbmm": ("input", "batch1", "batch2"),
    **dict.fromkeys(("addcmul", "addcdiv"), ("input", "tensor1", "tensor2")),
    "lerp": ("input", "end", "weight"),
    **dict.fromkeys(POWERS, ("input", "exponent")),
    "where": ("condition", "input", "other"),
    "reshape": ("input", "shape"),
    "flip": ("input", "dims"),
    "split": ("tensor", "split_size_or_sections", "dim"),
}
"""Torch's names of the arguments that rules take by their places."""


def by_own_names(
    name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The function and its arguments by torch's own names, and those of `_PARAMETERS` by place."""
    kwargs = {_OWN_NAMES.get(key, key): value for key, value in kwargs.items()}
    if func is Tensor.where:  # has its condition second
        given = dict(zip(("input", "condition", "other"), args, strict=False))
        func, args, kwargs = torch.where, (), {**given, **kwargs}
    for own in _PARAMETERS.get(name, ("input",))[len(args) :]:
        if own not in kwargs:
            break
        args = (*args, kwargs.pop(own))
    return func, args, kwargs
