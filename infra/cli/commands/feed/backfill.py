"""Backfilling a deployment: healing while feeds run, with what the log knows of the time before, and the command `backfill`."""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import cast

import confluent_kafka as ck
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from infra.consuming import ValueReader, read_to_end
from infra.deployment import Deployment
from infra.planning import chosen_feeds
from producers.answers import RestError
from producers.backfill import RAW_TRADE, Healer, final_until, pages, publish_klines
from producers.counters import FeedCounters
from producers.partition import partition_of
from producers.publish import Publisher, Sink, open_producer
from producers.records import FEED_STATUS
from producers.rest import MAX_KLINES, Rest
from schemas.control import KLINE_LENGTHS, UnreadableControl, read_control
from schemas.registry import Registry, UnknownSchema
from schemas.wire import UnreadableValue

_log = logging.getLogger(__name__)

_TAIL = 2_000
"""Records of a partition that are looked through for its feeds' last signs of life: marks come every few seconds."""


class BackfillRunning(RuntimeError):
    """Another process does the same."""


class BadPeriod(ValueError):
    """A time, a period or an interval that cannot be backfilled."""


def healing(
    deployment: Deployment, address: str, key: str, memory: Path | None
) -> Callable[[Sink], Healer]:
    """Return what makes the healer of a producer; with a memory gaps reach back to what the log has of its predecessor, and what an
    earlier process had not healed yet is taken up."""
    lives, carriers = _last_lives(deployment) if memory else ({}, {})
    count = deployment.partitions[RAW_TRADE]

    def last_life(feed: str, symbol: str) -> int | None:
        # changes of the list may have put the symbol on another feed than a fresh plan does
        carrier = carriers.get(symbol, feed)
        # too early is no harm: what was seen whole is not healed
        return lives.get(
            (partition_of(symbol.encode(), count), carrier), lives.get((None, carrier))
        )

    def heals(sink: Sink) -> Healer:
        return Healer(Rest(address, key), sink, last_life, memory)

    return heals


def backfill(
    deployment: Deployment,
    symbols: str,
    period: tuple[str, str | None],
    interval: str,
    address: str,
    key: str,
    state: Path,
) -> int:
    """Publish the final klines of a period, and the heals of its bars; 1 where a symbol could not be had.

    `period` is from and to (now without one) as ISO 8601 times with their offset. What is done is written into the folder
    `state` page by page, so that the same command goes on where it was killed. Raises BadPeriod, BadSymbols, RestError,
    BackfillRunning.
    """
    if interval not in KLINE_LENGTHS:
        raise BadPeriod(
            f"--interval {interval}: the vendor takes a time only for klines of {', '.join(KLINE_LENGTHS)}"
        )
    start, end = _time("--from", period[0]), final_until(time.time_ns() // 1_000_000, interval)
    if period[1]:
        end = min(end, _time("--to", period[1]))
    if start >= end:
        raise BadPeriod(
            f"--from {period[0]} is not before --to {period[1] or 'now'}, or no {interval} kline between them is final yet"
        )
    feeds = chosen_feeds(symbols, live=True)
    chosen = [(feed, symbol) for feed in feeds for symbol in feed.symbols]
    publisher = Publisher(
        open_producer(deployment.bootstrap),
        deployment.topology,
        deployment.schema_ids,
        threading.Event(),
    )
    counters = FeedCounters("rest")
    span = MAX_KLINES * KLINE_LENGTHS[interval]
    missing: list[str] = []
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
        period[1] or "now",
    ]
    with (
        _Done(state, what, interval, start) as done,
        Rest(address, key) as rest,
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        rest.package_info()
        shown = progress.add_task(
            "klines, pages",
            total=sum(-(-(end - done.until(symbol)) // span) for _, symbol in chosen),
        )
        for feed, symbol in chosen:
            connection = f"backfill-{time.time_ns() // 1000}"
            try:
                for until, klines in pages(
                    rest, feed.business, symbol, interval, done.until(symbol), end
                ):
                    publish_klines(
                        publisher,
                        counters,
                        klines,
                        feed.name,
                        feed.business,
                        connection,
                        time.time_ns() // 1000,
                    )
                    publisher.flush()
                    done.note(symbol, until)
                    progress.advance(shown)
            except RestError as error:
                if error.refused or error.retryable:
                    raise
                missing.append(f"{symbol}: {error}")
    print(
        f"{counters.acknowledged} klines of {interval} published, {len(chosen) - len(missing)} of {len(chosen)} symbols"
    )
    if interval not in deployment.topology.intervals:
        print(
            f"no bars are healed: {interval} is none of the bar intervals {', '.join(deployment.topology.intervals)}"
        )
    for line in missing:
        print(f"not to be had: {line}")
    if not missing:
        done.forget()
    return int(bool(missing))


class _Done:
    """Until when each symbol of a command is done, in a file that outlives the command where it is killed; one command at a time has it."""

    def __init__(self, folder: Path, what: list[object], interval: str, start: int) -> None:
        """`what` tells this command from every other. Raises BackfillRunning."""
        self._path = (
            folder / f"backfill-{interval}-{sha256(orjson.dumps(what)).hexdigest()[:12]}.json"
        )
        self._start = start
        folder.mkdir(parents=True, exist_ok=True)
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


def _last_lives(deployment: Deployment) -> tuple[dict[tuple[int | None, str], int], dict[str, str]]:
    """Return per partition of the raw trades and feed the last sign of life that its last records have of it, in ms UTC, in the place of
    None that of its last status; and each symbol's feed."""
    read = ValueReader(Registry(deployment.registry_url))
    lives: dict[tuple[int | None, str], int] = {}
    carriers: dict[str, str] = {}
    # a busy feed leaves no place among a partition's last records to one that ended long before
    for message in read_to_end(deployment.bootstrap, deployment.topology.name(FEED_STATUS)):
        try:
            status = read(message.value() or b"")[1]
        except (UnknownSchema, UnreadableValue):
            continue  # it tells of no life
        lives[None, status["feed"]] = status["ts_to"] or status["ts_from"]
        carriers.update(dict.fromkeys(status["symbols"], status["feed"]))
    for message in read_to_end(
        deployment.bootstrap, deployment.topology.name(RAW_TRADE), last=_TAIL
    ):
        sign = _sign_of_life(message, read)
        if sign is not None:
            place, ts_recv = (cast(int, message.partition()), sign[0]), sign[1]
            lives[place] = max(lives.get(place, 0), ts_recv // 1000)
            key = message.key()
            if key is not None:
                carriers[key.decode() if isinstance(key, bytes) else key] = sign[0]
    return lives, carriers


def _sign_of_life(message: ck.Message, read: ValueReader) -> tuple[str, int] | None:
    """Return a record's feed and receive time (microseconds UTC); None for what cannot be read: it tells of no life."""
    value = message.value()
    try:
        if value is None:
            control = read_control(message.headers())
            return None if control.kind == "heal" else (control.feed, control.ts_recv)
        record = read(value)[1]
        return record["feed"], record["ts_recv"]
    except (KeyError, UnknownSchema, UnreadableControl, UnreadableValue):
        return None
