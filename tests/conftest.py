"""Test processes that run side by side share the cores: each takes its part of them as threads."""

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Before any test file imports torch, which reads the number once; their children inherit it.

    More threads than cores would spin while they wait for each other.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:
        threads = max(1, (os.cpu_count() or 1) // processes)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
