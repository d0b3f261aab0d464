"""Records fetched with librdkafka, which assigns itself what the group has dealt out; no group, and
no Faust, here."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import methodcaller
from typing import NamedTuple, cast

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from processors.engine.batch import Run
from processors.engine.sources import SourcePartition
from processors.engine.state import is_away, listed
from processors.engine.transactions.exits import Exit, leave
from processors.model.records import SourceRecord
from schemas.clients.kafka import client

log = logging.getLogger(__name__)

Decode = Callable[[ck.Message], SourceRecord]
ANSWER_TIMEOUT_S = 3.0
LINGER_S = 0.001
"""Seconds for which more records are waited for after the first: each batch costs about 0.2 ms,
however few it has."""
LOADED_LINGER_S = 0.02
"""The same while a backlog is read."""


Pieces = Sequence[Run | int]
"""Messages in order: runs of records as columns, and indices of messages to be read one by one."""
Read = Callable[[SourcePartition, Sequence[ck.Message]], Pieces]


_ERROR, _TOPIC, _PARTITION = map(methodcaller, ("error", "topic", "partition"))


class Fetched(NamedTuple):
    """What has come of a partition."""

    messages: list[ck.Message]
    pieces: Pieces
    next_offset: int
    """Where the partition goes on."""


class Fetch:
    """librdkafka's consumer, and a question to the broker."""

    def __init__(self, bootstrap: str, most: int) -> None:
        """`most` records are returned at once."""
        self._most = most
        self.backlog = False
        """Whether the last records were half as many as are returned at once, or more."""
        self._refused: list[str] = []
        """What was logged of partitions whose end is not known."""
        self._bootstrap = bootstrap
        self._admin = AdminClient(client(bootstrap), logger=log)
        self._consumer = ck.Consumer(
            {
                **client(bootstrap),
                "group.id": "unused",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 10,
                # the default of 1000 ms throttles bursts: 133k records/s against 600k
                "fetch.queue.backoff.ms": 10,
                "queued.max.messages.kbytes": 32_768,
            },
            logger=log,
        )

    def assign(self, offsets: Mapping[SourcePartition, int]) -> None:
        """Read these partitions and no others from now on."""
        self._consumer.assign(
            [
                TopicPartition(topic, partition, offset)
                for (topic, partition), offset in offsets.items()
            ]
        )

    async def next(self, read: Read) -> dict[SourcePartition, Fetched]:
        """Return what has come of each partition; after 50 ms nothing. `read` is called in the
        thread that fetches."""
        return await asyncio.get_running_loop().run_in_executor(None, self._next, read)

    def _next(self, read: Read) -> dict[SourcePartition, Fetched]:
        return {
            source_partition: Fetched(run, read(source_partition, run), next_offset)
            for source_partition, (run, next_offset) in by_partition(self._consume()).items()
        }

    def _consume(self) -> list[ck.Message]:
        """Wait for a record, and return it with those that came with it: to ask for many at once
        would wait for all of them."""
        messages = self._consumer.consume(1, 0.05)
        if messages and self._most > 1:
            linger_s = LOADED_LINGER_S if self.backlog else LINGER_S
            messages += self._consumer.consume(self._most - 1, linger_s)
        self.backlog = len(messages) >= self._most / 2
        return messages

    def ends(
        self, source_partitions: Iterable[SourcePartition]
    ) -> dict[SourcePartition, int] | None:
        """Return where the committed records of each partition end; None where no broker
        answers."""
        found = self._ask_for_ends(source_partitions)
        if found is None:
            # a client whose connection broke while the broker came up has gone on without an answer
            # long after others had theirs
            self._admin = AdminClient(client(self._bootstrap), logger=log)
        return found

    def _ask_for_ends(
        self, source_partitions: Iterable[SourcePartition]
    ) -> dict[SourcePartition, int] | None:
        latest: Callable[[], OffsetSpec] = OffsetSpec.latest
        asked = {
            TopicPartition(*source_partition): latest() for source_partition in source_partitions
        }
        futures = self._admin.list_offsets(
            asked,
            isolation_level=ck.IsolationLevel.READ_COMMITTED,
            request_timeout=ANSWER_TIMEOUT_S,
        )
        found: dict[SourcePartition, int] = {}
        refused: list[str] = []
        for asked_of, future in futures.items():
            try:
                found[asked_of.topic, asked_of.partition] = listed(
                    future.result(ANSWER_TIMEOUT_S + 1)
                )
            except TimeoutError:
                return None
            except KafkaException as error:
                if is_away(error.args[0]):
                    return None
                refused.append(f"{asked_of.topic}[{asked_of.partition}]: {error.args[0].str()}")
        # librdkafka says "no leaders" of a partition that is gone, and of all where a broker that
        # it knew is
        if refused and not self._answers():
            return None
        if refused != self._refused:
            self._refused = refused
            log.warning("the ends of partitions are not known: %s", "; ".join(refused))
        return found

    def _answers(self) -> bool:
        try:
            self._admin.list_topics(timeout=ANSWER_TIMEOUT_S)
        except KafkaException:
            return False
        return True


def by_partition(messages: list[ck.Message]) -> dict[SourcePartition, tuple[list[ck.Message], int]]:
    """Return the records of each partition and the offset at which it goes on: at its end, behind
    the markers of transactions."""
    if not any(map(_ERROR, messages)):
        return _without_errors(messages)
    runs: dict[SourcePartition, tuple[list[ck.Message], int]] = {}
    for message in messages:
        source_partition, error = (
            (cast(str, message.topic()), cast(int, message.partition())),
            message.error(),
        )
        run = runs.get(source_partition, ([], 0))[0]
        if error is None:
            run.append(message)
            runs[source_partition] = run, cast(int, message.offset()) + 1
        elif error.code() == KafkaError._PARTITION_EOF:
            runs[source_partition] = run, cast(int, message.offset())
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            leave(
                Exit.SETUP_WRONG,
                f"{message.topic()}[{message.partition()}]: the log no longer has the offset "
                f"that the state names: {error.str()}",
            )
        elif not is_away(error):
            raise KafkaException(error)
    return runs


def _without_errors(
    messages: Sequence[ck.Message],
) -> dict[SourcePartition, tuple[list[ck.Message], int]]:
    """Do it by what Python has in C: a loop over the messages takes three times as long, and as
    long as it takes to fetch them."""
    runs: dict[SourcePartition, tuple[list[ck.Message], int]] = {}
    places: list[SourcePartition] = list(
        zip(map(_TOPIC, messages), map(_PARTITION, messages), strict=True)
    )
    first = 0
    for source_partition, same in groupby(places):
        after = first + sum(1 for _ in same)
        run = runs[source_partition][0] if source_partition in runs else []
        run += messages[first:after]
        runs[source_partition] = run, cast(int, messages[after - 1].offset()) + 1
        first = after
    return runs
