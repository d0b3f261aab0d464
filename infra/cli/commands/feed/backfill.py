"""`infoway-streams backfill`: publishes the vendor's klines of a period, and heals the bars that an
outage cut."""

import argparse
import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from infra.cli.checks import feed_mistakes, folder, reached_cluster_mistakes, topology_mistakes
from infra.cli.command import Command
from infra.cli.options import add_rest_url, add_topology
from infra.ingest.planning import chosen_feeds
from infra.ingest.producer_process import KeyMissing, api_key
from infra.runtime.deployment import Deployment, existing
from producers.delivery.client import open_producer
from producers.delivery.publisher import Publisher
from producers.feed.metrics import FeedCounters
from producers.healing.past_klines import final_until, named, pages, publish_klines
from producers.private_folder import private_folder
from producers.vendor.answers import BadKline, RestError
from producers.vendor.rest import LIVE_REST, MAX_KLINES, Rest
from producers.vendor.symbols import Feed
from schemas.control import KLINE_LENGTHS
from schemas.errors import InfowayError, SettingsWrong
from schemas.printable import printable
from schemas.topics import Topology

_log = logging.getLogger(__name__)


class BackfillRunning(InfowayError):
    """Another process does the same."""


class BadPeriod(SettingsWrong):
    """A time, a period or an interval that cannot be backfilled."""


@dataclass(frozen=True, slots=True)
class BackfillOptions:
    """What `backfill` was given."""

    topology: Topology
    symbols: str
    start: str
    """ISO 8601 with an offset, as `to`."""
    to: str | None
    """None: now."""
    interval: str
    state: Path
    """The folder that remembers how far a killed backfill came."""
    rest_url: str | None = None


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument(
        "--symbols",
        required=True,
        help="comma-separated symbols, each to its business; SYMBOL:BUSINESS overrules",
    )
    command.add_argument(
        "--from",
        dest="start",
        required=True,
        help="begin of the period: 2026-11-20T01:30Z or with another offset",
    )
    command.add_argument("--to", help="end of the period (default: now)")
    command.add_argument(
        "--interval",
        default="1m",
        help="of the klines; heals the bars of the same interval, and coarser ones (default: 1m)",
    )
    command.add_argument(
        "--state",
        type=Path,
        default=Path("data"),
        help="folder where a killed backfill left how far it was (default: data)",
    )
    add_rest_url(command)
    add_topology(command)


