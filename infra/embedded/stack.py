"""The embedded stack: one Kafka node (KRaft) and one Apicurio Registry over one data folder, on
loopback."""

import logging
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.embedded.artifacts import REGISTRY_MAIN, kafka_classpath, registry_home
from infra.embedded.folder import FolderInUse, lock_folder
from infra.embedded.java import find_java
from infra.embedded.kafka import Broker, Properties
from infra.embedded.ports import LOOPBACK, KeptPorts, PortInUse
from infra.embedded.process import Server, ServerFailed
from producers.private_folder import private_folder

__all__ = ["FolderInUse", "PortInUse", "Stack"]

_log = logging.getLogger(__name__)

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
        try:
            java = find_java()
            classpath, home = ":".join(map(str, kafka_classpath())), registry_home()
            ports = KeptPorts(self.folder).taken(kafka_port, registry_port)
            port, registry_port, controller_port = ports
            self.bootstrap = f"{LOOPBACK}:{port}"
            self.registry_url = f"http://{LOOPBACK}:{registry_port}/apis/ccompat/v7"
            # the registry takes longer: first
            registry = self._started("registry", _registry_command(java, home, registry_port))
            self._servers.append(registry)
            self._broker = Broker(
                (java, *_KAFKA_JVM, "-cp", classpath),
                self.folder,
                port,
                controller_port,
                properties,
            )
            kafka = self._started("kafka", self._broker.command)
            self._servers.append(kafka)
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
        for server in self.servers:
            if server.running or time.monotonic() < self._again_at:
                continue
            self._again_at = time.monotonic() + AGAIN
            _log.warning(
                "%s has ended and is started anew; the end of %s:\n%s",
                server.name,
                server.log,
                server.tail(),
            )
            try:
                self.start_again(server)
            except (OSError, ServerFailed) as error:
                _log.warning("%s cannot be started: %s; again in %.0f s", server.name, error, AGAIN)

    def start_again(self, server: Server) -> Server:
        """Start a server anew that has ended, and return it; it may not answer yet. Raises OSError
        and ServerFailed."""
        server.stop()
        again = self._started(server.name, server.command)
        self._servers[self._servers.index(server)] = again
        return again

    def stop(self) -> None:
        """End both servers, side by side, and free the folder."""
        if self._servers:
            with ThreadPoolExecutor(len(self._servers)) as stopping:
                list(stopping.map(Server.stop, self._servers))
        self._servers = []
        self._lock.close()

    def _started(self, name: str, command: Sequence[str | Path]) -> Server:
        # the lock goes with the server: where we are killed, it ends with the last of them
        held = (self._lock.fileno(),)
        if name == "kafka":
            self._broker.prepare(held)
        return Server(name, command, self.folder, keeps=held)

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
