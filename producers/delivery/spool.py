"""Keeps records on disk while the broker is away: a bounded queue in a folder of numbered segments.

`append` hands an entry to the operating system. It outlives the process, but no power failure. A
torn entry at the end of a segment is cut off.
"""

import fcntl
import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from producers.delivery.entries import SpoolEntry, from_bytes, to_bytes
from producers.delivery.segments import Segment
from producers.private_folder import private_folder
from schemas.errors import InfowayError

SEGMENT = 4 * 1024 * 1024
_FIRST = 1_000_000
"""Number of the first segment. Lower numbers are for entries that are put before it."""

_log = logging.getLogger(__name__)


class SpoolUnusable(InfowayError):
    """A folder that cannot be the spool of this process."""


class Spool:
    """First in, first out, also over restarts.

    A segment is deleted once all of its entries are read and acknowledged.
    """

    def __init__(self, folder: Path, limit: int, identity: str) -> None:
        """Take over the folder with what an earlier process left; `limit` is in bytes.

        `identity` says whose records these are. Raises SpoolUnusable if the folder cannot be
        written, a running process has it, or it has records of another identity.
        """
        self.folder, self.limit = folder, limit
        self._identity = identity
        self.torn = 0
        """Segments with an entry that an earlier process did not write to its end."""
        try:
            private_folder(folder)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise SpoolUnusable(
                f"the spool {folder} cannot be used ({error.strerror}): name another folder by "
                "INFOWAY_SPOOL"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise SpoolUnusable(
                f"the spool {folder} belongs to another producer that runs: give each its own "
                "by INFOWAY_SPOOL"
            ) from error
        self._segments: deque[Segment] = deque()
        self._next: deque[tuple[Segment, bytes]] = deque()
        self._unread: deque[Segment] = deque()
        self._writing: tuple[Segment, int] | None = None
        self._leads: Segment | None = None
        """Counts entries that precede all others and are in memory alone."""
        try:
            found = self._take_over(identity)
        except OSError as error:
            os.close(self._lock)
            raise SpoolUnusable(
                f"the spool {folder} cannot be used ({error.strerror}): make room, or name "
                "another by INFOWAY_SPOOL"
            ) from error
        self.holes: list[Segment | None] = found
        """Where an earlier process lost entries. None: before all others, if it ended without
        `close`, since what it had in memory is lost. A segment: after its last entry, if the
        rest was torn or damaged."""

    @property
    def size(self) -> int:
        """Bytes of the segments on disk."""
        return sum(segment.size for segment in self._segments)

    @property
    def empty(self) -> bool:
        """Whether every entry has been read."""
        return not self._next and not self._unread

    def beside(self, name: str) -> Path:
        """Return the path of a file for what else a producer of the same identity remembers."""
        return self.folder / f"{name}-{sha256(self._identity.encode()).hexdigest()[:12]}.json"

    def append(self, entry: SpoolEntry) -> None:
        """Append an entry; raises OSError, and then nothing of it is in the file."""
        if self._writing is None or self._writing[0].size >= SEGMENT:
            self._begin(self._segments[-1].path if self._segments else None)
        assert self._writing is not None
        segment, file = self._writing
        segment.append(file, [entry])
        if segment not in self._unread:
            self._unread.append(segment)

    @property
    def newest(self) -> Segment:
        """The segment that has the last entry."""
        return self._segments[-1]

    def mark_read(self) -> None:
        """Count all entries as read: the caller still has them."""
        self._end()
        self._next.clear()
        self._unread.clear()

    def mark_whole(self, whole: bool) -> None:
        """Note whether the spool has all that is not delivered, for the next process; raises
        OSError."""
        if whole:
            (self.folder / "closed").touch()
        else:
            (self.folder / "closed").unlink(missing_ok=True)

    @property
    def left(self) -> int:
        """Entries that have not been acknowledged."""
        return sum(segment.left for segment in self._segments)

    def put_back(self, entries: Sequence[SpoolEntry]) -> None:
        """Put undelivered entries before the unread ones, for the next process; delete the segments
        that were read. Raises OSError."""
        left = [*entries, *(from_bytes(blob) for _, blob in self._next)]
        read = [segment for segment in self._segments if segment not in self._unread]
        if left:
            self.put_first(left)
        self._next.clear()
        self._leads = None
        for segment in read:
            segment.path.unlink()
            self._segments.remove(segment)

    def put_first(self, entries: Sequence[SpoolEntry]) -> None:
        """Put entries before all others, in their order; raises OSError."""
        before = int(self._segments[0].path.stem) if self._segments else _FIRST
        segment = Segment(self.folder / f"{before - 1:09d}.spool")
        file = os.open(segment.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            segment.append(file, entries)
        except OSError:
            segment.path.unlink()
            raise
        finally:
            os.close(file)
        self._segments.appendleft(segment)
        self._unread.appendleft(segment)

    def read(self) -> tuple[Segment, SpoolEntry] | None:
        """Return the next entry with its segment for `acknowledge`; None if all are read."""
        while not self._next:
            if not self._unread:
                return None
            segment = self._unread.popleft()
            if self._writing is not None and segment is self._writing[0]:
                self._end()
            self._next.extend((segment, blob) for blob in segment.blobs())
        segment, blob = self._next.popleft()
        return segment, from_bytes(blob)

    def unread(self) -> Iterator[tuple[Segment, SpoolEntry]]:
        """Yield unread entries with their segments; they stay unread."""
        for segment in [*self._unread]:
            yield from ((segment, from_bytes(blob)) for blob in segment.blobs())

    def fill(self, hole: Segment | None, entries: Sequence[SpoolEntry]) -> None:
        """Put entries into a hole of a spool that was just opened; raises SpoolUnusable.

        If the disk has no room, entries that precede all others are kept in memory: the disk may
        be full of entries that go out as soon as the producer has started.
        """
        if hole is None:
            try:
                self.put_first(entries)
            except OSError:
                self._leads = self._segments[0]
                self._leads.left += len(entries)
                self._next.extendleft((self._leads, to_bytes(entry)) for entry in reversed(entries))
            return
        file = os.open(hole.path, os.O_WRONLY | os.O_APPEND)
        try:
            hole.append(file, entries)
        except OSError as error:
            raise SpoolUnusable(
                f"the spool {self.folder} has no room for what is to be told of a damaged part "
                "of it: make some"
            ) from error
        finally:
            os.close(file)

    @property
    def leads(self) -> bool:
        """Whether entries that `fill` could not write have yet to be acknowledged."""
        return self._leads is not None

    def give_back(self, segment: Segment, entry: SpoolEntry) -> None:
        """Take back an entry that was just read: it is the next one again."""
        self._next.appendleft((segment, to_bytes(entry)))

    def acknowledge(self, segment: Segment) -> None:
        """Count one more entry of a segment as delivered; delete the segment after its last."""
        segment.left -= 1
        if segment.left == 0 and not (self._writing and segment is self._writing[0]):
            segment.path.unlink()
            self._segments.remove(segment)
            if segment is self._leads:
                self._leads = None

    def close(self, whole: bool) -> None:
        """End; `whole` says that every entry is delivered or in the segments."""
        self._end()
        try:
            self.mark_whole(whole)
        except OSError as error:
            _log.warning(
                "the spool %s cannot be marked as whole (%s): the next start reports a gap",
                self.folder,
                error,
            )
        os.close(self._lock)

    def _take_over(self, identity: str) -> list[Segment | None]:
        owner = self.folder / "owner"
        paths = sorted(self.folder.glob("*.spool"))
        # empty where a full disk has not taken it
        found = owner.read_text() if owner.exists() else ""
        if paths and found not in ("", identity):
            os.close(self._lock)
            raise SpoolUnusable(
                f"the spool {self.folder} holds records of {found}, not of {identity}: run that "
                "producer once more with its broker, "
                "name another folder by INFOWAY_SPOOL, or remove this one and lose them"
            )
        if found != identity:
            owner.write_text(identity)
        damaged: list[Segment | None] = []
        for path in paths:
            segment = Segment(path)
            torn = segment.count()
            if segment.left:
                self._segments.append(segment)
                self._unread.append(segment)
            if torn:
                self.torn += 1
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
