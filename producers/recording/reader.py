"""Reads recordings of the vendor's frames for replay and simulator: JSON lines, plain or gz.

A line is `{"recv_ms": …, "frame": {…}}`, or one of the recorder's: `{"recv_us": …, "feed": …,
"frame": {…}}`, with `text` or `bytes` (base64) instead of `frame` if it is no JSON
object, or with `event` for a change of a connection.
"""

import base64
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeGuard

import orjson

from producers.recording.writer import NAME
from schemas.errors import InfowayError

EVENTS = frozenset(("connected", "subscribed", "changed", "pong", "disconnected", "ended"))

MAX_LINE = 32 * 1024 * 1024
"""Bytes of a line. The longest message has 1 MiB, its escaped text up to six times that; other
recorders may write longer lines."""
LONGEST = 1024 * 1024 * 1024
"""Bytes after which a line without an end shows that its file is no recording."""

_CUT = re.compile(
    rb'\s*\{\s*"(?P<unit>recv_ms|recv_us)"\s*:\s*(?P<received>\d{1,18})\s*,\s*(?:"feed"\s*:\s*"(?P<feed>[^"\\\x00-\x1f\x7f-\xff]+)"\s*,\s*)?'
    rb'"frame"\s*:(?P<frame>\s*\{.*\}\s*)\}\s*',
    re.DOTALL,
)


