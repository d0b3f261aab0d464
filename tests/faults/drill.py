"""The drill: a fleet of workers under load, killed and stopped; what a consumer then sees is held
against the recomputation."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, NewTopic
from pipelines import Pipeline

from infra.kafka.offsets import COORDINATOR_COMING_UP
from schemas.clients.cluster import metadata_of

HERE = Path(__file__).parent
COMPACTED = {"cleanup.policy": "compact"}


class Fleet:
    """Workers in slots; each starts again in its slot with the transactional id of its
    predecessor."""

    def __init__(
        self,
        bootstrap: str,
        group: str,
        directory: Path,
        partitions: int,
        pipeline: Callable[[str], Pipeline],
        **settings: object,
    ) -> None:
        self.bootstrap, self.group, self.directory, self.partitions = (
            bootstrap,
            group,
            directory,
            partitions,
        )
        self.pipeline = pipeline(group)
        settings["pipeline"] = pipeline.__name__
        self.settings = {f"DRILL_{name.upper()}": str(value) for name, value in settings.items()}
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.events: Counter[str] = Counter()
        self._started = 0
        topics = self.pipeline.topics().items()
        create_topics(
            bootstrap,
            [
                NewTopic(name, partitions, 1, config=COMPACTED if compacted else {})
                for name, compacted in topics
            ],
        )

    def start(self, slot: str, **settings: object) -> None:
        """Start a worker; a' is a second one in the slot a."""
        self._started += 1
        extra = {f"DRILL_{name.upper()}": str(value) for name, value in settings.items()}
        environment = {
            **os.environ,
            **self.settings,
            "DRILL_BOOTSTRAP": self.bootstrap,
            "DRILL_GROUP": self.group,
            "DRILL_SLOT": slot.rstrip("'"),
            "DRILL_DIR": str(self.directory),
            "DRILL_SEED": f"{self.settings.get('DRILL_SEED', 0)}{self._started}",
            **extra,
        }
        with (self.directory / f"{slot}.log").open("ab") as output:
            self.workers[slot] = subprocess.Popen(
                [sys.executable, str(HERE / "worker.py")],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
            )

    def log(self, slot: str) -> str:
        path = self.directory / f"{slot}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def logs(self) -> str:
        return "\n".join(
            path.read_text(errors="replace")[-6000:]
            for path in sorted(self.directory.glob("*.log"))
        )

    def logs_of_all(self) -> str:
        """Return all that the workers have written."""
        return "".join(map(self.log, (path.stem for path in self.directory.glob("*.log"))))

    def stopped(self, slot: str) -> bool:
        """Whether the worker was stopped by a signal and waits for SIGCONT."""
        try:
            return (
                Path(f"/proc/{self.workers[slot].pid}/stat")
                .read_text()
                .rsplit(")", 1)[1]
                .split()[0]
                == "T"
            )
        except FileNotFoundError:
            return False

    def signal(self, slot: str, number: int) -> None:
        self.workers[slot].send_signal(number)
        self.events[signal.Signals(number).name] += 1

    def tend(self) -> list[str]:
        """Notice the workers that ended; returns their slots."""
        ended = [slot for slot, worker in self.workers.items() if worker.poll() is not None]
        for slot in ended:
            self.events[f"exit {self.workers.pop(slot).returncode}"] += 1
        return ended

    def close(self) -> None:
        for worker in self.workers.values():
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.kill()
            worker.wait()
            worker.stdin.close()
        self.workers.clear()


class Load:
    """Feeds the source topic at a steady rate."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.producer = ck.Producer(
            {"bootstrap.servers": fleet.bootstrap, "linger.ms": 5, "enable.idempotence": True}
        )
        self.sent = 0

    def send(self, count: int) -> None:
        for _ in range(count):
            partition, number = (
                self.sent % self.fleet.partitions,
                self.sent // self.fleet.partitions,
            )
            key, value = self.fleet.pipeline.message(partition, number)
            self.producer.produce(self.fleet.pipeline.source, value, key, partition)
            self.sent += 1
        self.producer.poll(0)

    def flush(self) -> None:
        assert self.producer.flush(60) == 0


def storm(
    fleet: Fleet, slots: list[str], seconds: float, rate: int, seed: int, kills: int = 0
) -> Load:
    """Load the fleet while seeded faults strike it; ends after `seconds`, or later, once `kills`
    workers were killed."""
    drawn = random.Random(seed)
    load = Load(fleet)
    for slot in slots[:-1]:
        fleet.start(slot)
    began = time.monotonic()
    strike_at, resume_at = began + 6, {}
    while time.monotonic() - began < seconds or (
        fleet.events["exit -9"] < kills and time.monotonic() - began < 4 * seconds
    ):
        load.send(max(0, int((time.monotonic() - began) * rate) - load.sent))
        for slot in fleet.tend():
            fleet.events["restarts"] += 1
            fleet.start(slot)
        now = time.monotonic()
        for slot in list(fleet.workers):
            if fleet.stopped(slot) and slot not in resume_at:
                fleet.events["stopped"] += 1
                resume_at[slot] = now + drawn.uniform(1, 13)
            elif slot in resume_at and now > resume_at[slot]:
                del resume_at[slot]
                fleet.signal(slot, signal.SIGCONT)
        if now > strike_at:
            strike_at = now + drawn.uniform(0.5, 3)
            slot = drawn.choice(slots)
            if slot not in fleet.workers:
                fleet.start(slot)
            else:
                number = drawn.choice(
                    [signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, None]
                )
                if number is not None:
                    fleet.signal(slot, number)
        load.producer.poll(0.05)
    load.flush()
    return load


def settle(fleet: Fleet, slots: list[str], total: int, timeout: float = 150) -> None:
    """End every fault, let the fleet read to the end, and wait until both agents have applied
    everything or time is up."""
    fleet.close()
    for slot in slots:
        fleet.start(slot, kill=0, stop=0, slow=0)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for slot in fleet.tend():
            fleet.start(slot, kill=0, stop=0, slow=0)
        if all(applied(fleet, place) >= total for place in (0, 1)):
            break
    fleet.close()


def wait_until(condition: Callable[[], object], timeout: float) -> bool:
    """Return whether the condition came true within the time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def pause(seconds: float) -> None:
    """Let a fault last: what it does cannot be waited for."""
    time.sleep(seconds)


