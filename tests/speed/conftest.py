"""Ratios of jobs that alternate in one run, recorded with pytest-benchmark.

Absolute times depend on the machine and what else runs on it, so only ratios are compared.
"""

import pytest

from perimetry.bench.speed.stopwatch import measured_seconds

RATIOS = pytest.StashKey[list[str]]()


@pytest.fixture
def time_ratio(benchmark, request):
    """Function (own, other, rounds) -> shortest time of `own` over that of `other`.

    The jobs alternate, A B A B, after one warm-up of each. The benchmark table has the times of
    `own`; the ratio is among the extra values of the saved JSON and in the summary of the run.
    """

    def compare(own, other, rounds=3):
        own()
        other()
        times = []
        benchmark.pedantic(
            own, setup=lambda: times.append(measured_seconds(other, "cpu")), rounds=rounds
        )
        ratio = benchmark.stats.stats.min / min(times)
        benchmark.extra_info.update(other_s=min(times), ratio=ratio)
        line = f"{request.node.name}: {ratio:.2f} x {min(times):.3f} s"
        request.config.stash.setdefault(RATIOS, []).append(line)
        return ratio

    return compare


def pytest_terminal_summary(terminalreporter, config):
    """Print the ratios, which pytest-benchmark's table does not show."""
    if ratios := config.stash.get(RATIOS, []):
        terminalreporter.section("time of each job, over that of its reference")
        for line in ratios:
            terminalreporter.write_line(line)
