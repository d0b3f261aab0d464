"""A bounded queue of records on disk, for the time that the broker is away; it knows files, not Kafka.

A folder of segments, numbered in their order, each a sequence of length, CRC-32 and entry. What is appended has been handed to
the operating system: it outlives the process, though not a power failure. A torn entry at the end of a segment is cut off.
"""

import fcntl
import os
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import orjson

SEGMENT = 4 * 1024 * 1024
_FIRST = 1_000_000
"""Number of the first segment: below it there is room for what is put before it."""
_HEAD = 8


class SpoolUnusable(ValueError):
    """A folder that cannot be the spool of this process."""


class Entry(NamedTuple):
    """A record ready for Kafka. `kind`: raw, rest, dead (these count for `feed`), mark or other; `ts` is its receipt in ms UTC."""

    topic: str
    key: str | None
    value: bytes | None
    partition: int
    headers: Any
    """A list of pairs of name and bytes, or None."""
    kind: str
    feed: str
    connection: str = ""
    sequence: int = 0
    ts: int = 0


class Segment:
    """One file of the spool: `left` of its entries are not acknowledged yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.left = 0


class Spool:
    """First in, first out, over restarts: an entry is gone once the segment that has it is read and acknowledged to its end."""

    def __init__(self, folder: Path, limit: int, identity: str) -> None:
        """Take the folder over, with what an earlier process left in it; `limit` in bytes, `identity` says whose records these are.

        Raises SpoolUnusable where the folder cannot be written, belongs to a running process, or to other records.
        """
        self.folder, self.limit = folder, limit
        self._identity = identity
        self.torn = 0
        """Entries that an earlier process had not written to their end."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise SpoolUnusable(
                f"the spool {folder} cannot be used ({error.strerror}): name another folder by INFOWAY_SPOOL"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise SpoolUnusable(
                f"the spool {folder} belongs to another producer that runs: give each its own by INFOWAY_SPOOL"
            ) from error
        self._segments: deque[Segment] = deque()
        self._next: deque[tuple[Segment, bytes]] = deque()
        self._unread: deque[Segment] = deque()
        self._writing: tuple[Segment, int] | None = None
        self.holes: list[Segment | None] = self._take_over(identity)
        """Where entries of an earlier process are lost: before all others (None), as it ended without `close` and had not spooled them
        yet, and behind what is left of a segment that was torn or damaged."""

    @property
    def size(self) -> int:
        """Bytes of the segments on disk."""
        return sum(segment.size for segment in self._segments)

    @property
    def empty(self) -> bool:
        """Whether every entry has been read."""
        return not self._next and not self._unread

    def beside(self, name: str) -> Path:
        """Return the path of a file for what else a producer of these records, and of no others, has to remember."""
        return self.folder / f"{name}-{sha256(self._identity.encode()).hexdigest()[:12]}.json"

    def append(self, entry: Entry) -> None:
        """Put an entry at the end; raises OSError, and then nothing of it stays."""
        if self._writing is None or self._writing[0].size >= SEGMENT:
            self._begin(self._segments[-1].path if self._segments else None)
        assert self._writing is not None
        segment, file = self._writing
        self._write(file, segment, [entry])
        if segment not in self._unread:
            self._unread.append(segment)

    @property
    def left(self) -> int:
        """Entries that have not been acknowledged."""
        return sum(segment.left for segment in self._segments)

    def put_back(self, entries: Sequence[Entry]) -> None:
        """Put what was read or never here, and not delivered, before what is unread, for the next process; what was read leaves
        with it. Raises OSError."""
        left = [*entries, *(_entry(blob) for _, blob in self._next)]
        read = [segment for segment in self._segments if segment not in self._unread]
        if left:
            self.put_first(left)
        self._next.clear()
        for segment in read:
            segment.path.unlink()
            self._segments.remove(segment)

    def put_first(self, entries: Sequence[Entry]) -> None:
        """Put entries before all others, in their order; raises OSError."""
        before = int(self._segments[0].path.stem) if self._segments else _FIRST
        segment = Segment(self.folder / f"{before - 1:09d}.spool")
        file = os.open(segment.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            self._write(file, segment, entries)
        except OSError:
            segment.path.unlink()
            raise
        finally:
            os.close(file)
        self._segments.appendleft(segment)
        self._unread.appendleft(segment)

    def read(self) -> tuple[Segment, Entry] | None:
        """Return the next entry, and the segment to acknowledge it to; None where all have been read."""
        while not self._next:
            if not self._unread:
                return None
            segment = self._unread.popleft()
            if self._writing is not None and segment is self._writing[0]:
                self._end()
            self._next.extend((segment, blob) for blob in _blobs(segment.path))
        segment, blob = self._next.popleft()
        return segment, _entry(blob)

    def unread(self) -> Iterator[tuple[Segment, Entry]]:
        """Yield what is still to be read with its segment, without reading it."""
        for segment in [*self._unread]:
            yield from ((segment, _entry(blob)) for blob in _blobs(segment.path))

    def fill(self, hole: Segment | None, entries: Sequence[Entry]) -> None:
        """Put entries into a hole; raises OSError."""
        if hole is None:
            self.put_first(entries)
            return
        file = os.open(hole.path, os.O_WRONLY | os.O_APPEND)
        try:
            self._write(file, hole, entries)
        finally:
            os.close(file)

    def give_back(self, segment: Segment, entry: Entry) -> None:
        """Take an entry that was just read back: it is the next one again."""
        self._next.appendleft((segment, _blob(entry)))

    def acknowledge(self, segment: Segment) -> None:
        """Note that one more entry of a segment needs to be kept no longer."""
        segment.left -= 1
        if segment.left == 0 and not (self._writing and segment is self._writing[0]):
            segment.path.unlink()
            self._segments.remove(segment)

    def close(self, whole: bool) -> None:
        """End: `whole` says that all that was taken is delivered or stands in the segments."""
        self._end()
        if whole:
            (self.folder / "closed").touch()
        os.close(self._lock)

    def _take_over(self, identity: str) -> list[Segment | None]:
        owner = self.folder / "owner"
        paths = sorted(self.folder.glob("*.spool"))
        if paths and owner.exists() and owner.read_text() != identity:
            found = owner.read_text()
            os.close(self._lock)
            raise SpoolUnusable(
                f"the spool {self.folder} holds records of {found}, not of {identity}: run that producer once more with its broker, "
                "name another folder by INFOWAY_SPOOL, or remove this one and lose them"
            )
        owner.write_text(identity)
        damaged: list[Segment | None] = []
        for path in paths:
            segment = Segment(path)
            for blob in _blobs(path):
                segment.left += 1
                segment.size += _HEAD + len(blob)
            torn = path.stat().st_size > segment.size
            if segment.left:
                self._segments.append(segment)
                self._unread.append(segment)
            if torn:
                self.torn += 1
                os.truncate(path, segment.size)
                damaged.append(self._segments[-1] if self._segments else None)
            if not segment.left:
                path.unlink()
        closed = self.folder / "closed"
        if self._segments and not closed.exists():
            damaged.append(None)
        closed.unlink(missing_ok=True)
        return list(dict.fromkeys(damaged))

    def _begin(self, last: Path | None) -> None:
        self._end()
        segment = Segment(self.folder / f"{int(last.stem) + 1 if last else _FIRST:09d}.spool")
        self._writing = segment, os.open(segment.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._segments.append(segment)

    def _end(self) -> None:
        if self._writing is not None:
            segment, file = self._writing
            self._writing = None
            os.close(file)
            if segment.left == 0:
                segment.path.unlink()
                self._segments.remove(segment)
                if segment in self._unread:
                    self._unread.remove(segment)

    def _write(self, file: int, segment: Segment, entries: Sequence[Entry]) -> None:
        for entry in entries:
            blob = _blob(entry)
            framed = len(blob).to_bytes(4, "big") + zlib.crc32(blob).to_bytes(4, "big") + blob
            try:
                _write_all(file, framed)
            except OSError:
                os.ftruncate(file, segment.size)
                os.lseek(file, segment.size, os.SEEK_SET)
                raise
            segment.size += len(framed)
            segment.left += 1


def _write_all(file: int, data: bytes) -> None:
    if os.write(file, data) != len(data):
        raise OSError(28, "no space left on the spool's disk")


def _blob(entry: Entry) -> bytes:
    headers = (
        None if entry.headers is None else [(name, value.decode()) for name, value in entry.headers]
    )
    head: list[Any] = [
        entry.topic,
        entry.key,
        entry.value is None,
        entry.partition,
        headers,
        *entry[5:],
    ]
    return orjson.dumps(head) + b"\n" + (entry.value or b"")


def _entry(blob: bytes) -> Entry:
    head, _, value = blob.partition(b"\n")
    topic, key, empty, partition, headers, *rest = orjson.loads(head)
    pairs = None if headers is None else [(name, text.encode()) for name, text in headers]
    return Entry(topic, key, None if empty else value, partition, pairs, *rest)


def _blobs(path: Path) -> Iterator[bytes]:
    """Yield the entries of a segment up to the first that is torn or damaged."""
    data, at = path.read_bytes(), 0
    while at + _HEAD <= len(data):
        size, crc = (
            int.from_bytes(data[at : at + 4], "big"),
            int.from_bytes(data[at + 4 : at + 8], "big"),
        )
        blob = data[at + _HEAD : at + _HEAD + size]
        if len(blob) < size or zlib.crc32(blob) != crc:
            return
        yield blob
        at += _HEAD + size
