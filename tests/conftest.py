"""What holds for all tests, since they run side by side on cores that they share."""

import os

import hypothesis
import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Give each process its part of the cores as threads; examples are the same in every run.

    Before any test file imports torch, which reads the number of threads once; child processes
    inherit it. More threads than cores would spin while they wait for each other. Examples have no
    absolute time limit.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:
        threads = max(1, (os.cpu_count() or 1) // processes)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    still = hypothesis.settings(hypothesis.settings.default, deadline=None, derandomize=True)
    hypothesis.settings.register_profile("still", still)
    hypothesis.settings.load_profile("still")
