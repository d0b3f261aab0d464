"""A table from the bytes of a name to its index, which kernels look up and Python fills."""

import numpy as np

from processors.kernels.avro.read import signed
from processors.kernels.columns import Array
from processors.kernels.compiled import part

NAME = np.dtype(
    [("hash", np.uint64), ("start", np.int64), ("size", np.int32), ("index", np.int32)], align=True
)
"""A slot of the table: where the name's bytes are, and its index; -1 where the slot is empty."""

UNKNOWN = -1

# 32-bit FNV-1a in 64 bits: no product overflows
_BASIS, _PRIME, _LOW = np.uint64(2166136261), np.uint64(16777619), np.uint64(0xFFFFFFFF)


class NameTable:
    """Names and their indices; a name stays once it is added."""

    def __init__(self) -> None:
        self.slots: Array = _empty(64)
        self.bytes: Array = np.zeros(1024, np.uint8)
        self._used = 0
        self._known: dict[bytes, int] = {}

    def __contains__(self, name: bytes) -> bool:
        return name in self._known

    def add(self, name: bytes, index: int) -> None:
        """Add a name; one that is known keeps its index."""
        if name in self._known:
            return
        self._known[name] = index
        if self._used + len(name) > len(self.bytes):
            longer = np.zeros(2 * (self._used + len(name)), np.uint8)
            longer[: self._used] = self.bytes[: self._used]
            self.bytes = longer
        start, self._used = self._used, self._used + len(name)
        self.bytes[start : self._used] = np.frombuffer(name, np.uint8)
        if 2 * len(self._known) > len(self.slots):
            before, self.slots = self.slots, _empty(2 * len(self.slots))
            for slot in before[before["index"] != UNKNOWN]:
                self._enter(slot)
        self._enter((hash_of(name), start, len(name), index))

    def _enter(self, slot: Array | tuple[int, int, int, int]) -> None:
        mask = len(self.slots) - 1
        at = int(slot[0]) & mask
        while self.slots["index"][at] != UNKNOWN:
            at = (at + 1) & mask
        self.slots[at] = slot


def hash_of(name: bytes) -> int:
    """Return the hash by which a name is looked up."""
    found = int(_BASIS)
    for byte in name:
        found = (found ^ byte) * int(_PRIME) & int(_LOW)
    return found


def _empty(length: int) -> Array:
    slots = np.zeros(length, NAME)
    slots["index"] = UNKNOWN
    return slots


@part
def look_up(slots: Array, names: Array, buffer: Array, first: int, after: int) -> int:
    """Return the slot of the name buffer[first:after], UNKNOWN if it has none."""
    found = _BASIS
    for at in range(first, after):
        found = ((found ^ np.uint64(buffer[at])) * _PRIME) & _LOW
    mask = np.uint64(len(slots) - 1)
    at = signed(found & mask)
    while slots[at]["index"] != UNKNOWN:
        if slots[at]["hash"] == found and slots[at]["size"] == after - first:
            if same(names, slots[at]["start"], buffer, first, after):
                return at
        at = signed(np.uint64(at + 1) & mask)
    return UNKNOWN


@part
def same(names: Array, start: int, buffer: Array, first: int, after: int) -> bool:
    """Return whether the name that begins at `start` is buffer[first:after], whose size it has."""
    for at in range(first, after):
        if names[start + at - first] != buffer[at]:
            return False
    return True
