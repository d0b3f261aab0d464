"""What takes the records of feeds: the publisher, or nothing."""

from collections.abc import Sequence
from typing import Protocol

from producers.feed.metrics import FeedCounters
from producers.feed.outputs import Output


class Sink(Protocol):
    """Takes what a transport's feeds say."""

    @property
    def behind(self) -> bool:
        """Whether records wait on disk for the broker."""

    def publish(self, outputs: Sequence[Output], counters: FeedCounters) -> None:
        """Take records in their order."""

    def serve(self) -> None:
        """Use a moment in which nothing is received."""


class Unpublished:
    """A sink that keeps nothing, for feeds that are only recorded."""

    behind = False

    def publish(self, outputs: Sequence[Output], counters: FeedCounters) -> None:
        """Let the records go."""

    def serve(self) -> None:
        """Nothing waits to be delivered."""
