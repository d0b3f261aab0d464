"""The worker at its defaults while broker or registry are away: alive, not ready, what it waits for
named; and it ends when told to."""

import signal
import subprocess
import sys
from contextlib import contextmanager

import drill
import httpx
import pytest
from integration.test_graceful_stop import BASE, asked

from infra import topology
from infra.embedded.ports import free_ports
from schemas.clients.registry import Registry
from schemas.topics import Topology


@contextmanager
def worker(tmp_path, **settings):
    """A worker, and where it answers."""
    place = f"127.0.0.1:{free_ports(0)[0]}"
    environment = BASE | settings | {"INFOWAY_HTTP": place, "INFOWAY_WORK_DIR": str(tmp_path)}
    with (tmp_path / "log").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.cli.main", "worker"],
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        yield process, place
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("away", ["broker", "schema registry"])
def test_a_worker_waits_at_its_start_for_what_is_away(stack, namespace, tmp_path, away):
    topology.apply(
        stack.bootstrap, Registry(stack.registry_url), Topology(namespace, partitions=1), {}
    )
    nobody = f"127.0.0.1:{free_ports(0)[0]}"
    settings = {"INFOWAY_BOOTSTRAP": stack.bootstrap, "INFOWAY_REGISTRY": stack.registry_url}
    settings |= (
        {"INFOWAY_BOOTSTRAP": nobody}
        if away == "broker"
        else {"INFOWAY_REGISTRY": f"http://{nobody}"}
    )
    with worker(tmp_path, INFOWAY_PREFIX=namespace, INFOWAY_PARTITIONS="1", **settings) as (
        process,
        place,
    ):
        says = f"waiting for the {away} for"
        assert drill.wait_until(lambda: says in (asked(place, "/readyz") or ""), 120), (
            tmp_path / "log"
        ).read_text()
        assert httpx.get(f"http://{place}/readyz", timeout=30).status_code == 503
        assert asked(place, "/livez") == "ok\n"
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (tmp_path / "log").read_text()
    log = (tmp_path / "log").read_text()
    assert log.count(f"waiting for the {away}") == 1
    assert "Traceback" not in log


def test_a_worker_computes_the_topology_that_the_cluster_has(stack, namespace, tmp_path):
    """The defaults have other intervals and partitions: they would be missed at the start."""
    names = Topology(namespace, ("5s", "1m"), ("1m",), partitions=2)
    topology.apply(stack.bootstrap, Registry(stack.registry_url), names, {})
    settings = {"INFOWAY_BOOTSTRAP": stack.bootstrap, "INFOWAY_REGISTRY": stack.registry_url}
    with worker(tmp_path, INFOWAY_PREFIX=namespace, **settings) as (process, place):
        assert drill.wait_until(
            lambda: asked(place, "/readyz") == "ok\n" or process.poll() is not None, 150
        )
        assert process.poll() is None, (tmp_path / "log").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (tmp_path / "log").read_text()
