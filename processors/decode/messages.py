"""Consecutive messages of one partition, as what reads columns takes them."""

from collections.abc import Sequence
from operator import methodcaller
from typing import Protocol, cast

import confluent_kafka as ck
import numpy as np

from processors.kernels.columns import Array

_VALUE, _OFFSET = methodcaller("value"), methodcaller("offset")


class OneByOne(Protocol):
    """Has each message as librdkafka's binding does."""

    def __getitem__(self, at: int, /) -> ck.Message: ...


class Messages:
    """Values side by side in memory, and each message by itself for what is not plain."""

    def __init__(self, packed: Array, ends: Array, offsets: Array, one_by_one: OneByOne) -> None:
        self.packed, self.ends, self.offsets = packed, ends, offsets
        """Bytes of all values; per message where its value ends, and its offset."""
        self.one_by_one = one_by_one

    @classmethod
    def of(cls, messages: Sequence[ck.Message]) -> "Messages":
        """Return messages of the binding."""
        values: list[bytes | None] = list(map(_VALUE, messages))
        filled = [value or b"" for value in values] if None in values else cast(list[bytes], values)
        return cls(
            np.frombuffer(b"".join(filled), np.uint8),
            np.cumsum(np.fromiter(map(len, filled), np.int64, len(filled))),
            np.fromiter(map(_OFFSET, messages), np.int64, len(messages)),
            messages,
        )

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, at: int) -> ck.Message:
        return self.one_by_one[at]

    def beginnings(self, size: int) -> list[bytes]:
        """Return the first bytes of each value."""
        packed, ends = self.packed.tobytes(), self.ends.tolist()
        starts = [0, *ends[:-1]]
        return [
            packed[start : min(end, start + size)] for start, end in zip(starts, ends, strict=True)
        ]

    def value(self, at: int, most: int | None = None) -> bytes:
        """Return a message's value, or its first `most` bytes; empty for none."""
        start, end = int(self.ends[at - 1]) if at else 0, int(self.ends[at])
        return self.packed[start : end if most is None else min(end, start + most)].tobytes()
