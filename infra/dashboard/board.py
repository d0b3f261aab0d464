"""What the live view shows, read from the topics as any other service would read them; drawing it
is another module's."""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import confluent_kafka as ck
from confluent_kafka import KafkaException, TopicPartition

from infra.kafka.lag import Lag
from infra.kafka.reader import ValueReader
from infra.runtime.deployment import Deployment
from schemas.clients.cluster import metadata_of
from schemas.clients.kafka import client
from schemas.clients.registry import Registry, RegistryError
from schemas.decimals import to_text
from schemas.topics import load_schema
from schemas.wire import UnreadableValue

RAW_TRADE, IMBALANCE = "infoway.raw.trade", "infoway.depth.imbalance"
RAW = (RAW_TRADE, "infoway.raw.depth", "infoway.raw.kline")
RECONCILIATION = "infoway.reconciliation"
RATE_WINDOW = 10.0
LAG_PERIOD = 1.0
RECONNECT = 1.0
"""Seconds between two attempts to follow the topics."""
SILENCE = 5.0
"""Seconds after which the view says that the broker does not answer."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class SymbolBoard:
    """The newest of everything about one symbol; None where nothing has come yet."""

    last: str | None = None
    vwaps: dict[str, int | None] = field(default_factory=dict)
    bar: dict[str, Any] | None = None
    imbalance: float | None = None


class Board:
    """Follows the topics of a deployment in a thread of its own."""

    def __init__(self, deployment: Deployment, symbols: tuple[str, ...]) -> None:
        self.symbols = {symbol: SymbolBoard() for symbol in symbols}
        self.lag: int | None = None
        self.reconciled: Counter[str] = Counter()
        """Bars beside the vendor's klines since the start of the view, by status; a bar that is
        compared again counts again."""
        self.unreadable = 0
        """Records that their topic's schema cannot read: workers dead-letter them, of raw
        topics."""
        self._answered_at = time.monotonic()
        self._trouble = ""
        self._deployment = deployment
        self._shortest = deployment.topology.intervals[0]
        self._counts: deque[tuple[float, Counter[str]]] = deque([(time.monotonic(), Counter())])
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="board", daemon=True)

    def __enter__(self) -> "Board":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        # a question to a broker that does not answer is not waited for
        self._thread.join(1.0)

    def show(self, symbols: Iterable[str]) -> None:
        """Show these symbols from now on; what is known of those that stay is kept."""
        # in one piece: the board's thread and whoever draws it read it meanwhile
        self.symbols = {symbol: self.symbols.get(symbol) or SymbolBoard() for symbol in symbols}

    def trouble(self) -> str | None:
        """Return for how long the topics have not been followed, and why; None while they are."""
        silent = time.monotonic() - self._answered_at
        if silent < SILENCE:
            return None
        return (
            f"no answer from the broker for {silent:.0f} s{self._trouble and f' ({self._trouble})'}"
        )

    def rates(self) -> tuple[float, float]:
        """Return trades in and derived records out per second, over the last seconds."""
        began, earlier = self._counts[0]
        _, now = self._counts[-1]
        seconds = max(time.monotonic() - began, 0.001)
        counts = now - earlier
        trades = counts.pop(RAW_TRADE, 0)
        return trades / seconds, counts.total() / seconds

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001 - a view ends nothing: it says so, and tries again
                trouble = error.args[0].str() if isinstance(error, KafkaException) else str(error)
                if not self._trouble:
                    _log.warning("the live view reads nothing, and tries again: %s", trouble)
                self._trouble = trouble or type(error).__name__
                self._stopping.wait(RECONNECT)

    def _follow(self) -> None:
        names = self._deployment.topology
        schemas = {
            topic.name: load_schema(topic.schema)
            for topic in names.topics()
            if topic.schema is not None
        }
        topics = [names.name(RAW_TRADE), *(topic.name for topic in names.derived())]
        read = ValueReader(Registry(self._deployment.registry_url))
        lag = Lag(
            self._deployment.bootstrap, f"{names.prefix}infoway-processors", map(names.name, RAW)
        )
        consumer = ck.Consumer(
            {
                **client(self._deployment.bootstrap),
                "group.id": "board",
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        try:
            described = metadata_of(consumer).topics
            consumer.assign(
                [
                    TopicPartition(topic, part, ck.OFFSET_END)
                    for topic in topics
                    for part in described[topic].partitions
                ]
            )
            total: Counter[str] = Counter()
            looked = 0.0
            while not self._stopping.is_set():
                for message in consumer.consume(2000, 0.2):
                    error = message.error()
                    if error is not None:
                        if not error.retriable():
                            raise KafkaException(error)
                        continue
                    topic = cast(str, message.topic())
                    name = names.contract_name(topic)
                    value = message.value()
                    if value is not None:
                        total[name] += 1
                        try:
                            self._take(name, read(value, schemas[topic])[1])
                        except (RegistryError, UnreadableValue):
                            self.unreadable += 1
                now = time.monotonic()
                if now - looked > LAG_PERIOD:
                    self.lag = lag()
                    looked = self._answered_at = time.monotonic()
                    self._trouble = ""
                    self._counts.append((now, total.copy()))
                    while now - self._counts[0][0] > RATE_WINDOW:
                        self._counts.popleft()
        finally:
            consumer.close()

    def _take(self, name: str, record: dict[str, Any]) -> None:
        if name == RECONCILIATION:
            self.reconciled[record["status"]] += 1
        board = self.symbols.get(record.get("symbol", ""))
        if board is None:
            return
        if name == RAW_TRADE:
            board.last = record["price"]
        elif name == IMBALANCE:
            board.imbalance = record["imbalance_5"]
        elif name.startswith("infoway.vwap."):
            board.vwaps[record["window"]] = record["vwap"]
        elif name == f"infoway.bars.{self._shortest}":
            board.bar = record


def shown(units: int | None, digits: int = 4) -> str:
    """Return a decimal for people, cut to some digits behind the point; the topics have all of
    them."""
    if units is None:
        return "–"
    whole, point, fraction = to_text(units).partition(".")
    return f"{whole}{point}{fraction[:digits]}"
