"""The commands dead-letter list and redrive: what could not be read, and once the cause is mended its way back to its raw topic.

A redrive says in the topic itself how far it has come, in the transaction of what it publishes: a record of null value and key in each
partition that it handled, with the header `redriven-to`, the offset to go on at. It is younger than the letters that it covers, so
retention takes it after them, and each letter is redriven once, over kills too. The offsets of a consumer group would not do: Kafka
forgets them after seven days without a member, and letters live longer. `redriven` names single letters, redriven by `--only`.
"""

import argparse
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, cast

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException

from infra.consuming import TIMEOUT, ValueReader, read_to_end, refused, watermarks
from infra.deployment import named_cluster
from producers.partition import partition_of
from schemas.registry import Registry
from schemas.security import client
from schemas.topics import Topology
from schemas.wire import Record

ATTEMPTS = "dead-letter-attempts"
"""The header that counts how often a record was redriven; processors keep it, as every header, where they dead-letter the record again."""
REDRIVEN_TO = "redriven-to"
REDRIVEN = "redriven"
"""Headers of a redrive's own records: the offset to go on at, and one for each letter that was named; decimal digits."""
MAX_ATTEMPTS = 3
STEP = 1000
"""Letters of one transaction."""

_TOPIC = "infoway.dead-letter"
_SILENT = logging.getLogger(__name__)
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False
_FENCED = frozenset(
    (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)
)

Headers = tuple[tuple[str, bytes | None], ...]


class NoSuchLetter(ValueError):
    """`--only` names a place where there is no dead letter."""


class Overtaken(RuntimeError):
    """Another redrive has begun, and ended this one."""

    def __init__(self) -> None:
        super().__init__(
            "another redrive has begun and goes on where this one was: its last step did nothing; wait for the other's end"
        )


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter and its place."""

    partition: int
    offset: int
    written_ms: int
    record: Record
    headers: Headers
    handled: bool
    """Whether a redrive has come by it."""

    @property
    def place(self) -> str:
        """PARTITION:OFFSET."""
        return f"{self.partition}:{self.offset}"

    @property
    def attempts(self) -> int:
        """How often it was redriven before; a header that is no number of ours counts as never."""
        return next(iter(_numbers(self.headers, ATTEMPTS)), 0)


def add_dead_letter_options(
    listing: argparse.ArgumentParser, redriving: argparse.ArgumentParser
) -> None:
    """Give both commands what they have beside the topology's options."""
    listing.add_argument("--json", action="store_true", help="one JSON object a line, bytes as hex")
    redriving.add_argument(
        "--dry-run", action="store_true", help="print what would be done, and do nothing"
    )
    redriving.add_argument(
        "--max-attempts",
        type=int,
        default=MAX_ATTEMPTS,
        help=f"pass over what was redriven so often (default: {MAX_ATTEMPTS})",
    )
    redriving.add_argument(
        "--only",
        default="",
        metavar="PARTITION:OFFSET,...",
        help="these letters, redriven before or not, and no others",
    )


def list_letters(names: Topology, options: argparse.Namespace) -> int:
    """Print every dead letter that retention has left, the redriven ones too. Raises NoSuchTopic and NotAllowed."""
    for letter in _Post(names).letters():
        print(json.dumps(_as_json(letter)) if options.json else _line(letter), flush=True)
    return 0


