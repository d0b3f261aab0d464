"""Makes the records of a feed's status: what became of it, and what is wrong with its data."""

from producers.feed.asked import Silence
from producers.feed.coverage import FeedCoverage
from producers.feed.outputs import Output, Publication
from producers.vendor.symbols import Feed
from schemas.records import FeedStatusRecord
from schemas.topics import FEED_STATUS


class FeedReports:
    """The status records of one feed."""

    def __init__(self, feed: Feed, coverage: FeedCoverage, silence: Silence) -> None:
        self.feed = feed
        self.state = ""
        """The state that was reported last."""
        self.down_since_us: int | None = None
        """Since when the feed is down, until it has data or every answer again."""
        self._reason = ""
        self._coverage = coverage
        self._silence = silence

    def change(
        self, state: str, reason: str, since_us: int, until_us: int | None = None
    ) -> list[Output]:
        """Return the record of a new state, nothing if it was reported last; `until_us` ends a
        state that is reported once more."""
        if until_us is None and (self.state, self._reason) == (state, reason):
            return []
        self.state, self._reason = state, reason
        symbols = [
            symbol
            for symbol in self.feed.symbols
            if state != "healthy" or symbol not in self._silence.silent
        ]
        return [self.status(state, reason, since_us, until_us, symbols)]

    def over(self, until_us: int) -> list[Output]:
        """Return the record of an outage that is over, if the feed was down."""
        if self.down_since_us is None:
            return []
        outputs = self.change("down", "over", self.down_since_us, until_us)
        self.down_since_us = None
        return outputs

    def status(
        self, state: str, reason: str, since_us: int, until_us: int | None, symbols: list[str]
    ) -> Publication:
        """Return a status record about some of the feed's symbols."""
        status = FeedStatusRecord(
            feed=self.feed.name,
            connection=self._coverage.connection,
            business=self.feed.business,
            state=state,
            reason=reason,
            ts_from=since_us // 1000,
            ts_to=None if until_us is None else until_us // 1000,
            symbols=symbols,
            last_sequence=self._coverage.sequence,
        )
        return Publication(FEED_STATUS, self.feed.name, status)
