"""Byte strings by index for kernels, packed one behind the other."""

from collections.abc import Iterable

import numpy as np

from processors.kernels.columns import Array
from processors.kernels.observed import grown


class Names:
    """Names that only grow; a name's index is the number of those added before it."""

    def __init__(self) -> None:
        self.packed: Array = np.zeros(1024, np.uint8)
        """The names, one behind the other."""
        self.ends: Array = np.zeros(64, np.int64)
        """By index + 1 where each name ends in `packed`: the name before it ends where it
        begins."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, names: Iterable[bytes]) -> None:
        """Add names, whether they are there already or not."""
        for name in names:
            first = int(self.ends[self._count])
            after = first + len(name)
            self.packed = with_room(self.packed, after)
            self.packed[first:after] = np.frombuffer(name, np.uint8)
            self._count += 1
            self.ends = with_room(self.ends, self._count + 1)
            self.ends[self._count] = after


def with_room(array: Array, length: int) -> Array:
    """Return the array, or one of twice the length and more that begins with it if it is
    shorter than `length`; the rest is zero."""
    return array if length <= len(array) else grown(array, max(length, 2 * len(array)))
