"""Reads from the topics what was there before for one symbol and one interval, when a client asks
for it: the page keeps no history of symbols that nobody looks at."""

import time
from collections.abc import Sequence
from typing import cast

import confluent_kafka as ck
from confluent_kafka import KafkaError, TopicPartition

from infra.kafka.offsets import offsets_since, partitions_of, refused
from infra.kafka.reader import ValueReader
from infra.page.follow import GROUP, followed
from infra.page.series import MOST_BARS, Series, length_ms
from schemas.clients.kafka import client
from schemas.clients.registry import Registry, UnknownSchema
from schemas.partition import partition_of
from schemas.topics import DEPTH_IMBALANCE, Topology
from schemas.wire import UnreadableValue

MOST_RECORDS = {True: 100_000, False: 200_000}
"""Records of a partition that are read for one symbol, the newest: of lines, and of bars."""
MOST_DECODED = 4_000
"""Records of a symbol's line that are decoded, evenly spread: more than there are pixels."""
MOST_S = 8.0
"""Seconds that reading takes at most; what was read by then is shown."""
_WAIT = 0.05

Place = tuple[str, int]


class History:
    """Reads the past of one symbol after the other; not for two threads at once."""

    def __init__(self, bootstrap: str, registry_url: str, names: Topology) -> None:
        self._bootstrap, self._registry_url, self._names = bootstrap, registry_url, names
        self._consumer: ck.Consumer | None = None
        self._read: ValueReader | None = None
        self._schemas = followed(names)

    def __call__(self, symbol: str, interval: str, lines: bool) -> Series:
        """Return what the topics have of a symbol: its bars, or with `lines` VWAPs and imbalance.
        Raises KafkaException, NoSuchTopic and NotAllowed."""
        try:
            return self._series(symbol, interval, lines)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Close the consumer; the next call makes one."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _series(self, symbol: str, interval: str, lines: bool) -> Series:
        names = self._names
        found = Series(symbol, interval, names.windows)
        consumer = self._consumer or self._begin()
        contract = (
            [*(f"infoway.vwap.{window}" for window in names.windows), DEPTH_IMBALANCE]
            if lines
            else [f"infoway.bars.{interval}"]
        )
        since_ms = int(time.time() * 1000) - MOST_BARS * length_ms(interval)
        key = symbol.encode()
        values = self._values(consumer, contract, key, since_ms, MOST_RECORDS[lines])
        assert self._read is not None
        for name, of_topic in values.items():
            step = max(1, len(of_topic) // MOST_DECODED) if lines else 1
            # the newest is among them
            for value in reversed(of_topic[::-step]):
                try:
                    record = self._read(value, self._schemas[names.name(name)])[1]
                except (UnknownSchema, UnreadableValue):
                    continue  # the follower counts these
                found.take(name, record, 1)
        return found

    def _values(
        self,
        consumer: ck.Consumer,
        contract: Sequence[str],
        key: bytes,
        since_ms: int,
        most: int,
    ) -> dict[str, list[bytes]]:
        """Return a key's values by topic, the oldest first."""
        ends: dict[Place, int] = {}
        places: list[TopicPartition] = []
        for topic in map(self._names.name, contract):
            # asked each time: a topic may have got more
            partitions = len(partitions_of(consumer, topic))
            place = TopicPartition(topic, partition_of(key, partitions), since_ms)
            low, end = consumer.get_watermark_offsets(place, timeout=5)
            at = offsets_since(consumer, [place], timeout=5)[0].offset
            # below 0 where there is nothing so late
            start = max(low, end - most, end if at < 0 else at)
            if start < end:
                places.append(TopicPartition(topic, place.partition, start))
                ends[topic, place.partition] = end
        found: dict[str, list[bytes]] = {name: [] for name in contract}
        give_up = time.monotonic() + MOST_S
        consumer.assign(places)
        try:
            while ends and time.monotonic() < give_up:
                for message in consumer.consume(10_000, _WAIT):
                    topic = cast(str, message.topic())
                    offset, error = cast(int, message.offset()), message.error()
                    if error is None:
                        offset += 1
                        value = message.value()
                        if value is not None and message.key() == key:
                            found[self._names.contract_name(topic)].append(value)
                    elif error.code() != KafkaError._PARTITION_EOF:
                        raise refused(error, f"read {topic}")
                    at_place = topic, cast(int, message.partition())
                    if offset >= ends.get(at_place, 0):
                        ends.pop(at_place, None)
        finally:
            consumer.unassign()
        return found

    def _begin(self) -> ck.Consumer:
        consumer = ck.Consumer(
            {
                **client(self._bootstrap),
                "group.id": GROUP,
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 20,
                "fetch.queue.backoff.ms": 10,
                "log_level": 0,
            }
        )
        self._read = ValueReader(Registry(self._registry_url))
        self._consumer = consumer
        return consumer
