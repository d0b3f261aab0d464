"""The same frames through the simulator and a real WebSocket give the figures that a replay
gives."""

import json

import drill
import pytest
from rich.console import Console

from infra.cli.commands.feed.replay import SOURCES, ReplayOptions, replay
from infra.ingest.producer_process import Feeding
from infra.kafka.lag import Lag
from infra.kafka.reader import ValueReader, read_to_end
from infra.runtime.deployment import deployed
from infra.runtime.supervisor import Supervisor
from infra.simulator import running_simulator
from producers.transport.endpoint import Endpoint
from producers.vendor.symbols import plan_feeds
from schemas.clients.registry import Registry
from schemas.topics import Topology
from schemas.wire import to_json

NAME = "glbx_esh4_20231225T2300.jsonl.gz"
# what tells of the way and the clock, not of the market
OF_THE_WAY = {
    "ts_recv",
    "source",
    "source_offset",
    "source_partition",
    "completeness",
    "revision",
    "cause",
}


def figures(rows):
    return [{name: value for name, value in row.items() if name not in OF_THE_WAY} for row in rows]


@pytest.mark.timeout(400)
def test_a_recording_over_the_websocket_gives_the_figures_of_its_replay(
    stack, recordings, namespace, tmp_path, monkeypatch
):
    monkeypatch.setenv("INFOWAY_BOOTSTRAP", stack.bootstrap)
    monkeypatch.setenv("INFOWAY_REGISTRY", stack.registry_url)
    names = Topology(namespace)
    feeds = plan_feeds(["ESH4"])
    with (
        deployed(names, tmp_path) as deployment,
        Supervisor(deployment.environment, 1, tmp_path / "logs"),
    ):
        with running_simulator([recordings / NAME], speed=0) as simulator:
            with Feeding(deployment, feeds, Endpoint(simulator.url, "key"), "simulated") as feeding:
                total = len(simulator.recording.frames)
                assert drill.wait_until(
                    lambda: feeding.failure or feeding.counters[0].acknowledged == total, 120
                ), feeding.counters
                feeding.check()
        lag = Lag(
            stack.bootstrap,
            f"{namespace}infoway-processors",
            [names.name(source) for source in SOURCES],
        )
        assert drill.wait_until(lambda: lag() == 0, 180)
    replay(ReplayOptions([recordings / NAME], tmp_path / "out", Topology()), Console(stderr=True))
    read = ValueReader(Registry(stack.registry_url))
    for topic in names.derived():
        name = names.contract_name(topic.name)
        if name == "infoway.progress":
            continue  # it follows the marks, and so the clock
        ours = [
            to_json(*read(message.value())) for message in read_to_end(stack.bootstrap, topic.name)
        ]
        theirs = [
            json.loads(line)
            for line in (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()
        ]
        if name.startswith("infoway.bars."):
            # a bar's truth is its last record
            ours, theirs = (
                {row["ts_start"]: row for row in rows}.values() for rows in (ours, theirs)
            )
        assert figures(ours) == figures(theirs), name
        assert ours or name in ("infoway.late", "infoway.dead-letter", "infoway.reconciliation")
