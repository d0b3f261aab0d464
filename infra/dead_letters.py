"""The commands dead-letter list and redrive: what could not be read, and once the cause is mended its way back to its raw topic.

A redrive's offsets are a consumer group's, `<prefix>infoway-dead-letter`, committed in the transaction of what it publishes: each letter is
redriven once, over kills too. The record goes to the partition it was in, with its key, bytes and headers and one header more.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, cast

import confluent_kafka as ck
from confluent_kafka import KafkaException, TopicPartition

from infra.consuming import COORDINATOR_COMING_UP, TIMEOUT, ValueReader, read_to_end, watermarks
from infra.deployment import named_cluster
from schemas.registry import Registry
from schemas.security import client
from schemas.topics import Topology
from schemas.wire import Record

ATTEMPTS = "dead-letter-attempts"
"""The header that counts how often a record was redriven; processors keep it, as every header, where they dead-letter the record again."""
MAX_ATTEMPTS = 3
STEP = 1000
"""Letters of one transaction."""

_TOPIC = "infoway.dead-letter"


class NoSuchLetter(ValueError):
    """`--only` names a place where there is no dead letter."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter and its place."""

    partition: int
    offset: int
    written_ms: int
    record: Record
    headers: tuple[tuple[str, bytes | None], ...]
    handled: bool = False
    """Whether a redrive has come by it."""

    @property
    def place(self) -> str:
        """PARTITION:OFFSET."""
        return f"{self.partition}:{self.offset}"

    @property
    def attempts(self) -> int:
        """How often it was redriven before; a header that is no number of ours counts as never."""
        text = dict(self.headers).get(ATTEMPTS) or b"0"
        return int(text) if text.isdigit() else 0


def add_dead_letter_options(listing: argparse.ArgumentParser, redriving: argparse.ArgumentParser) -> None:
    """Give both commands what they have beside the topology's options."""
    listing.add_argument("--json", action="store_true", help="one JSON object a line, bytes as hex")
    redriving.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    redriving.add_argument(
        "--max-attempts", type=int, default=MAX_ATTEMPTS, help=f"pass over what was redriven so often (default: {MAX_ATTEMPTS})"
    )
    redriving.add_argument(
        "--only", default="", metavar="PARTITION:OFFSET,...", help="these letters, redriven before or not, and no others"
    )


def list_letters(names: Topology, options: argparse.Namespace) -> int:
    """Print every dead letter that retention has left, the redriven ones too."""
    for letter in _Post(names).letters():
        print(json.dumps(_as_json(letter)) if options.json else _line(letter), flush=True)
    return 0


def redrive(names: Topology, options: argparse.Namespace) -> int:
    """Publish anew what no redrive has come by yet, and print what was done with each letter. Raises NoSuchLetter."""
    post, counts = _Post(names), Counter[str]()
    wanted = {place.strip() for place in options.only.split(",") if place.strip()}
    # before the offsets are read: it ends the transaction of a redrive that was killed, or that still runs
    producer = None if options.dry_run else post.producer()
    letters = [letter for letter in post.letters() if (letter.place in wanted if wanted else not letter.handled)]
    if missing := wanted - {letter.place for letter in letters}:
        raise NoSuchLetter(f"--only {','.join(sorted(missing))}: no dead letter there; `dead-letter list` shows their places")
    waiting = iter(letters)
    while step := list(islice(waiting, STEP)):
        outcomes = [(letter, _passed_over(letter, names, options.max_attempts)) for letter in step]
        if producer is not None:
            post.publish(producer, [letter for letter, why in outcomes if why is None], [] if wanted else step)
        for letter, why in outcomes:
            counts["passed over" if why else "redriven"] += 1
            print(f"{letter.place} {f'passed over: {why}' if why else 'to ' + _target(letter)}", flush=True)
    would = "would be " * options.dry_run
    print(f"{counts['redriven']} {would}redriven, {counts['passed over']} {would}passed over")
    return 0


def _passed_over(letter: Letter, names: Topology, max_attempts: int) -> str | None:
    """Return why a letter has no way back, or None."""
    topic = letter.record["source_topic"]
    if not topic:
        return "a frame of the vendor's that never became a record"
    if not names.contract_name(topic).startswith("infoway.raw.") or letter.record["source_offset"] is None:
        return f"no raw record, but one that was derived from {topic}"
    if letter.attempts >= max_attempts:
        return f"redriven {letter.attempts} times before"
    return None


