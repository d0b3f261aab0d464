"""Keeps a set of times as disjoint spans [begin, end): what overlaps or touches becomes one."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Spans:
    """Spans of event time in ms. One without length counts for what has it strictly inside."""

    def __init__(self) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._begins, self._ends, strict=True)

    @property
    def end(self) -> int | None:
        """Where the last one ends."""
        return self._ends[-1] if self._ends else None

    def add(self, begin: int, end: int) -> list[int]:
        """Add a span; return the begins of the new one and of those that it replaces."""
        first, after = bisect_left(self._ends, begin), bisect_right(self._begins, end)
        gone = self._begins[first:after]
        if gone:
            begin, end = min(begin, gone[0]), max(end, self._ends[after - 1])
        self._begins[first:after], self._ends[first:after] = [begin], [end]
        return [begin, *gone]

    def overlap(self, start: int, end: int) -> bool:
        """Return whether a span has a time of [start, end), which is not empty."""
        index = bisect_right(self._ends, start)
        return index < len(self._begins) and self._begins[index] < end

    def between(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the spans that begin in [first, last)."""
        low, high = bisect_left(self._begins, first), bisect_left(self._begins, last)
        return list(zip(self._begins[low:high], self._ends[low:high], strict=True))

    def prune(self, until: int) -> list[int]:
        """Remove the spans that end at or before `until`; return their begins."""
        count = bisect_right(self._ends, until)
        gone = self._begins[:count]
        del self._begins[:count], self._ends[:count]
        return gone
