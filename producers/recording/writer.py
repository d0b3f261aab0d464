"""Writes what feeds receive into files: raw frames and connection events with their receive times,
one JSON object a line.

A file is one gzip stream, handed to the system every second, so that a killed process leaves all
but the last second readable. Every file can be read by itself: it begins by naming the connections
that were open when it was begun.
"""

import base64
import gzip
import json
import logging
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from io import BufferedWriter
from pathlib import Path
from typing import Any

import orjson

from producers.feed.metrics import FeedCounters
from producers.feed.outputs import Output
from producers.feed.protocol import FeedProtocol, Handover
from producers.feed.settings import FeedSettings
from producers.private_folder import private_folder
from producers.vendor.subscriptions import Send
from producers.vendor.symbols import Feed
from schemas.errors import InfowayError

FLUSH_PERIOD = 1.0
ROTATE_MIB = 256
NAME = "infoway-%Y%m%dT%H%M%S.%fZ.jsonl"
"""Of a file, by its start in UTC, before `.gz`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400_000_000

_log = logging.getLogger(__name__)


class RecordingFailed(InfowayError):
    """A recording cannot be written; nothing more is recorded."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path}: cannot write the recording ({reason}): make room, or name another folder"
        )
        self.path = path
        self.reason = reason


@dataclass(slots=True)
class _File:
    """The file being written: its UTC day by number, and bytes written before compression."""

    path: Path
    plain: BufferedWriter
    zipped: gzip.GzipFile
    day: int
    size: int = 0


class Recorder:
    """Records every feed of a process into one file at a time; its methods may be called from any
    thread.

    Files are `infoway-<UTC start time>.jsonl.gz` in `folder`; a new one begins after `rotate_mib`
    (MiB, before compression) and with each UTC day, and its name says a time after all that the
    files before it have, also where the clock was set back: so their names give their order. Raises
    RecordingFailed where the disk takes no more.
    """

    def __init__(self, folder: Path, rotate_mib: float = ROTATE_MIB) -> None:
        self.files: list[Path] = []
        """The files begun so far."""
        self.frames = 0
        """Frames recorded so far."""
        self._folder = folder
        self._rotate_at = int(rotate_mib * 1024 * 1024)
        self._file: _File | None = None
        self._latest_us = 0
        """The greatest time recorded so far."""
        self._failure: RecordingFailed | None = None
        self._connections: dict[str, tuple[Feed, int]] = {}
        """The open connections: each feed's name with the feed, and when it connected."""
        self._unflushed = False
        self._lock = threading.Lock()
        self._closing = threading.Event()
        try:
            private_folder(folder)
        except OSError as error:
            raise RecordingFailed(folder, error.strerror or str(error)) from error
        self._flusher = threading.Thread(target=self._flush_regularly, name="recorder", daemon=True)
        self._flusher.start()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def frame(self, feed: Feed, data: bytes, now_us: int) -> None:
        """Record one message of the vendor's, received at `now_us` (microseconds UTC)."""
        with self._lock:
            self.frames += 1
            self._write(_frame_line(feed.name, data, now_us), now_us)

    def pong(self, feed: Feed, now_us: int) -> None:
        """Record a WebSocket pong."""
        with self._lock:
            self._write(_line({"recv_us": now_us, "feed": feed.name, "event": "pong"}), now_us)

    def event(
        self,
        feed: Feed,
        event: str,
        now_us: int,
        reason: str = "",
        drained_at_us: int | None = None,
    ) -> None:
        """Record what became of a feed's connection: connected, subscribed, disconnected, ended;
        `drained_at_us` as in its protocol."""
        more = {
            name: value for name, value in (("reason", reason), ("read_us", drained_at_us)) if value
        }
        with self._lock:
            self._write(_event_line(feed, event, now_us, more), now_us)
            if event == "connected":
                self._connections[feed.name] = (feed, now_us)
            elif event in ("disconnected", "ended"):
                self._connections.pop(feed.name, None)

    def change(self, feed: Feed, taken_from: Mapping[str, str], now_us: int) -> None:
        """Record that a feed carries its symbols from now on; `taken_from` names the feeds that
        carried some of them until now."""
        with self._lock:
            self._write(
                _event_line(feed, "changed", now_us, {"from": taken_from} if taken_from else {}),
                now_us,
            )
            if feed.name in self._connections:
                self._connections[feed.name] = (feed, self._connections[feed.name][1])

    def close(self) -> None:
        """End the file; nothing may be recorded after."""
        self._closing.set()
        self._flusher.join()
        with self._lock:
            self._guarded(self._end_file)

    def _write(self, line: bytes, now_us: int) -> None:
        if self._failure is not None:
            raise self._failure
        self._guarded(lambda: self._append(line, now_us))

    def _append(self, line: bytes, now_us: int) -> None:
        file = self._file
        if (
            file is None
            or now_us // _DAY > file.day
            or (file.size and file.size + len(line) > self._rotate_at)
        ):
            self._end_file()
            file = self._file = self._begin_file(now_us)
        file.zipped.write(line)
        file.size += len(line)
        self._latest_us = max(self._latest_us, now_us)
        self._unflushed = True

    def _begin_file(self, now_us: int) -> _File:
        start = max(now_us, self._latest_us + 1)
        while True:
            path = self._folder / f"{_EPOCH + timedelta(microseconds=start):{NAME}}.gz"
            try:
                plain = path.open("xb")
            except FileExistsError:
                # another recorder's
                start += 1
            else:
                break
        self.files.append(path)
        file = _File(
            path,
            plain,
            gzip.GzipFile(filename="", mode="wb", fileobj=plain, mtime=0),
            now_us // _DAY,
        )
        for feed, since in self._connections.values():
            file.zipped.write(_event_line(feed, "connected", max(now_us, since), {"since": since}))
        return file

    def _end_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with file.plain:
                file.zipped.close()

    def _flush_regularly(self) -> None:
        while not self._closing.wait(FLUSH_PERIOD):
            with self._lock:
                try:
                    self._guarded(self._flush)
                except RecordingFailed as failure:
                    _log.error("%s", failure)
                    return

    def _flush(self) -> None:
        if self._file is not None and self._unflushed:
            self._file.zipped.flush()
            self._unflushed = False

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as error:
            # not as an OSError: the transport would take it for a lost connection
            self._failure = RecordingFailed(
                self._file.path if self._file else self._folder, error.strerror or str(error)
            )
            raise self._failure from error


