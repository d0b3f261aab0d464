"""`infoway-streams worker`: computes what the cluster's topics and INFOWAY_* say, one of any number
of workers."""

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import AdminClient

from infra.cli.checks import (
    cluster_mistakes,
    http_mistakes,
    reached_cluster_mistakes,
    settings_mistakes,
)
from infra.cli.cluster import PARTS, is_named, set_parts
from infra.cli.command import Command
from infra.cli.options import add_hold
from infra.embedded.running import NoRun, find
from infra.runtime.deployment import settings_of_workers
from infra.topology.found import TopologyFound, found_by
from schemas.clients.kafka import client


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """A worker has settings alone, beside the folder of a running stack."""

    data: Path


def single_worker_mistakes(options: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong with the settings of the one worker that this process is to be."""
    named = is_named()
    # a running stack has addresses
    addresses = (
        {} if named else {"INFOWAY_BOOTSTRAP": "found:1", "INFOWAY_REGISTRY": "http://found"}
    )
    yield from settings_mistakes({**os.environ, **addresses})
    yield from cluster_mistakes(options) if named else reached_cluster_mistakes(options)
    yield from http_mistakes(options)


def worker(options: WorkerOptions) -> int:
    """Run the worker until SIGTERM or Ctrl-C."""
    # Faust takes a second to import, which no other command needs
    from infra.runtime.worker import work

    for name, value in beside(options.data).items():
        os.environ.setdefault(name, value)
    open_parts = [name for name in PARTS if not os.environ.get(f"INFOWAY_{name.upper()}")]
    prefix = os.environ.get("INFOWAY_PREFIX", "")

    def topology_there() -> TopologyFound:
        if not open_parts:
            return TopologyFound()
        admin = AdminClient({**client(os.environ["INFOWAY_BOOTSTRAP"]), "log_level": 0})
        try:
            found = found_by(admin, prefix)
        finally:
            admin.poll(0)  # logs why the broker lets nobody in
        set_parts(open_parts, found)
        return found

    work(topology_there=topology_there)
    return 0


def beside(data: Path) -> dict[str, str]:
    """Return the settings of a worker beside those of the run over a folder; empty if it works on
    another cluster or under another prefix."""
    try:
        found = find(data)
    except NoRun:
        return {}
    prefix = os.environ.get("INFOWAY_PREFIX", "")
    if (found.run.bootstrap, found.run.prefix) != (os.environ["INFOWAY_BOOTSTRAP"], prefix):
        return {}
    # the run's own workers have the slots 0, 1 …: whoever takes one of these ends its owner
    return {"INFOWAY_SLOT": f"beside-{os.getpid()}", **settings_of_workers(found.source)}


COMMAND = Command(
    "worker",
    "compute what the cluster's topics and INFOWAY_* say, one of any number of workers",
    "worker",
    add_hold,
    WorkerOptions,
    worker,
    (single_worker_mistakes,),
    asks_cluster=True,
)
