"""The Ray engine on a cluster of several nodes on this machine, one of which is killed."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import sweep_tools
import toys

from perimetry.bench.execution.runner import run_jobs
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.tables import to_csv
from perimetry.bench.records.store import Store

NAMES = [f"toy:slow-{i}" for i in range(3)] + ["toy:measure-error"]
EVERYTHING = {"suites": ("structure", "deadpixel:all"), "fills": ("none", "box")}

QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 2,
    "enable_worker_prestart": False,
}
"""A node that refuses connections counts as dead within a second; a slow one does not."""

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head without cores and two nodes of one core each, on loopback, reporting to nobody."""
    folder = str(Path(toys.__file__).parent)
    path = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    settings = {
        "PYTHONPATH": path,
        "RAY_USAGE_STATS_ENABLED": "0",
        "TOY_LOG": str(tmp_path_factory.mktemp("log") / "log"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        small = {"object_store_memory": 80 * 2**20, "include_log_monitor": False}
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK, **small}
        made = Cluster(initialize_head=True, head_node_args=head)
        nodes = [made.add_node(num_cpus=1, **small) for _ in range(2)]
        yield made, nodes, Path(settings["TOY_LOG"])
        import ray

        ray.shutdown()
        made.shutdown()


def jobs():
    return sweep_tools.jobs_of(NAMES, **EVERYTHING) + sweep_tools.jobs_of(["toy:segfault"])


def kill_one(cluster, nodes, records):
    """Kill a node as soon as a few records are there."""
    end = time.monotonic() + 600
    while len(list(records.glob("*.json"))) < 6 and time.monotonic() < end:
        time.sleep(0.02)
    cluster.remove_node(nodes[0], allow_graceful=False)


def test_a_node_killed_in_mid_sweep_costs_no_record_and_doubles_none(cluster, tmp_path):
    """Two nodes, one killed: records and board of a run on this machine; again, nothing is made."""
    made, nodes, log = cluster
    store = Store(tmp_path / "ray")
    killer = threading.Thread(target=kill_one, args=(made, nodes, store.folder))
    killer.start()
    options = replace(sweep_tools.OPTIONS, engine="ray", address=made.address, time_limit_s=300)
    summary = run_jobs(jobs(), store, sweep_tools.SETTINGS, options)
    killer.join()
    measured = Counter(log.read_text().splitlines())

    alone = Store(tmp_path / "local")
    expected = run_jobs(jobs(), alone, sweep_tools.SETTINGS, sweep_tools.OPTIONS)
    assert len(made.list_all_nodes()) == 2  # the head and one
    assert {r.key: r.status for r in store.records()} == {r.key: r.status for r in alone.records()}
    assert to_csv(Board(store.records(), suites=toys.SUITES)) == to_csv(
        Board(alone.records(), suites=toys.SUITES)
    )
    assert summary.made == expected.made
    assert sum(measured.values()) - len(measured) <= 1  # what the node was at, and no more
    assert store.read()[1] == []
    again = run_jobs(jobs(), store, sweep_tools.SETTINGS, replace(options, retry_failed=False))
    assert (again.made, again.already_present) == (Counter(), len(alone.records()))
