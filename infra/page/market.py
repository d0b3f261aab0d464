"""All that the page knows, owned by the server's event loop: rows, feeds, and the series that
somebody looks at."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from confluent_kafka import KafkaException

from infra.page.follow import Told
from infra.page.rows import WatchRows
from infra.page.series import Series, Shown
from schemas.decimals import NotADecimal
from schemas.errors import InfowayError
from schemas.printable import printable
from schemas.topics import Topology

MOST_SERIES = 64
"""Series that are kept up to date; whoever asks for another one drops the one not asked for
longest, and its clients load it again."""

Past = Callable[[str, str, bool], Series]
"""Reads the past of a symbol and an interval: its bars, or its lines; called in a thread."""
WANTED_S = 2.0
"""Seconds after which a series that no client has asked for is not read any more."""


class Market:
    """Takes batches of records and asks for the past of what is shown."""

    def __init__(self, names: Topology, past: Past) -> None:
        self.names = names
        self.rows = WatchRows(names.intervals[0])
        self.version = 0
        """Goes up by one with each batch."""
        self.newest_ms = 0
        """When Kafka got the newest record."""
        self.trouble = ""
        """Why nothing is read, empty while something is."""
        self.trouble_since = 0.0
        self.unreadable_before: Callable[[], int] = lambda: 0
        """Returns how many records their topic's schema could not read."""
        self.without_price = 0
        """Raw trades without a price."""
        self._past = past
        self._series: OrderedDict[tuple[str, str], Series] = OrderedDict()
        self._of_symbol: dict[str, list[Series]] = {}
        self._reading = ThreadPoolExecutor(1, "history")
        self._loading: set[asyncio.Task[None]] = set()

    def take(self, batch: Sequence[Told]) -> None:
        """Take a batch of records."""
        self.version += 1
        version, of_symbol = self.version, self._of_symbol
        for name, record, at_ms in batch:
            if at_ms > self.newest_ms:
                self.newest_ms = at_ms
            try:
                self.rows.take(name, record, at_ms, version)
            except NotADecimal:
                self.without_price += 1
                continue
            for series in of_symbol.get(record.get("symbol", ""), ()):
                series.take(name, record, version)

    def say(self, trouble: str) -> None:
        """Note why nothing is read; an empty text says that something is."""
        self.trouble, self.trouble_since = trouble, time.monotonic()

    def series(self, symbol: str, interval: str) -> Series:
        """Return a series that is kept up to date from now on; its past is being read."""
        key = symbol, interval
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = Series(symbol, interval, self.names.windows)
            found.asked_at = time.monotonic()
            self._of_symbol.setdefault(symbol, []).append(found)
            task = asyncio.get_running_loop().create_task(self._load(found))
            self._loading.add(task)
            task.add_done_callback(self._loading.discard)
            while len(self._series) > MOST_SERIES:
                self._drop(*next(iter(self._series)))
        self._series.move_to_end(key)
        return found

    def status(self) -> Shown:
        """Return what the page says above everything else."""
        return {
            "now_ms": int(time.time() * 1000),
            "newest_ms": self.newest_ms,
            "source": self.rows.source,
            "trouble": self.trouble,
            "trouble_s": round(time.monotonic() - self.trouble_since) if self.trouble else 0,
            "left_out": self.rows.left_out,
            "unreadable": self.without_price + self.unreadable_before(),
            "watermarks": self.rows.watermarks(),
        }

    async def close(self) -> None:
        """End the reading of pasts."""
        for task in self._loading:
            task.cancel()
        self._reading.shutdown(wait=False, cancel_futures=True)

    async def _load(self, series: Series) -> None:
        """Read the past of a series: bars first, then lines, if somebody still looks at it."""
        loop = asyncio.get_running_loop()
        try:
            for lines in (False, True):
                before = await loop.run_in_executor(self._reading, self._part, series, lines)
                if before is None:
                    self._forget(series)
                    return
                self.version += 1
                series.merge(before, self.version)
                series.loaded = True
        except (KafkaException, InfowayError) as error:
            said = error.args[0].str() if isinstance(error, KafkaException) else str(error)
            series.failure = printable(said)
            self._forget(series)

    def _part(self, series: Series, lines: bool) -> Series | None:
        """Return a part of a series' past; None if nobody looks at it any more: whoever goes
        through the list leaves many behind."""
        if time.monotonic() - series.asked_at > WANTED_S:
            return None
        return self._past(series.symbol, series.interval, lines)

    def _forget(self, series: Series) -> None:
        """Forget a series whose past is not known whole: the next one who asks has it read."""
        series.failure = series.failure or "left before it was read"
        if self._series.get((series.symbol, series.interval)) is series:
            self._drop(series.symbol, series.interval)

    def _drop(self, symbol: str, interval: str) -> None:
        series = self._series.pop((symbol, interval), None)
        if series is not None:
            self._of_symbol[symbol].remove(series)
            if not self._of_symbol[symbol]:
                del self._of_symbol[symbol]


def handed_over(
    loop: asyncio.AbstractEventLoop, take: Callable[[Sequence[Told]], None], timeout: float = 10.0
) -> Callable[[Sequence[Told]], None]:
    """Return a function for another thread that gives a batch to `take` in the loop and returns
    once it was taken: a busy loop holds the reading back."""

    def hand(batch: Sequence[Told]) -> None:
        done: Future[None] = Future()

        def run() -> None:
            try:
                take(batch)
            finally:
                done.set_result(None)

        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(run)
            done.result(timeout)

    return hand
