"""Decides when a mark is due: when a partition is silent while its feed is alive."""

from dataclasses import dataclass


@dataclass(slots=True)
class MarkedPartition:
    """One partition of a raw topic that has symbols of the feed; `active_us` is the time of its
    last record or mark."""

    topic: str
    number: int
    active_us: int


class Marks:
    """The partitions of one connection. Marks depend on `last_alive_us` alone, so a replay makes
    the same ones."""

    def __init__(self, period_us: int) -> None:
        self._period_us = period_us
        self._partitions: dict[tuple[str, int], MarkedPartition] = {}
        self.next_us = 0
        """No mark is due before this time."""

    def partition(self, topic: str, number: int, now_us: int) -> MarkedPartition:
        """Return a partition, new from `now_us` on; whoever writes a record to it sets its
        `active_us`."""
        partition = self._partitions.get((topic, number))
        if partition is None:
            partition = MarkedPartition(topic, number, now_us)
            self._partitions[topic, number] = partition
        return partition

    def due(self, last_alive_us: int) -> list[MarkedPartition]:
        """Return the partitions silent for a period at `last_alive_us`, and count them as marked
        then."""
        if last_alive_us < self.next_us or not self._partitions:
            return []
        every = self._partitions.values()
        silent = [each for each in every if last_alive_us - each.active_us >= self._period_us]
        for each in silent:
            each.active_us = last_alive_us
        self.next_us = min(each.active_us for each in every) + self._period_us
        return silent
