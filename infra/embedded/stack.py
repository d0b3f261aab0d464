"""The embedded stack: one Kafka node (KRaft) and one Apicurio Registry over one data folder, on
loopback."""

import base64
import logging
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.embedded.artifacts import REGISTRY_MAIN, kafka_classpath, registry_home
from infra.embedded.folder import FolderInUse, lock_folder
from infra.embedded.java import find_java
from infra.embedded.ports import LOOPBACK, KeptPorts, PortInUse
from infra.embedded.process import Server, ServerFailed
from producers.private_folder import private_folder

__all__ = ["FolderInUse", "PortInUse", "Stack"]

_log = logging.getLogger(__name__)

Properties = dict[str, object]
"""The broker's configuration, name to value."""

AGAIN = 10.0
"""Seconds between two starts of servers that have ended."""
READY_TIMEOUT = 120.0
"""Seconds: seven are enough on an idle machine, a busy one has taken many times that."""
_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Djava.io.tmpdir=tmp")
_KAFKA_JVM = (*_JVM, "-Xmx384m", "-Dlog4j2.level=WARN")
_REGISTRY_JVM = (*_JVM, "-Xmx256m")


class Stack:
    """A running broker and registry."""

    def __init__(
        self,
        folder: Path,
        kafka_port: int = 0,
        registry_port: int = 0,
        properties: Callable[[Properties], Properties] = dict,
    ) -> None:
        """Start both over `folder` and return once both answer; 0 takes the port of the last start
        over the folder, else a free one.

        `properties` returns the broker's configuration from ours: a test adds listeners by it.

        Raises FolderInUse, PortInUse, JavaMissing, DownloadFailed, ServerFailed.
        """
        private_folder(folder / "tmp")
        self.folder = folder.resolve()
        self._lock = lock_folder(self.folder)
        self._servers: list[Server] = []
        self._again_at = 0.0
        self._properties = properties
        try:
            java = find_java()
            classpath, home = kafka_classpath(), registry_home()
            ports = KeptPorts(self.folder).taken(kafka_port, registry_port)
            port, registry_port, controller_port = ports
            self.bootstrap = f"{LOOPBACK}:{port}"
            self.registry_url = f"http://{LOOPBACK}:{registry_port}/apis/ccompat/v7"
            # the registry takes longer: first
            registry = self._start("registry", _registry_command(java, home, registry_port))
            kafka = self._start(
                "kafka", self._kafka_command(java, classpath, port, controller_port)
            )
            kafka.wait_ready(self._kafka_answers, READY_TIMEOUT)
            with httpx.Client(
                trust_env=False, verify=False
            ) as http:  # loopback; reading the certificates each time costs 0.1 s
                registry.wait_ready(lambda: self._registry_answers(http), READY_TIMEOUT)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> "Stack":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def servers(self) -> list[Server]:
        """The registry and the broker."""
        return list(self._servers)

    def look_after(self) -> None:
        """Start a server anew that has ended, by the kernel for want of memory perhaps: everything
        else waits for it."""
        for place, server in enumerate(self._servers):
            if server.running or time.monotonic() < self._again_at:
                continue
            self._again_at = time.monotonic() + AGAIN
            _log.warning(
                "%s has ended and is started anew; the end of %s:\n%s",
                server.name,
                server.log,
                server.tail(),
            )
            server.stop()
            try:
                self._servers[place] = Server(
                    server.name, server.command, self.folder, keeps=(self._lock.fileno(),)
                )
            except OSError as error:
                _log.warning("%s cannot be started: %s; again in %.0f s", server.name, error, AGAIN)

    def stop(self) -> None:
        """End both servers, side by side, and free the folder."""
        if self._servers:
            with ThreadPoolExecutor(len(self._servers)) as stopping:
                list(stopping.map(Server.stop, self._servers))
        self._servers = []
        self._lock.close()

    def _start(self, name: str, command: list[str | Path]) -> Server:
        # the lock goes with the server: where we are killed, it ends with the last of them
        server = Server(name, command, self.folder, keeps=(self._lock.fileno(),))
        self._servers.append(server)
        return server

    def _kafka_command(
        self, java: Path, classpath: list[Path], port: int, controller_port: int
    ) -> list[str | Path]:
        properties = self.folder / "kafka.properties"
        settings = self._properties(_kafka_properties(port, controller_port))
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        command: list[str | Path] = [java, *_KAFKA_JVM, "-cp", ":".join(map(str, classpath))]
        if not (self.folder / "kafka" / "meta.properties").exists():
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            done = subprocess.run(
                [
                    *command,
                    "kafka.tools.StorageTool",
                    "format",
                    f"--cluster-id={cluster}",
                    "-c",
                    properties.name,
                ],
                capture_output=True,
                text=True,
                check=False,
                cwd=self.folder,
            )
            if done.returncode != 0:
                raise ServerFailed(
                    f"Kafka's storage in {self.folder / 'kafka'} could not be "
                    f"formatted:\n{done.stdout}{done.stderr}"
                )
        return [*command, "kafka.Kafka", properties.name]

    def _kafka_answers(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, int(self.bootstrap.rpartition(":")[2])), 1):
                pass
            return bool(
                AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
                .list_topics(timeout=5)
                .brokers
            )
        except (OSError, KafkaException):
            return False

    def _registry_answers(self, http: httpx.Client) -> bool:
        try:
            return http.get(f"{self.registry_url}/subjects", timeout=2).is_success
        except httpx.HTTPError:
            return False


# Paths are relative to the data folder, where the servers run: whatever its name holds (spaces,
# commas, umlauts), no syntax sees it.
def _registry_command(java: Path, home: Path, port: int) -> list[str | Path]:
    settings = {
        "quarkus.http.host": LOOPBACK,
        "quarkus.http.port": port,
        # health and metrics, not ours to ask: by default on port 9000 of every interface, where a
        # second stack finds it taken
        "quarkus.management.host": LOOPBACK,
        "quarkus.management.port": 0,
        "quarkus.http.access-log.enabled": "false",
        "apicurio.storage.kind": "sql",
        "apicurio.storage.sql.kind": "h2",
        # on file: schema ids stand in every record and must survive a restart
        "apicurio.datasource.url": "jdbc:h2:file:./registry",
    }
    return [
        java,
        *_REGISTRY_JVM,
        *(f"-D{name}={value}" for name, value in settings.items()),
        "-jar",
        home / REGISTRY_MAIN,
    ]


def _kafka_properties(port: int, controller_port: int) -> Properties:
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": "kafka",
        "auto.create.topics.enable": "false",
        "num.partitions": 6,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        # transactions that have timed out are looked for every 10 s, Kafka's default. A broker that
        # was killed acts for 9 s on its old session; what it aborts then may never end: as it is
        # fenced, markers without a leader are dropped, and the transaction is written as complete.
        # So the first look comes after that
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 10_000,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        "log.retention.ms": -1,
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        # controlled.shutdown.enable stays on: without it the next start waits 9 s for the session
        # of the broker before
    }
