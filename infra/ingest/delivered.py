"""What the log has of each symbol's last trades, for a producer that starts.

The vendor answers a subscription by the symbol's last trade, and a new process must not count it
again.
"""

import logging
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple, cast

import confluent_kafka as ck
from confluent_kafka import KafkaError, TopicPartition

from infra.kafka.offsets import refused, watermarks
from infra.kafka.reader import ValueReader
from infra.runtime.deployment import Deployment
from producers.delivery.entries import SpoolEntry
from producers.feed.repeats import MEMORY, Delivered, TradeIdentity, value_of
from schemas.clients.kafka import client
from schemas.clients.registry import Registry, UnknownSchema
from schemas.decimals import NotADecimal
from schemas.partition import partition_of
from schemas.topics import RAW_TRADE
from schemas.wire import UnreadableValue

LIMIT_S = 5.0
"""Seconds that a start may spend on this: what comes meanwhile is missed, and a trade that is not
found is counted twice at worst."""
_FIRST, _MOST = 2_000, 500_000
"""Records of a partition that are looked through first, and at most at once; each step back is four
times as long as the one before."""
_SHOWN = 20

_log = logging.getLogger(__name__)


class DeliveredTrade(NamedTuple):
    """A raw trade as the log has it; `ts_recv` in microseconds."""

    connection: str
    sequence: int
    ts_recv: int
    trade: TradeIdentity
    repeat: bool


def delivered_before(
    deployment: Deployment,
    symbols: Collection[str],
    source: str,
    waiting: Iterable[SpoolEntry] = (),
    limit_s: float = LIMIT_S,
) -> dict[str, Delivered]:
    """Return of each symbol its last trade, however old, and its trades of the minute before.

    `waiting` is what an earlier process has left on disk, behind all that the topic has. The topic
    is read from its end backwards, for `limit_s` seconds at most; symbols that were not found in
    this time are named in a warning. Raises NotAllowed, NoSuchTopic, RegistryError.
    """
    topic = deployment.topology.name(RAW_TRADE)
    read = _Reader(ValueReader(Registry(deployment.registry_url)), symbols, source)
    looking = _Looking(deployment.bootstrap, topic, symbols, read)
    try:
        looking.look(time.monotonic() + limit_s)
    finally:
        looking.close()
    found = looking.found
    for entry in waiting:
        if entry.topic == topic and (trade := read(entry.key, entry.value)) is not None:
            found.setdefault(cast(str, entry.key), []).append(trade)
    return {symbol: last_minute(trades) for symbol, trades in found.items()}


def last_minute(trades: Iterable[DeliveredTrade]) -> Delivered:
    """Return the trades of the minute before the last one, each once, and the last one even if it
    was a repeat."""
    known = list({(each.connection, each.sequence): each for each in trades}.values())
    last = known[-1]
    recent = [each for each in known if not each.repeat and each.ts_recv >= last.ts_recv - MEMORY]
    delivered = deque((each.ts_recv, each.trade) for each in recent)
    # a repeat stands for one that came before: for one that is not there, it is all there is
    if last.repeat and value_of(last.trade) not in {value_of(trade) for _, trade in delivered}:
        delivered.append((last.ts_recv, last.trade))
    return delivered


class _Reader:
    """Reads a trade of a symbol that is asked for; None for anything else.

    What is wrong is for the processors to dead-letter.
    """

    def __init__(self, read: ValueReader, symbols: Collection[str], source: str) -> None:
        self._read = read
        self._symbols = frozenset(symbols)
        self._source = source

    def __call__(self, key: str | bytes | None, value: bytes | None) -> DeliveredTrade | None:
        symbol = key.decode(errors="replace") if isinstance(key, bytes) else key
        if value is None or symbol not in self._symbols:
            return None
        try:
            raw = self._read(value)[1]
            if raw["source"] != self._source:
                return None
            trade = raw["ts_event"], raw["price"], raw["volume"], raw["direction"]
            value_of(trade)  # what is no number can be compared with nothing
            return DeliveredTrade(
                raw["connection"], raw["sequence"], raw["ts_recv"], trade, raw["repeat"]
            )
        except (KeyError, NotADecimal, UnknownSchema, UnreadableValue):
            return None