class RecordedFeed(FeedProtocol):
    """A feed's protocol that has everything recorded before it takes it."""

    def __init__(
        self,
        recorder: Recorder,
        feed: Feed,
        settings: FeedSettings,
        partitions: Mapping[str, int],
        counters: FeedCounters,
        chance: random.Random,
    ) -> None:
        super().__init__(feed, settings, partitions, counters, chance)
        self._recorder = recorder

    def connected(self, now_us: int) -> list[Output]:
        """Begin a connection."""
        self._recorder.event(self.feed, "connected", now_us)
        return super().connected(now_us)

    def receive(self, data: bytes, now_us: int) -> list[Output]:
        """Take one message; `data` is without the key already."""
        before = self.subscribed
        self._recorder.frame(self.feed, data, now_us)
        outputs = super().receive(data, now_us)
        if self.subscribed and not before:
            self._recorder.event(self.feed, "subscribed", now_us)
        return outputs

    def pong(self, now_us: int) -> list[Output]:
        """Take a WebSocket pong."""
        self._recorder.pong(self.feed, now_us)
        return super().pong(now_us)

    def disconnected(
        self, now_us: int, reason: str, drained_at_us: int | None = None
    ) -> list[Output]:
        """End a connection that was lost, or note that none could be made."""
        self._recorder.event(self.feed, "disconnected", now_us, reason, drained_at_us)
        return super().disconnected(now_us, reason, drained_at_us)

    def change_symbols(
        self, symbols: tuple[str, ...], handovers: Mapping[str, Handover], now_us: int
    ) -> list[Output]:
        """Carry these symbols from now on."""
        self._recorder.change(
            replace(self.feed, symbols=symbols),
            {symbol: handover.feed for symbol, handover in handovers.items()},
            now_us,
        )
        return super().change_symbols(symbols, handovers, now_us)

    def ended(
        self, now_us: int, drained_at_us: int | None = None
    ) -> tuple[list[Output], list[Send]]:
        """End the feed in order."""
        self._recorder.event(self.feed, "ended", now_us, drained_at_us=drained_at_us)
        return super().ended(now_us, drained_at_us)


def _frame_line(feed: str, data: bytes, now_us: int) -> bytes:
    # verbatim, so that every number keeps its digits
    if b"\n" not in data and _is_object(data):
        return b'{"recv_us":%d,"feed":%s,"frame":%s}\n' % (now_us, orjson.dumps(feed), data)
    try:
        return _line({"recv_us": now_us, "feed": feed, "text": data.decode()})
    except UnicodeDecodeError:
        return _line({"recv_us": now_us, "feed": feed, "bytes": base64.b64encode(data).decode()})


def _is_object(data: bytes) -> bool:
    try:
        return isinstance(orjson.loads(data), dict)
    except orjson.JSONDecodeError:
        return False


def _event_line(feed: Feed, event: str, now_us: int, more: Mapping[str, Any]) -> bytes:
    head = {"recv_us": now_us, "feed": feed.name, "business": feed.business, "event": event}
    return _line({**head, "symbols": feed.symbols, **more})


def _line(document: Mapping[str, Any]) -> bytes:
    return (
        json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
        + b"\n"
    )
