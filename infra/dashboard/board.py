"""What the live view shows, read from the topics as any other service would read them; drawing it is another module's."""

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import confluent_kafka as ck
from confluent_kafka import KafkaException, TopicPartition

from infra.consuming import Lag, ValueReader
from infra.deployment import Deployment
from schemas.decimals import to_text
from schemas.registry import Registry
from schemas.security import client

RAW_TRADE, IMBALANCE = "infoway.raw.trade", "infoway.depth.imbalance"
RAW = (RAW_TRADE, "infoway.raw.depth", "infoway.raw.kline")
RECONCILIATION = "infoway.reconciliation"
RATE_WINDOW = 10.0
LAG_PERIOD = 1.0


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
        """Bars beside the vendor's klines since the start of the view, by status; a bar that is compared again counts again."""
        self.failure: Exception | None = None
        """Why the board stopped following, where it did."""
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
        self._thread.join()

    def show(self, symbols: Iterable[str]) -> None:
        """Show these symbols from now on; what is known of those that stay is kept."""
        # in one piece: the board's thread and whoever draws it read it meanwhile
        self.symbols = {symbol: self.symbols.get(symbol) or SymbolBoard() for symbol in symbols}

    def check(self) -> None:
        """Raise what ended the board, where something did."""
        if self.failure is not None:
            raise self.failure

    def rates(self) -> tuple[float, float]:
        """Return trades in and derived records out per second, over the last seconds."""
        began, earlier = self._counts[0]
        _, now = self._counts[-1]
        seconds = max(time.monotonic() - began, 0.001)
        counts = now - earlier
        trades = counts.pop(RAW_TRADE, 0)
        return trades / seconds, counts.total() / seconds

    def _run(self) -> None:
        try:
            self._follow()
        except Exception as error:  # noqa: BLE001 - handed to the main thread, which ends with it
            self.failure = error

    def _follow(self) -> None:
        names = self._deployment.topology
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
            described = consumer.list_topics(timeout=10).topics
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
                    name = names.contract_name(cast(str, message.topic()))
                    value = message.value()
                    if value is not None:
                        total[name] += 1
                        self._take(name, read(value)[1])
                now = time.monotonic()
                if now - looked > LAG_PERIOD:
                    looked, self.lag = now, lag()
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
    """Return a decimal for people, cut to some digits behind the point; the topics have all of them."""
    if units is None:
        return "–"
    whole, point, fraction = to_text(units).partition(".")
    return f"{whole}{point}{fraction[:digits]}"
