"""Producer and worker as Kubernetes and Compose run them: their probes, and SIGTERM, which ends
both in order within their pods' time."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import drill
import httpx
import pytest
import yaml
from broker import away
from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from kafka_proxy import Api

from infra import topology
from infra.embedded.ports import free_ports
from infra.simulator import running_simulator
from processors.engine.transactions.exits import Exit
from schemas.clients.registry import Registry
from schemas.topics import Topology

K8S = Path(__file__).parents[2] / "infra" / "deploy" / "k8s"
BASE = {name: value for name, value in os.environ.items() if not name.startswith("INFOWAY_")}


def workload(file, kind):
    """The command of a workload's container, run by this Python, and the seconds that its pod has
    to end."""
    [found] = [
        document
        for document in yaml.safe_load_all((K8S / file).read_text())
        if document["kind"] == kind
    ]
    pod = found["spec"]["template"]["spec"]
    program, *arguments = pod["containers"][0]["command"]
    assert program == "infoway-streams"
    return [sys.executable, "-m", "infra.cli.main", *arguments], pod[
        "terminationGracePeriodSeconds"
    ]


def ends(stack, topics, isolation):
    """How far each topic's only partition is: for read_committed only up to the first open
    transaction."""
    asked = {TopicPartition(topic, 0): OffsetSpec.latest() for topic in topics}
    # kept until the answers are there: they never come where the client goes first
    admin = AdminClient({"bootstrap.servers": stack.bootstrap, "log_level": 0})
    found = admin.list_offsets(asked, isolation_level=isolation)
    return {place.topic: future.result().offset for place, future in found.items()}


def asked(place, path):
    try:
        return httpx.get(f"http://{place}{path}").text
    except httpx.TransportError:
        return ""


def counted(place, metric):
    return sum(
        float(line.rpartition(" ")[2])
        for line in asked(place, "/metrics").splitlines()
        if line.startswith(metric)
    )


class Pods:
    """A producer and a worker, run as their manifests do, on a simulator's feed."""

    def __init__(self, stack, namespace, tmp_path):
        self.names = Topology(namespace, partitions=1)
        topology.apply(stack.bootstrap, Registry(stack.registry_url), self.names, {})
        produce, self.produce_period = workload("producer/producer.yaml", "Deployment")
        process, self.process_period = workload("base/processors.yaml", "StatefulSet")
        produce[produce.index("--symbols-file") + 1] = str(tmp_path / "symbols.txt")
        (tmp_path / "symbols.txt").write_text("BTCUSDT\n00700.HK\n")
        self.environment = BASE | {
            "INFOWAY_BOOTSTRAP": stack.bootstrap,
            "INFOWAY_REGISTRY": stack.registry_url,
            "INFOWAY_PREFIX": namespace,
            "INFOWAY_PARTITIONS": "1",
            "INFOWAY_SPOOL": str(tmp_path / "spool"),
            "INFOWAY_WORK_DIR": str(tmp_path / "work"),
        }
        self.places = [f"127.0.0.1:{port}" for port in free_ports(0, 0)]
        self.folder, self.log = tmp_path, tmp_path / "log"
        self._commands = (produce, process)
        self.pods = []

    @contextmanager
    def running(self):
        """Both, once they are ready; killed at the end where they still run."""
        with running_simulator(rate=50) as simulator:
            self._commands[0].extend(("--url", simulator.url))
            try:
                self.pods = [self._started(number) for number in range(2)]
                self.await_ready()
                yield self.pods
            finally:
                for pod in self.pods:
                    pod.kill()
                    pod.wait()

    def await_ready(self):
        """Wait until both are ready."""
        for number in range(2):
            self.await_says(number, "ok\n")

    def await_says(self, number, text):
        """Wait until a pod's readiness has this text and it is alive; where the worker has ended,
        start it anew as the kubelet would."""
        place = self.places[number]

        def says():
            ended = self.pods[number].poll()
            if ended is not None:
                assert number == 1 and Exit(ended).restart, self.log.read_text()
                self.pods[number] = self._started(number)
            return text in asked(place, "/readyz") and asked(place, "/livez") == "ok\n"

        assert drill.wait_until(says, 60), (asked(place, "/readyz"), self.log.read_text())

    def _started(self, number):
        variables = self.environment | {"INFOWAY_HTTP": self.places[number]}
        with self.log.open("ab") as output:
            return subprocess.Popen(
                self._commands[number],
                env=variables,
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def end(self, worker_codes=(0,)):
        """Tell both to end, and wait as long as their pods have."""
        for pod in self.pods:
            pod.send_signal(signal.SIGTERM)
        producer, worker = self.pods
        assert producer.wait(self.produce_period) == 0, self.log.read_text()
        assert worker.wait(self.process_period) in worker_codes, self.log.read_text()


@pytest.mark.timeout(120)
def test_pods_that_are_told_to_end_leave_nothing_open_and_end_in_time(stack, namespace, tmp_path):
    pods = Pods(stack, namespace, tmp_path)
    written = [
        topic.name
        for topic in pods.names.topics()
        if topic.name.endswith(("vwap.1m", "depth.imbalance", "state.vwap"))
    ]
    with pods.running():
        full = lambda: min(ends(stack, written, IsolationLevel.READ_COMMITTED).values()) > 20  # noqa: E731
        assert drill.wait_until(full, 60), pods.log.read_text()
        assert counted(pods.places[0], "infoway_feed_acknowledged_total") > 20
        assert counted(pods.places[1], "infoway_rows_published_total") > 20
        pods.end()
    assert ends(stack, written, IsolationLevel.READ_COMMITTED) == ends(
        stack, written, IsolationLevel.READ_UNCOMMITTED
    )
    assert not list((tmp_path / "spool").glob("*.spool"))


@pytest.mark.timeout(180)
def test_pods_whose_broker_does_not_answer_are_alive_not_ready_and_end_in_time(
    stack, namespace, tmp_path
):
    pods = Pods(stack, namespace, tmp_path)
    with pods.running():
        with away(stack):
            # a worker with a transaction open ends once that is too old, and its next one waits
            pods.await_says(0, "the broker has acknowledged nothing for")
            pods.await_says(1, "waiting for the broker for")
        pods.await_ready()
        # the transaction that was open when the broker went away may yet end the worker: only what
        # it has done since counts
        applied = counted(pods.places[1], "infoway_records_applied_total")
        assert drill.wait_until(
            lambda: (
                pods.await_ready()
                or counted(pods.places[1], "infoway_records_applied_total") not in (0, applied)
            ),
            60,
        )
        with away(stack):
            pods.await_says(1, "waiting for the broker")
            # the producer's records are on disk; where the worker had a transaction open the next
            # one does it again
            pods.end((0, Exit.BROKER_AWAY, Exit.TRANSACTION_REFUSED))
    assert list((tmp_path / "spool").glob("*.spool"))


@pytest.mark.timeout(120)
def test_a_worker_that_waits_for_its_producer_at_the_start_ends_in_time_too(
    stack, namespace, tmp_path, proxy
):
    pods = Pods(stack, namespace, tmp_path)
    held = proxy.hold(Api.INIT_PRODUCER_ID)
    variables = pods.environment | {"INFOWAY_BOOTSTRAP": proxy.address}
    with pods.log.open("ab") as output:
        worker = subprocess.Popen(
            pods._commands[1], env=variables, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        held.wait_struck()
        proxy.freeze()
        worker.send_signal(signal.SIGTERM)
        assert drill.wait_until(lambda: worker.poll() is not None, pods.process_period), (
            pods.log.read_text()
        )
        code = worker.returncode
        assert code == 0 or Exit(code).restart, pods.log.read_text()
    finally:
        worker.kill()
        worker.wait()
