"""Settings of all tests, which run side by side and share the cores, and common fixtures."""

import os
import shutil

import hypothesis
import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Share the cores among the processes; make hypothesis the same in every run.

    The number of threads is set before any test file imports torch, which reads it once; child
    processes inherit it. More threads than cores would spin while they wait for each other.
    Hypothesis may take any time, both for an example and for drawing it.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:
        threads = max(1, (os.cpu_count() or 1) // processes)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    hypothesis.settings.register_profile(
        "repeatable",
        deadline=None,
        derandomize=True,
        suppress_health_check=[
            hypothesis.HealthCheck.too_slow,  # a limit on wall time
            hypothesis.HealthCheck.function_scoped_fixture,  # examples overwrite files in tmp_path
        ],
    )
    hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def gate_baseline(tmp_path_factory):
    """A baseline of the small network for the regression gate; no test changes it."""
    from gate_tools import measured_baseline

    return measured_baseline(tmp_path_factory.mktemp("baseline"))


@pytest.fixture
def gate_copy(gate_baseline, tmp_path):
    """A baseline of one's own to spoil."""
    return shutil.copytree(gate_baseline, tmp_path / "copy")


@pytest.fixture(scope="module")
def browser():
    """A headless browser; a module at a time, since no two run at once."""
    import browser as browsers

    with browsers.opened() as one:
        yield one


@pytest.fixture(scope="session")
def zoo_page(tmp_path_factory):
    """The page of the planted zoo."""
    from planted_boards import zoo_page

    return zoo_page(tmp_path_factory.mktemp("page") / "zoo.html")


@pytest.fixture
def visit(browser, zoo_page):
    """A visit of the zoo's page, which logs no problem and asks for no other file."""
    from browser import Visit

    one = Visit(browser, zoo_page)
    yield one
    assert one.problems == []
    assert one.requests == [zoo_page.as_uri()]
    one.close()
