"""`infoway-streams dead-letter redrive`: publishes dead letters to their raw topics again, once
their cause is mended.

Each letter is redriven once, over kills too: `infra/kafka/dead_letters.py` says how. Frames of the
vendor's that never became a record are read again as the producer reads them, and become the raw
record that they should have been.
"""

import argparse
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import cast

from confluent_kafka import KafkaError, KafkaException

from infra.cli.checks import reached_cluster_mistakes, topology_mistakes
from infra.cli.command import Command
from infra.cli.options import add_topology, whole
from infra.ingest.redriven_frames import FrameStays, RedrivenFrames
from infra.kafka.dead_letters import REDRIVEN, REDRIVEN_TO, DeadLetters, Headers, Letter
from infra.kafka.offsets import TIMEOUT, refused, watermarks
from infra.runtime.deployment import named_cluster
from processors.engine.transactions.producer import TransactionalProducer
from schemas.clients.kafka import client
from schemas.clients.registry import Registry
from schemas.control import ATTEMPTS, CUT
from schemas.errors import InfowayError
from schemas.partition import partition_of
from schemas.printable import printable
from schemas.topics import Topology

MAX_ATTEMPTS = 3
STEP = 1000
"""Letters of one transaction."""

_SILENT = logging.getLogger(__name__)
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False
_FENCED = frozenset(
    (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)
)


class NoSuchLetter(InfowayError):
    """`--only` names a place where there is no dead letter."""


class Overtaken(InfowayError):
    """Another redrive has begun, and ended this one."""

    def __init__(self) -> None:
        super().__init__(
            "another redrive has begun and goes on where this one was: its last step did "
            "nothing; wait for the other's end"
        )


