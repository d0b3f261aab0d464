"""Producer and worker as Kubernetes and Compose run them: their probes, and SIGTERM, which ends both in order within their pods' time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import drill
import httpx
import pytest
import yaml
from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from infra import topology
from infra.embedded.ports import free_ports
from infra.simulator import running_simulator
from schemas.registry import Registry
from schemas.topics import Topology

K8S = Path(__file__).parents[2] / "infra" / "k8s"
BASE = {name: value for name, value in os.environ.items() if not name.startswith("INFOWAY_")}


def workload(file, kind):
    """The command of a workload's container, run by this Python, and the seconds that its pod has to end."""
    [found] = [document for document in yaml.safe_load_all((K8S / file).read_text()) if document["kind"] == kind]
    pod = found["spec"]["template"]["spec"]
    program, *arguments = pod["containers"][0]["command"]
    assert program == "infoway-streams"
    return [sys.executable, "-m", "infra.cli", *arguments], pod["terminationGracePeriodSeconds"]


def ends(stack, topics, isolation):
    """How far each topic's only partition is: for read_committed only up to the first open transaction."""
    asked = {TopicPartition(topic, 0): OffsetSpec.latest() for topic in topics}
    # kept until the answers are there: they never come where the client goes first
    admin = AdminClient({"bootstrap.servers": stack.bootstrap, "log_level": 0})
    found = admin.list_offsets(asked, isolation_level=isolation)
    return {place.topic: future.result().offset for place, future in found.items()}


def asked(place, path):
    try:
        return httpx.get(f"http://{place}{path}").text
    except httpx.TransportError:
        return None


def counted(place, metric):
    return sum(float(line.rpartition(" ")[2]) for line in asked(place, "/metrics").splitlines() if line.startswith(metric))


@pytest.mark.timeout(120)
def test_pods_that_are_told_to_end_leave_nothing_open_and_end_in_time(stack, namespace, tmp_path):
    names = Topology(namespace, partitions=1)
    topology.apply(stack.bootstrap, Registry(stack.registry_url), names, {})
    written = [topic.name for topic in names.topics() if topic.name.endswith(("vwap.1m", "depth.imbalance", "state.vwap"))]
    produce, produce_period = workload("producer/producer.yaml", "Deployment")
    process, process_period = workload("base/processors.yaml", "StatefulSet")
    produce[produce.index("--symbols-file") + 1] = str(tmp_path / "symbols.txt")
    (tmp_path / "symbols.txt").write_text("BTCUSDT\n00700.HK\n")
    environment = BASE | {
        "INFOWAY_BOOTSTRAP": stack.bootstrap,
        "INFOWAY_REGISTRY": stack.registry_url,
        "INFOWAY_PREFIX": namespace,
        "INFOWAY_PARTITIONS": "1",
        "INFOWAY_SPOOL": str(tmp_path / "spool"),
        "INFOWAY_WORK_DIR": str(tmp_path / "work"),
    }
    places = [f"127.0.0.1:{port}" for port in free_ports(0, 0)]
    log = tmp_path / "log"
    with running_simulator(rate=50) as simulator, log.open("ab") as output:

        def start(command, place):
            variables = environment | {"INFOWAY_HTTP": place}
            return subprocess.Popen(command, env=variables, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT)

        with start([*produce, "--url", simulator.url], places[0]) as producer, start(process, places[1]) as processors:
            try:
                for place in places:
                    assert drill.wait_until(lambda place=place: asked(place, "/readyz") == "ok\n", 60), log.read_text()
                    assert asked(place, "/livez") == "ok\n"
                assert drill.wait_until(lambda: min(ends(stack, written, IsolationLevel.READ_COMMITTED).values()) > 20, 60), log.read_text()
                assert counted(places[0], "infoway_feed_acknowledged_total") > 20
                assert counted(places[1], "infoway_rows_published_total") > 20
                for told in (producer, processors):
                    told.send_signal(signal.SIGTERM)
                assert producer.wait(produce_period) == 0, log.read_text()
                assert processors.wait(process_period) == 0, log.read_text()
            finally:
                producer.kill()
                processors.kill()
    assert ends(stack, written, IsolationLevel.READ_COMMITTED) == ends(stack, written, IsolationLevel.READ_UNCOMMITTED)
    assert not list((tmp_path / "spool").glob("*.spool"))