def redrive(names: Topology, options: argparse.Namespace) -> int:
    """Publish anew what no redrive has come by yet, and print what was done with each letter.

    Raises NoSuchLetter, Overtaken, NoSuchTopic and NotAllowed.
    """
    post, counts = _Post(names), Counter[str]()
    wanted = {place.strip() for place in options.only.split(",") if place.strip()}
    # before the letters are read: it ends the transaction of a redrive that was killed, or that still runs
    producer = None if options.dry_run else post.producer()
    letters = [
        letter
        for letter in post.letters()
        if (letter.place in wanted if wanted else not letter.handled)
    ]
    if missing := wanted - {letter.place for letter in letters}:
        raise NoSuchLetter(
            f"--only {','.join(sorted(missing))}: no dead letter there; `dead-letter list` shows their places"
        )
    partitions = post.raw_partitions({letter.record["source_topic"] for letter in letters})
    waiting = iter(letters)
    while step := list(islice(waiting, STEP)):
        outcomes = [
            (letter, _passed_over(letter, partitions, options.max_attempts)) for letter in step
        ]
        ways = [(letter, _way(letter, partitions)) for letter, why in outcomes if why is None]
        if producer is not None:
            post.publish(
                producer, ways, _named([letter for letter, _ in ways]) if wanted else _come_to(step)
            )
        for letter, why in outcomes:
            counts["passed over" if why else "redriven"] += 1
            done = (
                f"passed over: {why}"
                if why
                else f"to {letter.record['source_topic']}[{_way(letter, partitions)}]"
            )
            print(f"{letter.place} {done}", flush=True)
    would = "would be " * options.dry_run
    print(f"{counts['redriven']} {would}redriven, {counts['passed over']} {would}passed over")
    return 0


def _passed_over(letter: Letter, partitions: Mapping[str, int], max_attempts: int) -> str | None:
    """Return why a letter has no way back, or None."""
    record = letter.record
    topic, place = record["source_topic"], record["source_partition"]
    if not topic:
        return "a frame of the vendor's that never became a record"
    if topic not in partitions or record["source_offset"] is None:
        return f"no raw record, but one that was derived from {topic}"
    if not record["value"] and not _is_control(letter):
        return "an empty value, without the headers of a control record"
    if record["key"] is None and place >= partitions[topic]:
        return (
            f"a record without a key, of partition {place}, and {topic} has {partitions[topic]} now"
        )
    if letter.attempts >= max_attempts:
        return f"redriven {letter.attempts} times before"
    return None


def _way(letter: Letter, partitions: Mapping[str, int]) -> int:
    """Return the partition that a letter goes back to: that of its key today, since agents find there what they know of the key."""
    record = letter.record
    if record["key"] is None:
        return cast(int, record["source_partition"])
    return partition_of(record["key"], partitions[record["source_topic"]])


def _is_control(letter: Letter) -> bool:
    return any(name == "control" for name, _ in letter.headers)


def _come_to(step: Sequence[Letter]) -> dict[int, Headers]:
    """Return the headers that say in each partition that redrives have come by these letters, which are in their order."""
    return {letter.partition: ((REDRIVEN_TO, b"%d" % (letter.offset + 1)),) for letter in step}


def _named(letters: Sequence[Letter]) -> dict[int, Headers]:
    """Return the headers that say in each partition that these letters were redriven, and say nothing of those before them."""
    found: dict[int, Headers] = defaultdict(tuple)
    for letter in letters:
        found[letter.partition] += ((REDRIVEN, b"%d" % letter.offset),)
    return found