@dataclass(frozen=True, slots=True)
class RedriveOptions:
    """What `dead-letter redrive` was given."""

    topology: Topology
    dry_run: bool
    max_attempts: int
    only: str


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `dead-letter redrive`."""
    command.add_argument(
        "--dry-run", action="store_true", help="print what would be done, and do nothing"
    )
    command.add_argument(
        "--max-attempts",
        type=whole(1, 1_000_000),
        default=MAX_ATTEMPTS,
        help=f"pass over what was redriven so often (default: {MAX_ATTEMPTS})",
    )
    command.add_argument(
        "--only",
        default="",
        metavar="PARTITION:OFFSET,...",
        help="these letters, redriven before or not, and no others",
    )
    add_topology(command)


def redrive(options: RedriveOptions) -> int:
    """Publish again what no redrive has come by yet, and print what was done with each letter.

    Raises NoSuchLetter, Overtaken, NoSuchTopic and NotAllowed.
    """
    raw, counts = _RawTopics(options.topology), Counter[str]()
    named = {each.strip() for each in options.only.split(",") if each.strip()}
    left = set(named)
    # before the letters are read: it ends the transaction of a redrive that was killed, or that
    # still runs
    producer = None if options.dry_run else raw.producer()
    read_again = True
    while read_again:
        read_again = False
        letters = [
            letter
            for letter in raw.letters()
            if (letter.position in left if named else not letter.handled)
        ]
        if missing := left - {letter.position for letter in letters}:
            raise NoSuchLetter(
                f"--only {','.join(sorted(missing))}: no dead letter there; `dead-letter list` "
                "shows their places"
            )
        letters = [raw.made_raw(letter) for letter in letters]
        partitions = raw.raw_partitions({letter.record["source_topic"] for letter in letters})
        waiting = iter(letters)
        while not read_again and (step := list(islice(waiting, STEP))):
            outcomes = [
                (letter, _passed_over(letter, partitions, options.max_attempts)) for letter in step
            ]
            ways = [(letter, _way(letter, partitions)) for letter, why in outcomes if why is None]
            if producer is not None:
                marks = _named([letter for letter, _ in ways]) if named else _come_to(step)
                # with a renewed producer: until it had its epoch, another redrive may have come by
                # the same letters
                read_again = raw.publish(producer, ways, marks)
            left -= {letter.position for letter in step}
            for letter, why in outcomes:
                counts["passed over" if why else "redriven"] += 1
                done = (
                    f"passed over: {why}"
                    if why
                    else f"to {letter.record['source_topic']}[{_way(letter, partitions)}]"
                )
                print(printable(f"{letter.position} {done}"), flush=True)
    would = "would be " * options.dry_run
    print(f"{counts['redriven']} {would}redriven, {counts['passed over']} {would}passed over")
    return 0


COMMAND = Command(
    "dead-letter redrive",
    "publish anew to their raw topics",
    "dead-letter redrive --only 0:17,3:42",
    add_options,
    RedriveOptions,
    redrive,
    (topology_mistakes, reached_cluster_mistakes),
    asks_cluster=True,
    reads_back=True,
)


def _passed_over(letter: Letter, partitions: Mapping[str, int], max_attempts: int) -> str | None:
    """Return why a letter has no way back, or None."""
    record = letter.record
    topic, partition = record["source_topic"], record["source_partition"]
    if not topic:
        return f"a frame of the vendor's that never became a record: {letter.stays}"
    if topic not in partitions or record["source_offset"] is None:
        return f"no raw record, but one that was derived from {topic}"
    if not record["value"] and not _is_control(letter):
        return "an empty value, without the headers of a control record"
    if record["key"] is None and partition >= partitions[topic]:
        return (
            f"a record without a key, of partition {partition}, and {topic} has "
            f"{partitions[topic]} now"
        )
    if any(name == CUT for name, _ in letter.headers):
        return (
            "only its beginning is here: the whole record is at offset "
            f"{record['source_offset']} of {topic}[{partition}]"
        )
    if letter.attempts >= max_attempts:
        return f"redriven {letter.attempts} times before"
    return None


def _way(letter: Letter, partitions: Mapping[str, int]) -> int:
    """Return the partition that a letter goes back to: that of its key today, since agents find
    there what they know of the key."""
    record = letter.record
    if record["key"] is None:
        return cast(int, record["source_partition"])
    return partition_of(record["key"], partitions[record["source_topic"]])


def _is_control(letter: Letter) -> bool:
    return any(name == "control" for name, _ in letter.headers)


def _come_to(step: Sequence[Letter]) -> dict[int, Headers]:
    """Return the headers that say in each partition that redrives have come by these letters, which
    are in their order."""
    return {letter.partition: ((REDRIVEN_TO, b"%d" % (letter.offset + 1)),) for letter in step}


def _named(letters: Sequence[Letter]) -> dict[int, Headers]:
    """Return the headers that say in each partition that these letters were redriven, and say
    nothing of those before them."""
    found: dict[int, Headers] = defaultdict(tuple)
    for letter in letters:
        found[letter.partition] += ((REDRIVEN, b"%d" % letter.offset),)
    return found


class _RawTopics:
    """The raw topics of one namespace: where its dead letters go back to."""

    def __init__(self, names: Topology) -> None:
        self._bootstrap, registry_url = named_cluster()
        self._dead = DeadLetters(names, self._bootstrap, registry_url)
        self._raw_record = RedrivenFrames(names, Registry(registry_url))
        self._names = {
            topic.name
            for topic in names.topics()
            if names.contract_name(topic.name).startswith("infoway.raw.")
        }
        self._transactional_id = f"{names.prefix}infoway-dead-letter"

    def letters(self) -> Iterator[Letter]:
        """Yield every dead letter up to its topic's end now."""
        return self._dead.letters()

    def made_raw(self, letter: Letter) -> Letter:
        """Return a letter of a frame as that of the raw record that it should have been, where it
        can be read; others as they are."""
        if letter.record["source_topic"]:
            return letter
        try:
            return replace(letter, record=self._raw_record(letter.record))
        except FrameStays as error:
            return replace(letter, stays=str(error))

    def raw_partitions(self, topics: Collection[str]) -> dict[str, int]:
        """Return how many partitions those of the topics have now that are raw ones of this
        namespace."""
        return {
            topic: len(watermarks(self._bootstrap, topic))
            for topic in topics
            if topic in self._names
        }

    def producer(self) -> TransactionalProducer:
        """Return the one producer of this namespace's redrives: what another has open is aborted,
        and it can commit no more."""
        configuration = {
            **client(self._bootstrap),
            "transactional.id": self._transactional_id,
            "transaction.timeout.ms": 10_000,
        }
        try:
            # what is fatal to it is raised, too
            return TransactionalProducer(configuration, give_up_after=TIMEOUT, logger=_SILENT)
        except KafkaException as error:
            raise refused(
                error.args[0], f"use the transactional.id {self._transactional_id}"
            ) from None

    def publish(
        self,
        producer: TransactionalProducer,
        ways: Sequence[tuple[Letter, int]],
        marks: Mapping[int, Headers],
    ) -> bool:
        """Publish letters to partitions of their raw topics and a mark in each partition of the
        dead letters' one, all of them or nothing.

        Returns whether the producer had to be renewed for the next ones. Raises Overtaken,
        NotAllowed and KafkaException.
        """
        try:
            producer.begin()
            for letter, partition in ways:
                record = letter.record
                kept = [header for header in letter.headers if header[0] != ATTEMPTS]
                headers = [*kept, (ATTEMPTS, b"%d" % (letter.attempts + 1))]
                # an empty value is that of a control record, a null one
                value = record["value"] or None
                producer.client.produce(
                    record["source_topic"], value, record["key"], partition, headers=[*headers]
                )
            for partition, mark in marks.items():
                producer.client.produce(self._dead.topic, None, None, partition, headers=[*mark])
            producer.client.commit_transaction(TIMEOUT)
            return producer.renew_if_suspect()
        except KafkaException as error:
            if error.args[0].code() in _FENCED:
                raise Overtaken from None
            # the answer does not say to which of them
            topics = sorted(
                {letter.record["source_topic"] for letter, _ in ways} | {self._dead.topic}
            )
            raise refused(error.args[0], f"write into {' or '.join(topics)}") from None
