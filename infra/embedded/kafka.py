"""The embedded broker, one node that is its own controller: its configuration, its storage, and
what is to be done before it starts again."""

import base64
import re
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.embedded.ports import LOOPBACK
from infra.embedded.process import Server, ServerFailed

Properties = dict[str, object]
"""The broker's configuration, name to value."""
Command = list[str | Path]

_CONFIGURATION = "kafka.properties"
_LOG_DIR = "kafka"
_FENCING_TIMEOUT = 90.0
_SESSION_MS = 1_000
_ACTIVE = "Becoming the active controller"
_FENCED = re.compile(r"Fencing broker 1 at epoch ([0-9]+)")
_END_OF_LOG = 1 << 20


class Broker:
    """The commands of a broker over a data folder, in which they are to run."""

    def __init__(
        self,
        java: Sequence[str | Path],
        folder: Path,
        port: int,
        controller_port: int,
        properties: Callable[[Properties], Properties],
    ) -> None:
        """`java` starts a class of Kafka's; `properties` returns the configuration from ours."""
        self._java, self._folder, self._controller_port = java, folder, controller_port
        _write(folder / _CONFIGURATION, properties(_properties(port, controller_port)))
        self.command: Command = [*java, "kafka.Kafka", _CONFIGURATION]

    def prepare(self, keeps: Sequence[int]) -> None:
        """Make the storage where there is none, else end the last broker's registration, which
        takes some seconds. Raises ServerFailed."""
        storage = self._folder / _LOG_DIR
        if not (storage / "meta.properties").exists():
            self._format(storage)
        else:
            self._fence(keeps)

    def _format(self, storage: Path) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        format_it = ("kafka.tools.StorageTool", "format", f"--cluster-id={cluster}")
        done = subprocess.run(
            [*self._java, *format_it, "-c", _CONFIGURATION],
            capture_output=True,
            text=True,
            check=False,
            cwd=self._folder,
        )
        if done.returncode != 0:
            raise ServerFailed(
                f"Kafka's storage in {storage} could not be formatted:\n{done.stdout}{done.stderr}"
            )

    def _fence(self, keeps: Sequence[int]) -> None:
        """Let a controller without a broker declare the broker dead that was here before.

        A broker that starts while it is still registered as alive acts on that registration: it
        takes up the transactions whose commit was under way, cannot be reached yet, and is fenced
        before it registers anew. Its partitions have no leader then, which the transaction
        coordinator takes for "deleted": it drops the markers and writes the transaction down as
        complete (`TransactionMarkerChannelManager`, Kafka 4.3). What was acknowledged as committed
        would be aborted by the producer's next marker.
        """
        configuration = "fencing.properties"
        settings = _node(self._controller_port) | {
            "process.roles": "controller",
            "listeners": f"CONTROLLER://{LOOPBACK}:{self._controller_port}",
            "broker.session.timeout.ms": _SESSION_MS,
        }
        _write(self._folder / configuration, settings)
        # what it does is only told by its log
        command = [*self._java, "-Dlog4j2.level=INFO", "kafka.Kafka", configuration]
        controller = Server("fencing", command, self._folder, keeps=keeps)
        active_since: float | None = None

        def fenced() -> bool:
            nonlocal active_since
            said = controller.said()
            if active_since is None and _ACTIVE in said:
                active_since = time.monotonic()
            if declared := _FENCED.search(said):
                return self._is_written(int(declared[1]))
            # none that is registered as alive: then nobody is declared dead
            return active_since is not None and time.monotonic() - active_since > 3.0

        try:
            controller.wait_ready(fenced, _FENCING_TIMEOUT)
        finally:
            controller.stop()

    def _is_written(self, epoch: int) -> bool:
        """Return whether the metadata log has it that the broker of this epoch is dead. A
        controller says so before it writes it, and one that is ended in between never does: the
        broker could not register then, at this start and at none after it."""
        log = max((self._folder / _LOG_DIR / "__cluster_metadata-0").glob("*.log"))
        with log.open("rb") as file:
            file.seek(max(log.stat().st_size - _END_OF_LOG, 0))
            # BrokerRegistrationChangeRecord: broker, epoch, one tagged field: fenced
            return (1).to_bytes(4) + epoch.to_bytes(8) + b"\x01\x00\x01\x01" in file.read()


def _write(path: Path, settings: Properties) -> None:
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))


# Paths are relative to the data folder, where the servers run: whatever its name holds (spaces,
# commas, umlauts), no syntax sees it.
def _node(controller_port: int) -> Properties:
    return {
        "node.id": 1,
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": _LOG_DIR,
    }


def _properties(port: int, controller_port: int) -> Properties:
    return {
        **_node(controller_port),
        "process.roles": "broker,controller",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "auto.create.topics.enable": "false",
        "num.partitions": 6,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        # broker and controller are one process: none can miss the other. After a pause (a frozen
        # machine) the broker would be fenced for a moment, and drop markers of transactions as
        # described in _fence
        "broker.session.timeout.ms": 3_600_000,
        # what a dead worker left open is looked for every second, so that its successor waits no
        # longer than the transaction's own timeout
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1_000,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        "log.retention.ms": -1,
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        # a controlled shutdown takes the leader from every partition while workers still commit:
        # the markers of such a commit would be dropped as described in _fence
        "controlled.shutdown.enable": "false",
    }