class _Post:
    """The dead-letter topic of one namespace."""

    def __init__(self, names: Topology) -> None:
        self._bootstrap, registry_url = named_cluster()
        self._read = ValueReader(Registry(registry_url))
        self._topic = names.name(_TOPIC)
        self._raw = {
            topic.name
            for topic in names.topics()
            if names.contract_name(topic.name).startswith("infoway.raw.")
        }
        self._transactional_id = f"{names.prefix}infoway-dead-letter"

    def letters(self) -> Iterator[Letter]:
        """Yield every letter up to the topic's end now, partition after partition; null values are none."""
        come_to, named = self._handled()
        for message in read_to_end(self._bootstrap, self._topic):
            value, partition, offset = (
                message.value(),
                cast(int, message.partition()),
                cast(int, message.offset()),
            )
            if value is not None:
                handled = offset < come_to[partition] or (partition, offset) in named
                yield Letter(
                    partition,
                    offset,
                    message.timestamp()[1],
                    self._read(value)[1],
                    _headers(message),
                    handled,
                )

    def raw_partitions(self, topics: Collection[str]) -> dict[str, int]:
        """Return how many partitions those of the topics have now that are raw ones of this namespace."""
        return {
            topic: len(watermarks(self._bootstrap, topic)) for topic in topics if topic in self._raw
        }

    def producer(self) -> ck.Producer:
        """Return the one producer of this namespace's redrives: what another has open is aborted, and it can commit no more."""
        configuration = {
            **client(self._bootstrap),
            "transactional.id": self._transactional_id,
            "transaction.timeout.ms": 10_000,
            # what is fatal to it is raised, too
            "logger": _SILENT,
        }
        producer = ck.Producer(configuration)
        try:
            producer.init_transactions(TIMEOUT)
        except KafkaException as error:
            raise refused(
                error.args[0], f"use the transactional.id {self._transactional_id}"
            ) from None
        return producer

    def publish(
        self,
        producer: ck.Producer,
        ways: Sequence[tuple[Letter, int]],
        marks: Mapping[int, Headers],
    ) -> None:
        """Publish letters to partitions of their raw topics and a mark in each partition of this one, all of them or nothing.

        Raises Overtaken, NotAllowed and KafkaException.
        """
        try:
            producer.begin_transaction()
            for letter, partition in ways:
                record = letter.record
                kept = [header for header in letter.headers if header[0] != ATTEMPTS]
                headers = [*kept, (ATTEMPTS, b"%d" % (letter.attempts + 1))]
                # an empty value is that of a control record, a null one
                value = record["value"] or None
                producer.produce(
                    record["source_topic"], value, record["key"], partition, headers=[*headers]
                )
            for partition, mark in marks.items():
                producer.produce(self._topic, None, None, partition, headers=[*mark])
            producer.commit_transaction(TIMEOUT)
        except KafkaException as error:
            if error.args[0].code() in _FENCED:
                raise Overtaken from None
            # the answer does not say to which of them
            topics = sorted({letter.record["source_topic"] for letter, _ in ways} | {self._topic})
            raise refused(error.args[0], f"write into {' or '.join(topics)}") from None

    def _handled(self) -> tuple[dict[int, int], set[tuple[int, int]]]:
        """Return up to which offset redrives have come in each partition, and the places of letters that they were given by name.

        Null values of anybody else say nothing.
        """
        come_to: dict[int, int] = defaultdict(int)
        named: set[tuple[int, int]] = set()
        for message in read_to_end(self._bootstrap, self._topic):
            if message.value() is None:
                headers, partition = _headers(message), cast(int, message.partition())
                come_to[partition] = max(come_to[partition], *_numbers(headers, REDRIVEN_TO), 0)
                named |= {(partition, offset) for offset in _numbers(headers, REDRIVEN)}
        return come_to, named


def _headers(message: ck.Message) -> Headers:
    return tuple(cast(list[tuple[str, bytes | None]], message.headers() or []))


def _numbers(headers: Headers, name: str) -> list[int]:
    """Return the numbers of a header, which may occur more than once; what is no number is left out."""
    return [
        int(value)
        for each, value in headers
        if each == name and value is not None and value.isdigit()
    ]


def _line(letter: Letter) -> str:
    record = letter.record
    written = datetime.fromtimestamp(letter.written_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    raw = f"{record['source_topic']}[{record['source_partition']}] offset {record['source_offset']}"
    origin = raw if record["source_topic"] else f"feed {record['feed']}"
    tried = f", redriven {letter.attempts} times before" if letter.attempts else ""
    state = "handled" if letter.handled else "waits"
    return f"{letter.place} {written} {origin}: {record['error_class']}: {record['error_text']} ({len(record['value'])} bytes{tried}; {state})"


def _as_json(letter: Letter) -> dict[str, Any]:
    record = {
        name: value.hex() if isinstance(value, bytes) else value
        for name, value in letter.record.items()
    }
    headers = [[name, None if value is None else value.hex()] for name, value in letter.headers]
    place = {
        "partition": letter.partition,
        "offset": letter.offset,
        "written_ms": letter.written_ms,
    }
    return {
        **place,
        "attempts": letter.attempts,
        "handled": letter.handled,
        "headers": headers,
        **record,
    }
