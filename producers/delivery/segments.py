"""The files of the spool: each a sequence of length, CRC-32 and entry."""

import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from producers.delivery.entries import SpoolEntry, to_bytes

_HEAD = 8


class Segment:
    """One file of the spool: `left` of its entries are not acknowledged yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.left = 0

    def append(self, file: int, entries: Sequence[SpoolEntry]) -> None:
        """Write entries to the segment's open file; raises OSError, and then nothing of an entry
        stays that was not written to its end."""
        for entry in entries:
            blob = to_bytes(entry)
            framed = len(blob).to_bytes(4, "big") + zlib.crc32(blob).to_bytes(4, "big") + blob
            try:
                _write_all(file, framed)
            except OSError:
                os.ftruncate(file, self.size)
                os.lseek(file, self.size, os.SEEK_SET)
                raise
            self.size += len(framed)
            self.left += 1

    def blobs(self) -> Iterator[bytes]:
        """Yield the entries' bytes up to the first that is torn or damaged."""
        data, at = self.path.read_bytes(), 0
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

    def count(self) -> bool:
        """Take the file as it is found: count its entries, and cut off what is torn or damaged;
        return whether something was."""
        self.left = self.size = 0
        for blob in self.blobs():
            self.left += 1
            self.size += _HEAD + len(blob)
        torn = self.path.stat().st_size > self.size
        if torn:
            os.truncate(self.path, self.size)
        return torn


def _write_all(file: int, data: bytes) -> None:
    if os.write(file, data) != len(data):
        raise OSError(28, "no space left on the spool's disk")
