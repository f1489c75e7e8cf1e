"""Damage to bytes and to the fields of JSON, drawn from a generator."""

from __future__ import annotations

import json

ODD_VALUES = (
    *(None, True, -1, 0, 2**63, 10**400, 1e308, -1e308, "", "NaN", "-inf", "\u202e\x1b[31m"),
    *([], {}, [[]], [None] * 3, {"": ""}, "x" * 5000, "<script>", "=1+1", "../../etc/passwd"),
)


def damaged_bytes(data, rng):
    """`data` after one to four changes: cut, flipped, filled, repeated, removed or exchanged."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        if not data:
            break
        at, length = int(rng.integers(len(data))), int(rng.integers(1, 64))
        match rng.integers(6):
            case 0:
                del data[at:]
            case 1:
                data[at] ^= 1 << int(rng.integers(8))
            case 2:
                data[at : at + length] = bytes([int(rng.integers(256))]) * length
            case 3:
                data[at:at] = data[:length]
            case 4:
                del data[at : at + length]
            case _:
                data[at : at + length] = rng.bytes(length)
    return bytes(data)


def damaged_json(data, rng):
    """A JSON document with one to three of its values exchanged, removed or renamed."""
    content = json.loads(data)
    for _ in range(rng.integers(1, 4)):
        places = list(_places(content))
        if not places:
            break
        holder, key = places[rng.integers(len(places))]
        match rng.integers(4):
            case 0 if isinstance(holder, dict):
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[f"{key}x"] = holder.pop(key)
            case _:
                holder[key] = ODD_VALUES[rng.integers(len(ODD_VALUES))]
    return json.dumps(content).encode()


def _places(value):
    """Every (holder, key) below `value`."""
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield value, key
            yield from _places(value[key])