class _Looking:
    """Looks for symbols from the end of their partitions backwards."""

    def __init__(self, bootstrap: str, topic: str, symbols: Collection[str], read: _Reader) -> None:
        self.found: dict[str, list[DeliveredTrade]] = {}
        self._topic = topic
        self._read = read
        self._bounds = watermarks(bootstrap, topic)
        self._stops = {partition: end for partition, (_, end) in self._bounds.items()}
        self._wanted: dict[int, set[str]] = {partition: set() for partition in self._bounds}
        for symbol in symbols:
            self._wanted[partition_of(symbol.encode(), len(self._bounds))].add(symbol)
        config = {
            **client(bootstrap),
            "group.id": "read-to-end",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            # what retention takes while it is read needs no reading
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 20,
            "fetch.queue.backoff.ms": 10,
            "log_level": 0,
        }
        self._consumer = ck.Consumer(config)

    def look(self, give_up: float) -> None:
        """Look until every symbol is found, or all is read, or the time (monotonic) is over."""
        size = _FIRST
        while ranges := dict(self._ranges(size)):
            if not self._take(ranges, give_up):
                self._name_missing()
                return
            size = min(4 * size, _MOST)

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()

    def _ranges(self, size: int) -> Iterator[tuple[int, tuple[int, int]]]:
        for partition, wanted in self._wanted.items():
            low, stop = self._bounds[partition][0], self._stops[partition]
            if wanted and stop > low:
                yield partition, (max(low, stop - size), stop)

    def _take(self, ranges: Mapping[int, tuple[int, int]], give_up: float) -> bool:
        """Look through the offsets from the first to before the second; return whether in time."""
        chunk: dict[str, deque[DeliveredTrade]] = {}
        oldest: dict[int, int] = {}
        unread = {partition: stop for partition, (_, stop) in ranges.items()}
        starts = [TopicPartition(self._topic, each, start) for each, (start, _) in ranges.items()]
        self._consumer.assign(starts)
        while unread:
            if time.monotonic() > give_up:
                return False
            for message in self._consumer.consume(10_000, 0.05):
                error, partition = message.error(), cast(int, message.partition())
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise refused(error, f"read {self._topic}")
                stop, offset = unread.get(partition), cast(int, message.offset())
                if stop is None:
                    continue
                if error is None and offset < stop:
                    oldest.setdefault(partition, message.timestamp()[1])
                    self._keep(chunk, message)
                if offset >= stop - 1:
                    del unread[partition]
        for partition, (start, _) in ranges.items():
            self._stops[partition] = start
            self._settle(partition, chunk, oldest.get(partition, 0))
        return True

    def _keep(self, chunk: dict[str, deque[DeliveredTrade]], message: ck.Message) -> None:
        key = message.key()
        trade = self._read(key, message.value())
        if trade is not None:
            known = chunk.setdefault(cast(bytes, key).decode(), deque())
            known.append(trade)
            # of a busy symbol no more than a minute is needed
            while known[0].ts_recv < trade.ts_recv - MEMORY:
                known.popleft()

    def _settle(
        self, partition: int, chunk: Mapping[str, deque[DeliveredTrade]], oldest_ms: int
    ) -> None:
        """Take what a chunk has of a partition's symbols; one is found once its minute is there."""
        for symbol in list(self._wanted[partition]):
            if symbol in chunk:
                self.found[symbol] = [*chunk[symbol], *self.found.get(symbol, ())]
            # Kafka's time of a record is that of its writing, never before its receipt
            if symbol in self.found:
                needed = (self.found[symbol][-1].ts_recv - MEMORY) // 1000
                if oldest_ms < needed:
                    self._wanted[partition].remove(symbol)

    def _name_missing(self) -> None:
        missing = sorted(set().union(*self._wanted.values()).difference(self.found))
        if missing:
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            _log.warning(
                "the last trade of %d symbols was not found in the end of %s within the time for "
                "it: %s%s; if the vendor sends it again, it counts twice",
                len(missing),
                self._topic,
                ", ".join(missing[:_SHOWN]),
                more,
            )
