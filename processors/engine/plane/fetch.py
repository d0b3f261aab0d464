"""Records fetched with librdkafka, which assigns itself what the group has dealt out; no group, and
no Faust, here."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import confluent_kafka as ck
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from processors.decode.messages import Messages
from processors.engine.batch import Run
from processors.engine.plane.binding import BindingClient, FetchClient
from processors.engine.plane.native import NativeClient
from processors.engine.sources import SourcePartition
from processors.engine.state import is_away, listed
from processors.kernels.librdkafka import LIBRARY
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
Read = Callable[[SourcePartition, Messages], Pieces]
WAIT_S = 0.05
"""Seconds for which a first record is waited for."""


class Fetched(NamedTuple):
    """What has come of a partition."""

    messages: Messages
    """Those that `pieces` names are there one by one."""
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
        # a fetch whose caller was cancelled goes on in its thread: it must not take what is
        # assigned after it
        self._fetching = threading.Lock()
        self._assignments = 0
        self._admin = AdminClient(client(bootstrap), logger=log)
        kind = BindingClient if LIBRARY is None else NativeClient
        self._consumer: FetchClient = kind(
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
                "queued.max.messages.kbytes": 8_192,
            },
            log,
        )

    def assign(self, offsets: Mapping[SourcePartition, int]) -> None:
        """Read these partitions and no others from now on."""
        with self._fetching:
            self._assignments += 1
            self._consumer.assign(offsets)

    async def next(self, read: Read) -> dict[SourcePartition, Fetched]:
        """Return what has come of each partition; after 50 ms nothing. `read` is called in the
        thread that fetches."""
        return await asyncio.get_running_loop().run_in_executor(
            None, self._next, read, self._assignments
        )

    def _next(self, read: Read, assignment: int) -> dict[SourcePartition, Fetched]:
        with self._fetching:
            return self._fetch(read) if assignment == self._assignments else {}

    def _fetch(self, read: Read) -> dict[SourcePartition, Fetched]:
        # to ask for many at once would wait for all of them
        linger_s = LOADED_LINGER_S if self.backlog else LINGER_S
        found: dict[SourcePartition, Fetched] = {}
        with self._consumer.consume(self._most, WAIT_S, linger_s) as records:
            self.backlog = len(records) >= self._most / 2
            for source_partition, come in records.by_partition().items():
                pieces = read(source_partition, come.messages)
                records.keep(come, [piece for piece in pieces if isinstance(piece, int)])
                found[source_partition] = Fetched(come.messages, pieces, come.next_offset)
        return found

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
