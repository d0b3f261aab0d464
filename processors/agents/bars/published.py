"""Remembers which bars of a symbol were published and forgotten: one bit a bar, no figures."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

CHUNK = 256
"""Bars of one key in the state topic: what a forgotten bar writes are at most 64 hex digits."""


class BarNumbers(NamedTuple):
    """Numbers the bars of an interval by start // `step_ms`; none is longer than `longest_ms`."""

    step_ms: int
    longest_ms: int


class Published:
    """The forgotten bars of one symbol, per level of an interval in chunks of CHUNK numbers."""

    def __init__(self, slots: Sequence[BarNumbers]) -> None:
        self._slots = slots
        self._chunks: list[dict[int, int]] = [{} for _ in slots]

    def add(self, level: int, start: int) -> tuple[int, int]:
        """Remember a bar; return its chunk and the chunk's bits."""
        chunk, bit = divmod(start // self._slots[level].step_ms, CHUNK)
        bits = self._chunks[level].get(chunk, 0) | 1 << bit
        self._chunks[level][chunk] = bits
        return chunk, bits

    def restore(self, level: int, chunk: int, bits: int) -> None:
        """Take a chunk that `add` returned."""
        self._chunks[level][chunk] = bits

    def latest(self, level: int) -> int | None:
        """Return the greatest start of a bar that is remembered, None if there is none."""
        chunks = self._chunks[level]
        if not chunks:
            return None
        chunk = max(chunks)
        return (chunk * CHUNK + chunks[chunk].bit_length() - 1) * self._slots[level].step_ms

    def has(self, level: int, start: int) -> bool:
        """Return whether the bar with this start was published and forgotten."""
        chunk, bit = divmod(start // self._slots[level].step_ms, CHUNK)
        return bool(self._chunks[level].get(chunk, 0) >> bit & 1)

    def overlapping(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield level and start of the bars that may overlap [begin, end), by the longest
        length."""
        for level, (slots, chunks) in enumerate(zip(self._slots, self._chunks, strict=True)):
            first, last = (
                (begin - slots.longest_ms) // slots.step_ms + 1,
                (end - 1) // slots.step_ms,
            )
            for chunk in sorted(chunks):
                if first // CHUNK <= chunk <= last // CHUNK:
                    for number in range(
                        max(first, chunk * CHUNK), min(last, chunk * CHUNK + CHUNK - 1) + 1
                    ):
                        if chunks[chunk] >> number % CHUNK & 1:
                            yield level, number * slots.step_ms

    def expire(self, level: int, until: int) -> list[int]:
        """Forget the chunks whose bars all ended at or before `until`; return them."""
        slots, chunks = self._slots[level], self._chunks[level]
        gone = [
            chunk
            for chunk in chunks
            if ((chunk + 1) * CHUNK - 1) * slots.step_ms + slots.longest_ms <= until
        ]
        for chunk in gone:
            del chunks[chunk]
        return gone

    def is_empty(self) -> bool:
        """Return whether no bar is remembered."""
        return not any(self._chunks)
