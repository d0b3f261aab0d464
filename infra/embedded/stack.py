"""The embedded stack: one Kafka node (KRaft) and one Apicurio Registry over one data folder, on loopback."""

import base64
import fcntl
import socket
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import httpx
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.embedded.artifacts import REGISTRY_MAIN, kafka_classpath, registry_home
from infra.embedded.java import find_java
from infra.embedded.process import Server, ServerFailed

LOOPBACK = "127.0.0.1"
READY_TIMEOUT = 60.0
_KAFKA_JVM = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_REGISTRY_JVM = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class PortInUse(RuntimeError):
    """A port that was asked for is taken."""


class FolderInUse(RuntimeError):
    """Another stack runs over the same data folder."""


class Stack:
    """A running broker and registry."""

    def __init__(self, folder: Path, kafka_port: int = 0, registry_port: int = 0) -> None:
        """Start both over `folder` and return once both answer; 0 takes a free port.

        Raises FolderInUse, PortInUse, JavaMissing, DownloadFailed, ServerFailed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self._lock = _lock(self.folder)
        self._servers: list[Server] = []
        try:
            java = find_java()
            classpath, home = kafka_classpath(), registry_home()
            ports = _free_ports((kafka_port, 0, registry_port))
            self.bootstrap = f"{LOOPBACK}:{ports[0]}"
            self.registry_url = f"http://{LOOPBACK}:{ports[2]}/apis/ccompat/v7"
            kafka = self._start_kafka(java, classpath, ports[0], ports[1])
            registry = self._start_registry(java, home, ports[2])
            with ThreadPoolExecutor(2) as waiting:
                for waited in [
                    waiting.submit(kafka.wait_ready, self._kafka_answers, READY_TIMEOUT),
                    waiting.submit(registry.wait_ready, self._registry_answers, READY_TIMEOUT),
                ]:
                    waited.result()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> "Stack":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def servers(self) -> list[Server]:
        """The broker and the registry."""
        return list(self._servers)

    def stop(self) -> None:
        """End both servers, side by side, and free the folder."""
        if self._servers:
            with ThreadPoolExecutor(len(self._servers)) as stopping:
                list(stopping.map(Server.stop, self._servers))
        self._servers = []
        self._lock.close()

    def _start_kafka(self, java: Path, classpath: list[Path], port: int, controller_port: int) -> Server:
        data, properties = self.folder / "kafka", self.folder / "kafka.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in _kafka_properties(data, port, controller_port).items()))
        log = self.folder / "logs" / "kafka.log"
        log.parent.mkdir(exist_ok=True)
        command = [str(java), *_KAFKA_JVM, "-cp", ":".join(map(str, classpath))]
        if not (data / "meta.properties").exists():
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            done = subprocess.run(
                [*command, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(properties)],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise ServerFailed(f"Kafka's storage in {data} could not be formatted:\n{done.stdout}{done.stderr}")
        server = Server("kafka", [*command, "kafka.Kafka", str(properties)], log)
        self._servers.append(server)
        return server

    def _start_registry(self, java: Path, home: Path, port: int) -> Server:
        settings = {
            "quarkus.http.host": LOOPBACK,
            "quarkus.http.port": port,
            "apicurio.storage.kind": "sql",
            "apicurio.storage.sql.kind": "h2",
            # on file: schema ids stand in every record and must survive a restart
            "apicurio.datasource.url": f"jdbc:h2:file:{self.folder / 'registry'}",
        }
        options = [f"-D{name}={value}" for name, value in settings.items()]
        server = Server("registry", [java, *_REGISTRY_JVM, *options, "-jar", home / REGISTRY_MAIN], self.folder / "logs" / "registry.log")
        self._servers.append(server)
        return server

    def _kafka_answers(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, int(self.bootstrap.rpartition(":")[2])), 1):
                pass
            return bool(AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0}).list_topics(timeout=5).brokers)
        except (OSError, KafkaException):
            return False

    def _registry_answers(self) -> bool:
        try:
            return httpx.get(f"{self.registry_url}/subjects", timeout=2, trust_env=False).is_success
        except httpx.HTTPError:
            return False


def _kafka_properties(data: Path, port: int, controller_port: int) -> dict[str, object]:
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "num.partitions": 6,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        # a dead worker's transaction is aborted when its 10 s are over, not at the next scan of 10 s
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        "log.retention.ms": -1,
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        "controlled.shutdown.enable": "false",
    }


def _lock(folder: Path) -> IO[str]:
    lock = (folder / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise FolderInUse(f"another embedded stack runs over {folder}: stop it first, or name another folder by --data") from None
    return lock


def _free_ports(wanted: tuple[int, ...]) -> list[int]:
    """Return the ports, those of 0 chosen free; all are held until all are known, so that none is chosen twice."""
    held: list[socket.socket] = []
    try:
        for port in wanted:
            candidate = socket.socket()
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.append(candidate)
            try:
                candidate.bind((LOOPBACK, port))
            except OSError as error:
                raise PortInUse(f"port {port} on {LOOPBACK} is in use: stop what listens there, or name another port") from error
        return [candidate.getsockname()[1] for candidate in held]
    finally:
        for candidate in held:
            candidate.close()
