"""Pairs of a state whose keys are numbered, as kernels write them: what passes from an agent to its
journal without an object for each pair."""

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from processors.kernels.columns import Array

PAIR = struct.Struct(">Ii")
"""Before each pair: the length of its key, and the length of its value or REMOVED."""
PAIR_BYTES = PAIR.size
REMOVED = -1


class NumberedPairs(NamedTuple):
    """Changed pairs of one kind, each key at most once."""

    prefix: bytes
    """Begins the keys of this kind, and no others."""
    number_of: Callable[[bytes], int]
    """Returns the number of a key of this kind; numbers are small, and each has one key."""
    numbers: Array
    """int64."""
    sizes: Array
    """Bytes of each pair, int64."""
    removed: Array
    """Whether the pair has no value, bool."""
    packed: bytes
    """The pairs one after the other: PAIR, the key, the value."""

    def pairs(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield keys and values; None for one that is removed."""
        return pairs_in(self.packed)

    def chosen(self, which: Array) -> "NumberedPairs":
        """Return the pairs for which it is true."""
        starts = np.cumsum(self.sizes) - self.sizes
        return self._replace(
            numbers=self.numbers[which],
            sizes=self.sizes[which],
            removed=self.removed[which],
            packed=gathered(self.packed, starts[which], self.sizes[which]),
        )

    def part(self, first: int, after: int) -> "NumberedPairs":
        """Return the pairs [first, after)."""
        begin = int(self.sizes[:first].sum())
        end = begin + int(self.sizes[first:after].sum())
        return self._replace(
            numbers=self.numbers[first:after],
            sizes=self.sizes[first:after],
            removed=self.removed[first:after],
            packed=self.packed[begin:end],
        )


def one_by_one(
    changes: Iterable[tuple[bytes, bytes | None] | NumberedPairs],
) -> Iterator[tuple[bytes, bytes | None]]:
    """Yield every pair of the changes."""
    for change in changes:
        if isinstance(change, NumberedPairs):
            yield from change.pairs()
        else:
            yield change


def pairs_in(packed: bytes, at: int = 0) -> Iterator[tuple[bytes, bytes | None]]:
    """Yield the pairs that lie one after the other."""
    while at < len(packed):
        key_length, length = PAIR.unpack_from(packed, at)
        at += PAIR.size
        key = packed[at : at + key_length]
        at += key_length
        if length == REMOVED:
            yield key, None
        else:
            yield key, packed[at : at + length]
            at += length


def gathered(packed: bytes, starts: Array, sizes: Array) -> bytes:
    """Return the pieces [start, start + size) of some bytes, one after the other."""
    if not len(starts):
        return b""
    before = np.cumsum(sizes) - sizes
    at = np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))
    found: Array = np.frombuffer(packed, np.uint8)[at]
    return found.tobytes()