class UnreadableRecording(InfowayError, OSError):
    """A file that cannot be read at all."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}: name a recording, JSON lines, plain or gz")
        self.path = path
        self.reason = reason


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """One message of the vendor: receive time in microseconds UTC, bytes, and the feed, if it is
    known."""

    recv_us: int
    frame: bytes
    feed: str = ""

    @property
    def recv_ms(self) -> int:
        """Receive time in milliseconds UTC."""
        return self.recv_us // 1000


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """A change of a feed's connection; `since` is when it was made, if it was open before the file
    begins.

    `taken_from` names the feed that carried each symbol before a change of the symbols.
    """

    recv_us: int
    feed: str
    event: str
    business: str = ""
    symbols: tuple[str, ...] = ()
    reason: str = ""
    since: int | None = None
    read_us: int | None = None
    """Of a disconnect or an end: when the socket was last read empty."""
    taken_from: Mapping[str, str] = field(default_factory=dict)


RecordingEntry = RecordedFrame | RecordedEvent


@dataclass(frozen=True, slots=True)
class BrokenLine:
    """A line that is neither frame nor event, or where a file breaks off."""

    path: Path
    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Recording:
    """All frames and events by receive time, the frames alone, and the broken lines."""

    entries: list[RecordingEntry]
    frames: list[RecordedFrame]
    broken: list[BrokenLine]


class _NoEntry(Exception):
    """Why a line is neither frame nor event."""


def read_recordings(paths: Iterable[Path]) -> Recording:
    """Return what is in these files, sorted stably by receive time; raises UnreadableRecording.

    A recorder's lines keep the order in which it wrote them, within and across files, even if
    the clock was set back.
    """
    found: list[tuple[int, RecordingEntry]] = []
    broken: list[BrokenLine] = []
    for path in paths:
        _read(path, found, broken)
    found.sort(key=lambda each: each[0])
    entries = [entry for _, entry in found]
    return Recording(
        entries, [entry for entry in entries if isinstance(entry, RecordedFrame)], broken
    )


def _read(path: Path, found: list[tuple[int, RecordingEntry]], broken: list[BrokenLine]) -> None:
    number = 0
    # the time in a recorder's file name is later than all of its earlier files; files of several
    # recorders are merged by it
    begin = _begin(path)
    latest: dict[str, int] = {}
    try:
        with path.open("rb") as plain:
            zipped = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            for number, line in enumerate(
                _lines(path, gzip.GzipFile(fileobj=plain) if zipped else plain), 1
            ):
                if len(line) > MAX_LINE:
                    broken.append(BrokenLine(path, number, f"more than {MAX_LINE} bytes"))
                elif line.strip():
                    try:
                        entry = _entry(line)
                    except _NoEntry as error:
                        broken.append(BrokenLine(path, number, str(error)))
                        continue
                    place = entry.recv_us
                    if entry.feed:
                        # a recorder's lines stand in their feed's order: a clock that was set back
                        # must not change it
                        place = latest[entry.feed] = max(place, latest.get(entry.feed, begin))
                    found.append((place, entry))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        broken.append(BrokenLine(path, number + 1, f"the file breaks off here ({error})"))
    except UnreadableRecording:
        raise
    except OSError as error:
        raise UnreadableRecording(path, error.strerror or str(error)) from error


def _lines(path: Path, file: gzip.GzipFile | BufferedReader) -> Iterator[bytes]:
    """Yield the lines of a file; of a longer one the first MAX_LINE + 1 bytes, however much a gz
    unpacks to."""
    while line := file.readline(MAX_LINE + 1):
        size, rest = len(line), line
        while size > MAX_LINE and not rest.endswith(b"\n") and (rest := file.readline(MAX_LINE)):
            size += len(rest)
            if size > LONGEST:
                raise UnreadableRecording(path, f"a line has more than {LONGEST} bytes")
        yield line


def _begin(path: Path) -> int:
    """Return the time in a recorder's file name, microseconds UTC; 0 for other names."""
    try:
        begin = datetime.strptime(path.name.removesuffix(".gz"), NAME).replace(tzinfo=UTC)
    except ValueError:
        return 0
    return (begin - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _entry(line: bytes) -> RecordingEntry:
    cut = _CUT.fullmatch(line)
    # the greedy cut takes in what follows the frame, where anything does: then it is no JSON
    if (
        cut is not None
        and (cut["unit"] == b"recv_us") == (cut["feed"] is not None)
        and _is_object(cut["frame"])
    ):
        at = int(cut["received"])
        if at > 0:
            return (
                RecordedFrame(at, cut["frame"], cut["feed"].decode())
                if cut["feed"]
                else _of_ms(at, cut["frame"])
            )
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _NoEntry(f"no JSON ({error})") from error
    if not isinstance(document, dict):
        raise _NoEntry("no JSON object")
    if "recv_us" in document:
        return _recorders(line, document)
    received = document.get("recv_ms")
    if not _is_time(received):
        raise _NoEntry("recv_ms is missing or no positive integer")
    if not isinstance(document.get("frame"), dict):
        raise _NoEntry("frame is missing or no JSON object")
    return _of_ms(received, _written_again(line))


def _recorders(line: bytes, document: dict[str, Any]) -> RecordingEntry:
    received, feed = document["recv_us"], document.get("feed")
    if not _is_time(received):
        raise _NoEntry("recv_us is no positive integer")
    if not isinstance(feed, str) or not feed:
        raise _NoEntry("feed is missing")
    if "event" in document:
        return _event(received, feed, document)
    frame, text, encoded = document.get("frame"), document.get("text"), document.get("bytes")
    if isinstance(frame, dict):
        return RecordedFrame(received, _written_again(line), feed)
    if isinstance(text, str):
        return RecordedFrame(received, text.encode(), feed)
    if isinstance(encoded, str):
        try:
            return RecordedFrame(received, base64.b64decode(encoded, validate=True), feed)
        except ValueError as error:
            raise _NoEntry(f"bytes are no base64 ({error})") from error
    raise _NoEntry("neither an event nor a frame, text or bytes")


def _event(received: int, feed: str, document: dict[str, Any]) -> RecordedEvent:
    event, symbols = document["event"], document.get("symbols", [])
    since, read_us = document.get("since"), document.get("read_us")
    if not isinstance(event, str) or event not in EVENTS:
        raise _NoEntry(f"event {event!r:.40} is not known")
    if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
        raise _NoEntry("symbols are no list of texts")
    if since is not None and not _is_time(since):
        raise _NoEntry("since is no positive integer")
    if read_us is not None and not _is_time(read_us):
        raise _NoEntry("read_us is no positive integer")
    taken_from = document.get("from", {})
    if not isinstance(taken_from, dict) or not all(
        isinstance(name, str) for name in taken_from.values()
    ):
        raise _NoEntry("from names no feeds by symbol")
    business, reason = str(document.get("business") or ""), str(document.get("reason") or "")
    return RecordedEvent(
        received, feed, event, business, tuple(symbols), reason, since, read_us, taken_from
    )


def _of_ms(received: int, frame: bytes) -> RecordedFrame:
    return RecordedFrame(received * 1000, frame.strip())


def _is_time(value: object) -> TypeGuard[int]:
    return type(value) is int and value > 0


def _is_object(data: bytes) -> bool:
    try:
        return isinstance(orjson.loads(data), dict)
    except orjson.JSONDecodeError:
        return False


def _written_again(line: bytes) -> bytes:
    # numbers stay text: as a float, 98.150 would lose its zero and a long integer its last digits
    try:
        return orjson.dumps(
            json.loads(line, parse_float=orjson.Fragment, parse_int=orjson.Fragment)["frame"]
        )
    except (RecursionError, orjson.JSONEncodeError) as error:
        raise _NoEntry("frame is nested too deep") from error