def period_mistakes(options: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong with the period."""
    try:
        period_ms(options.start, options.to, options.interval)
    except BadPeriod as error:
        yield str(error)


def backfill(options: BackfillOptions) -> int:
    """Publish klines of the past, and heal the bars that lack them; without a key from a
    simulator's REST."""
    key = api_key()
    if not key and options.rest_url is None:
        raise KeyMissing(
            "INFOWAY_API_KEY is not set: set it, or name a simulator by --rest-url http://HOST:PORT"
        )
    return publish_period(
        existing(options.topology), options, options.rest_url or LIVE_REST, key or "simulator"
    )


COMMAND = Command(
    "backfill",
    "publish the vendor's klines of a period, and heal bars that an outage cut",
    "backfill --symbols BTCUSDT --from 2026-11-20T01:30Z --to 2026-11-20T03:00Z",
    add_options,
    BackfillOptions,
    backfill,
    (
        topology_mistakes,
        reached_cluster_mistakes,
        feed_mistakes,
        period_mistakes,
        folder("state"),
    ),
    asks_cluster=True,
    reads_back=True,
)


def publish_period(deployment: Deployment, options: BackfillOptions, address: str, key: str) -> int:
    """Publish the final klines of a period, and the heals of its bars; return 1 if a symbol, or a
    page of its klines, could not be had.

    Klines that cannot be read are dead letters, counted and named; the others are published.

    What is done is written into the folder `state` page by page: the same command continues where
    it was killed. Raises BadPeriod, BadSymbols, RestError, BackfillRunning.
    """
    interval = options.interval
    start, end = period_ms(options.start, options.to, interval)
    chosen = [
        (feed, symbol)
        for feed in chosen_feeds(options.symbols, live=True)
        for symbol in feed.symbols
    ]
    publisher = Publisher(
        open_producer(deployment.bootstrap),
        deployment.topology,
        deployment.schema_ids,
        threading.Event(),
    )
    counters = FeedCounters("rest")
    page_ms = MAX_KLINES * KLINE_LENGTHS[interval]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    what = [
        deployment.bootstrap,
        deployment.topology.prefix,
        address,
        interval,
        start,
        options.to or "now",
    ]
    with (
        _Done(options.state, what, interval, start) as done,
        Rest(address, key) as rest,
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        rest.package_info()
        shown = progress.add_task(
            "klines, pages",
            total=sum(-(-(end - done.until(symbol)) // page_ms) for _, symbol in chosen),
        )
        period = _Period(publisher, counters, rest, interval, end, done)
        for feed, symbol in chosen:
            for _ in period.published(feed, symbol):
                progress.advance(shown)
    period.report(deployment.topology.intervals, len(chosen))
    if not period.missing:
        done.forget()
    return int(bool(period.missing))


@dataclass(slots=True)
class _Period:
    """The klines of a period, and what could not be published as it should have been."""

    publisher: Publisher
    counters: FeedCounters
    rest: Rest
    interval: str
    end: int
    done: "_Done"
    missing: list[str] = field(default_factory=list)
    """A line for each symbol without some or all of its klines."""
    unreadable: dict[str, list[BadKline]] = field(default_factory=dict)

    def published(self, feed: Feed, symbol: str) -> Iterator[None]:
        """Publish a symbol's klines, and yield after each page. Raises RestError if it concerns
        every symbol."""
        try:
            yield from self._pages(feed, symbol)
        except RestError as error:
            if error.refused or error.retryable:
                raise
            self.missing.append(f"{symbol}: {error}")

    def _pages(self, feed: Feed, symbol: str) -> Iterator[None]:
        connection = f"backfill-{time.time_ns() // 1000}"
        begin, lost = self.done.until(symbol), ""
        for until, page in pages(self.rest, feed.business, symbol, self.interval, begin, self.end):
            now = time.time_ns() // 1000
            publish_klines(
                self.publisher, self.counters, page, feed.name, feed.business, connection, now
            )
            self.publisher.flush()
            bad = [each for each in page if isinstance(each, BadKline)]
            if bad and bad[0].data is None:
                lost = lost or bad[0].reason
            elif bad:
                self.unreadable.setdefault(symbol, []).extend(bad)
            if not lost:
                # the next run of the command asks for a lost page again, and for what is behind it
                self.done.note(symbol, until)
            yield
        if lost:
            self.missing.append(f"{symbol}: {lost}; what came behind it is published")

    def report(self, intervals: Sequence[str], symbols: int) -> None:
        """Print what was published, and what was not."""
        print(
            f"{self.counters.acknowledged} klines of {self.interval} published, "
            f"{symbols - len(self.missing)} of {symbols} symbols"
        )
        if self.interval not in intervals:
            print(
                f"no bars are healed: {self.interval} is none of the bar intervals "
                f"{', '.join(intervals)}"
            )
        if self.counters.unreadable:
            print(
                f"{self.counters.unreadable} klines could not be read, and are dead letters: "
                f"{self.counters.dead_lettered} of them"
            )
        for symbol, bad in self.unreadable.items():
            print(f"not readable: {symbol}: {named(bad)}")
        for line in self.missing:
            print(printable(f"not to be had: {line}"))


def period_ms(from_text: str, to_text: str | None, interval: str) -> tuple[int, int]:
    """Return the begin and the end of a period, ms UTC, as far as its klines are final; raises
    BadPeriod."""
    if interval not in KLINE_LENGTHS:
        raise BadPeriod(
            f"--interval {interval}: the vendor takes a time only for klines of "
            f"{', '.join(KLINE_LENGTHS)}"
        )
    start, end = _time("--from", from_text), final_until(time.time_ns() // 1_000_000, interval)
    if to_text:
        end = min(end, _time("--to", to_text))
    if start >= end:
        raise BadPeriod(
            f"--from {from_text} is not before --to {to_text or 'now'}, or no {interval} "
            "kline between them is final yet"
        )
    return start, end


class _Done:
    """Until when each symbol of a command is done, in a file that outlives the command where it is
    killed; one command at a time has it."""

    def __init__(self, folder: Path, what: list[object], interval: str, start: int) -> None:
        """`what` is what makes this command differ from every other. Raises BackfillRunning."""
        self._path = (
            folder / f"backfill-{interval}-{sha256(orjson.dumps(what)).hexdigest()[:12]}.json"
        )
        self._start = start
        private_folder(folder)
        self._lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise BackfillRunning(
                f"the same backfill runs already ({self._path}): wait for it, or end it"
            ) from None
        self._until = self._read()

    def __enter__(self) -> "_Done":
        return self

    def __exit__(self, *_: object) -> None:
        self._path.with_suffix(".lock").unlink()
        os.close(self._lock)

    def until(self, symbol: str) -> int:
        """Return until when (ms UTC) a symbol is done."""
        return self._until.get(symbol, self._start)

    def note(self, symbol: str, until: int) -> None:
        """Keep that a symbol is done until a time."""
        self._until[symbol] = until
        written = self._path.with_suffix(".new")
        written.write_bytes(orjson.dumps(self._until))
        written.replace(self._path)

    def forget(self) -> None:
        """Remove the file: the command has done all."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, int]:
        if not self._path.exists():
            return {}
        try:
            found = orjson.loads(self._path.read_bytes())
            return {str(symbol): int(until) for symbol, until in found.items()}
        except (ValueError, TypeError, AttributeError) as error:
            # the same klines again change nothing
            _log.warning(
                "%s cannot be read (%s): the whole period is published anew", self._path, error
            )
            return {}


def _time(option: str, text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        found = int(moment.timestamp()) * 1000
    except (ValueError, OverflowError) as error:
        raise BadPeriod(
            f"{option} {text}: write a time like 2026-11-20T01:30Z or 2026-11-20T09:30+08:00"
        ) from error
    if moment.tzinfo is None:
        raise BadPeriod(f"{option} {text}: say in which offset, as {text}Z for UTC or {text}+08:00")
    if found < 0:
        raise BadPeriod(f"{option} {text}: a time after 1970")
    return found
