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


def committed(stack, topics):
    """How far each topic's only partition is, up to the first open transaction."""
    asked = {TopicPartition(topic, 0): OffsetSpec.latest() for topic in topics}
    # kept until the answers are there: they never come where the client goes first
    admin = AdminClient({"bootstrap.servers": stack.bootstrap, "log_level": 0})
    found = admin.list_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED)
    return [future.result().offset for future in found.values()]


def asked(place, path):
    try:
        return httpx.get(f"http://{place}{path}", timeout=30).text
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

        assert drill.wait_until(says, 90), (asked(place, "/readyz"), self.log.read_text())

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


@pytest.mark.timeout(300)
def test_pods_that_are_told_to_end_leave_nothing_open_and_end_in_time(stack, namespace, tmp_path):
    pods = Pods(stack, namespace, tmp_path)
    written = [
        topic.name
        for topic in pods.names.topics()
        if topic.name.endswith(("vwap.1m", "depth.imbalance", "state.vwap"))
    ]
    with pods.running():
        assert drill.wait_until(lambda: min(committed(stack, written)) > 20, 90), (
            pods.log.read_text()
        )
        for place, metric in (
            (pods.places[0], "infoway_feed_acknowledged_total"),
            (pods.places[1], "infoway_rows_published_total"),
        ):
            assert drill.wait_until(
                lambda place=place, metric=metric: counted(place, metric) > 20, 60
            ), pods.log.read_text()
        pods.end()

    def records(isolation):
        return [len(drill.read(stack.bootstrap, topic, isolation)[0]) for topic in written]

    # a commit is answered before its markers are written everywhere; what was left open is seen by
    # one of them alone, also once the broker has aborted it
    assert drill.wait_until(lambda: records("read_committed") == records("read_uncommitted"), 30)
    assert not list((tmp_path / "spool").glob("*.spool"))


@pytest.mark.timeout(400)
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


@pytest.mark.timeout(300)
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
        # a whole start comes before it
        assert drill.wait_until(lambda: held.struck, 90), pods.log.read_text()
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