def sole_member(fleet: Fleet) -> str | None:
    """Return the member that holds every partition of the group, if one does."""
    found = members(fleet)
    return found[0][0] if len(found) == 1 and found[0][1] == fleet.partitions else None


def holders(fleet: Fleet) -> int:
    """Return how many members hold the group's partitions, 0 while not all are held."""
    held = [count for _, count in members(fleet)]
    return len([count for count in held if count]) if sum(held) == fleet.partitions else 0


def members(fleet: Fleet) -> list[tuple[str, int]]:
    """Return the group's members, each with the number of its partitions; none while the broker's
    coordinator is still coming up."""
    admin = AdminClient({"bootstrap.servers": fleet.bootstrap})
    try:
        described = admin.describe_consumer_groups([fleet.group])[fleet.group].result(5)
    except TimeoutError:
        # a client that was just made sometimes gets no answer to a call: the next call asks again
        return []
    except ck.KafkaException as error:
        if error.args[0].code() not in COORDINATOR_COMING_UP:
            raise
        return []
    return [
        (member.member_id, len(member.assignment.topic_partitions)) for member in described.members
    ]


def applied(fleet: Fleet, place: int) -> int:
    """Return the number of source records that the first (0) or the second, slower agent (1) says
    it has applied."""
    last = {}
    for partition, messages in read(
        fleet.bootstrap, fleet.pipeline.agents[place].state_topic, "read_committed"
    ).items():
        last[partition] = max(
            (
                int(message.value())
                for message in messages
                if message.key().startswith(b"\0applied:")
            ),
            default=0,
        )
    return sum(last.values())


def read(bootstrap: str, topic: str, isolation: str) -> dict[int, list[ck.Message]]:
    """Return every record of a topic by partition, up to its end."""
    consumer = ck.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "audit",
            "enable.auto.commit": False,
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
        }
    )
    try:
        partitions = partitions_of(consumer, topic)
        consumer.assign(
            [ck.TopicPartition(topic, partition, ck.OFFSET_BEGINNING) for partition in partitions]
        )
        found: dict[int, list[ck.Message]] = {partition: [] for partition in partitions}
        unread = set(partitions)
        while unread:
            for message in consumer.consume(5000, 0.1):
                if message.error() is None:
                    found[message.partition()].append(message)
                else:
                    assert message.error().code() == ck.KafkaError._PARTITION_EOF, message.error()
                    unread.discard(message.partition())
        return found
    finally:
        consumer.close()


def partitions_of(asking: ck.Consumer, topic: str) -> list[int]:
    """Return the partitions of a topic that exists. A broker that is only just there calls it
    unknown: what compares nothing with nothing would find no difference."""
    found = metadata_of(asking, topic).topics[topic]
    assert found.error is None, found.error
    assert found.partitions
    return list(found.partitions)


def ends(bootstrap: str, topic: str, isolation: str) -> dict[int, int]:
    """Return the end of each partition's log as a consumer of this isolation sees it."""
    asking = ck.Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "audit", "isolation.level": isolation}
    )
    try:
        return {
            partition: asking.get_watermark_offsets(
                ck.TopicPartition(topic, partition), timeout=30
            )[1]
            for partition in partitions_of(asking, topic)
        }
    finally:
        asking.close()


def read_to_stable(bootstrap: str, topic: str, partition: int = 0) -> list[ck.Message]:
    """Every record up to the last stable offset now; an open transaction is not waited for."""
    consumer = ck.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "audit",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
        }
    )
    try:
        consumer.list_topics(topic, 30)
        consumer.assign([ck.TopicPartition(topic, partition, ck.OFFSET_BEGINNING)])
        found = []
        while True:
            for message in consumer.consume(100, 0.05):
                if message.error() is not None:
                    assert message.error().code() == ck.KafkaError._PARTITION_EOF
                    return found
                found.append(message)
    finally:
        consumer.close()


def differences(fleet: Fleet) -> dict[str, str]:
    """Hold what a read_committed consumer sees against the recomputation from the source's log,
    byte for byte, in order."""
    log = read(fleet.bootstrap, fleet.pipeline.source, "read_uncommitted")
    wrong: dict[str, str] = {}
    for topic, want in fleet.pipeline.expected(log).items():
        seen = read(fleet.bootstrap, topic, "read_committed")
        note(
            wrong,
            topic,
            want,
            {
                partition: [(m.key(), m.value()) for m in messages]
                for partition, messages in seen.items()
            },
        )
    return wrong


def note(wrong: dict[str, str], topic: str, want: dict[int, list], have: dict[int, list]) -> None:
    if want == have:
        return
    lost = sum(len(set(want[p]) - set(have[p])) for p in want)
    doubled = sum(len(have[p]) - len(set(have[p])) for p in want)
    foreign = sum(len(set(have[p]) - set(want[p])) for p in want)
    wrong[topic] = (
        f"{lost} lost, {doubled} doubled, {foreign} unexpected of {sum(map(len, want.values()))}"
        + ("" if lost or doubled or foreign else "; out of order")
    )


def create_topics(bootstrap: str, topics: list[NewTopic]) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics(topics).values():
        future.result(60)