class _Post:
    """The dead-letter topic of one namespace."""

    def __init__(self, names: Topology) -> None:
        self._bootstrap, registry_url = named_cluster()
        self._read = ValueReader(Registry(registry_url))
        self._topic = names.name(_TOPIC)
        self._group = f"{names.prefix}infoway-dead-letter"

    def letters(self) -> Iterator[Letter]:
        """Yield every letter up to the topic's end now, partition after partition."""
        handled = self._handled()
        for message in read_to_end(self._bootstrap, self._topic):
            letter = self._letter(message)
            yield replace(letter, handled=letter.offset < handled[letter.partition])

    def producer(self) -> ck.Producer:
        """Return the one producer of this namespace's redrives: what another has open is aborted."""
        configuration = {
            **client(self._bootstrap),
            "transactional.id": self._group,
            "transaction.timeout.ms": 10_000,
            "log_level": 0,
        }
        producer = ck.Producer(configuration)
        producer.init_transactions(TIMEOUT)
        return producer

    def publish(self, producer: ck.Producer, letters: Sequence[Letter], handled: Sequence[Letter]) -> None:
        """Publish letters to their raw topics and commit the offsets of those handled, in one transaction. Raises KafkaException."""
        producer.begin_transaction()
        for letter in letters:
            headers = [header for header in letter.headers if header[0] != ATTEMPTS]
            producer.produce(
                letter.record["source_topic"],
                # a null value is a control record; an empty one was none and is not told apart
                letter.record["value"] or None,
                letter.record["key"],
                letter.record["source_partition"],
                headers=[*headers, (ATTEMPTS, b"%d" % (letter.attempts + 1))],
            )
        ends = {letter.partition: letter.offset + 1 for letter in handled}
        if ends:
            with self._consumer() as consumer:
                offsets = [TopicPartition(self._topic, partition, end) for partition, end in ends.items()]
                producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), TIMEOUT)
        producer.commit_transaction(TIMEOUT)

    def _handled(self) -> dict[int, int]:
        """Return up to where redrives have come, by partition; below 0 where none has."""
        asked = [TopicPartition(self._topic, partition) for partition in watermarks(self._bootstrap, self._topic)]
        give_up = time.monotonic() + TIMEOUT
        with self._consumer() as consumer:
            while asked:
                try:
                    return {place.partition: place.offset for place in consumer.committed(asked, timeout=TIMEOUT)}
                except KafkaException as error:
                    if error.args[0].code() not in COORDINATOR_COMING_UP or time.monotonic() > give_up:
                        raise
                    time.sleep(0.1)
        raise NoSuchLetter(f"no topic {self._topic}: run `infoway-streams topology apply`, or name another --prefix")

    @contextmanager
    def _consumer(self) -> Iterator[ck.Consumer]:
        configuration = {
            **client(self._bootstrap),
            "group.id": self._group,
            "enable.auto.commit": False,
            # a redrive under way does not hold up who lists
            "isolation.level": "read_uncommitted",
            "log_level": 0,
        }
        consumer = ck.Consumer(configuration)
        try:
            yield consumer
        finally:
            consumer.close()

    def _letter(self, message: ck.Message) -> Letter:
        _, record = self._read(cast(bytes, message.value()))
        headers = tuple(cast(list[tuple[str, bytes | None]], message.headers() or []))
        return Letter(cast(int, message.partition()), cast(int, message.offset()), message.timestamp()[1], record, headers)


def _target(letter: Letter) -> str:
    return f"{letter.record['source_topic']}[{letter.record['source_partition']}]"


def _line(letter: Letter) -> str:
    record = letter.record
    written = datetime.fromtimestamp(letter.written_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    origin = f"{_target(letter)} offset {record['source_offset']}" if record["source_topic"] else f"feed {record['feed']}"
    tried = f", redriven {letter.attempts} times before" if letter.attempts else ""
    state = "handled" if letter.handled else "waits"
    return (
        f"{letter.place} {written} {origin}: {record['error_class']}: {record['error_text']} ({len(record['value'])} bytes{tried}; {state})"
    )


def _as_json(letter: Letter) -> dict[str, Any]:
    record = {name: value.hex() if isinstance(value, bytes) else value for name, value in letter.record.items()}
    headers = [[name, None if value is None else value.hex()] for name, value in letter.headers]
    place = {"partition": letter.partition, "offset": letter.offset, "written_ms": letter.written_ms}
    return {**place, "attempts": letter.attempts, "handled": letter.handled, "headers": headers, **record}
