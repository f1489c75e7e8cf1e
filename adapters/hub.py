"""Whether a server of weights answers: clients that do not ask first retry for a minute."""

from __future__ import annotations

import contextlib
import socket
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def offline_if_unreachable(*, local: bool = False) -> Iterator[None]:
    """Within it, the client of the Hugging Face hub uses its cache only if the hub is silent.

    The hub is asked once; not at all if what is opened is `local`.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or (not local and answers(constants.ENDPOINT)):
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


def answers(address: str) -> bool:
    """Whether the server of a URL takes connections; with a proxy it is taken to do so."""
    if urllib.request.getproxies():
        return True
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname, parts.port or 443), timeout=3).close()
    except OSError:
        return False
    return True
