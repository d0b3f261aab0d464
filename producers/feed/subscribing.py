"""Takes the vendor's answers to a feed's subscriptions: symbols begin, are asked for again, or are
refused."""

import random
from collections.abc import Callable, Iterable

from producers.feed.asked import Silence
from producers.feed.coverage import FeedCoverage
from producers.feed.metrics import FeedCounters
from producers.feed.outputs import Output
from producers.feed.repeats import Repeats
from producers.feed.reports import FeedReports
from producers.feed.settings import FeedSettings
from producers.feed.states import State
from producers.vendor.codes import SUBSCRIBE_FAIL, Channel, Verdict, judge
from producers.vendor.frames import Ack, ErrorFrame
from producers.vendor.subscriptions import PATIENCE, RefusedSymbols, Subscriptions
from producers.vendor.symbols import Feed

WAITS = 5
"""How often in a row a feed waits where the vendor counts too many connections, before that is
taken for the truth."""
UNANSWERED = 2
"""Subscriptions without an answer after which a connection on which none was taken counts as
broken."""


class Subscribing:
    """The subscriptions of one feed, over all of its connections."""

    def __init__(
        self,
        feed: Feed,
        settings: FeedSettings,
        counters: FeedCounters,
        chance: random.Random,
        coverage: FeedCoverage,
        repeats: Repeats,
        silence: Silence,
        reports: FeedReports,
        enter: Callable[[State, str], None],
    ) -> None:
        """`enter` puts the feed into a state, with the reason."""
        self.refusal: ErrorFrame | None = None
        """The answer that forbids another try."""
        self.pause_us = 0
        """Microseconds to wait at least before the next connection."""
        self.refused: RefusedSymbols = {}
        """What the vendor has refused for good: it is not asked for on later connections."""
        self._settings = settings
        self._counters = counters
        self._chance = chance
        self._coverage = coverage
        self._repeats = repeats
        self._silence = silence
        self._reports = reports
        self._enter = enter
        self._was_complete = False
        """Whether the vendor has taken every subscription of some connection."""
        self._waits = 0
        self.connect(feed, 0)

    def connect(self, feed: Feed, now_us: int) -> None:
        """Ask for everything on a new connection."""
        self.requests = Subscriptions(
            feed, self._settings.klines, self._chance, now_us, self.refused
        )
        """Those of the connection."""
        self.pause_us = 0

    def waits_for_room(self) -> bool:
        """Return whether too many connections are worth a wait: most likely one is ours, not yet
        known to be lost; sets `pause_us`."""
        if not self._was_complete or self._waits == WAITS:
            return False
        self._waits += 1
        self.pause_us = PATIENCE
        return True

    def take_ack(self, ack: Ack, now_us: int) -> list[Output]:
        """Take a subscription that the vendor has taken; return the begins of its symbols, and what
        is to be reported."""
        accepted = self.requests.acked(ack.channel, ack.trace)
        symbols = [symbol for symbol in accepted.symbols if symbol not in self._coverage.removed]
        if accepted.channel is Channel.TRADE:
            # removed ones too: what follows is their last trade, which another feed takes over
            self._repeats.subscribed(accepted.symbols)
        outputs = self.begin(accepted.channel, symbols, now_us)
        if self._settings.source != "replay":
            self._silence.acked(symbols, now_us)
        return [*outputs, *self._decided(now_us)]

    def _decided(self, now_us: int) -> list[Output]:
        """Return what to report once the vendor has taken or refused every subscription."""
        subscriptions = self.requests
        if not subscriptions.decided:
            return []
        outputs = self._reports.over(now_us)
        if not subscriptions.complete:
            return outputs
        self._was_complete, self._waits = True, 0
        return [*outputs, *self._reports.change("healthy", "subscribed", now_us)]

    def take_refusal(self, refusal: ErrorFrame, now_us: int) -> list[Output]:
        """Take an error frame: ask again, connect again, or end; return what is to be reported."""
        self._counters.refusals += 1
        self.requests.answered(refusal.trace)
        reason = (
            f"the vendor says {refusal.code or SUBSCRIBE_FAIL.decode()} {refusal.text}".rstrip()
        )
        verdict = judge(refusal.code)
        subscriptions = self.requests
        if verdict is Verdict.REPORT:
            subscriptions.refused(refusal.trace, now_us)
            # before the report: what was refused for good stays the last that is said
            return [*self._decided(now_us), *self._reports.change("degraded", reason, now_us)]
        if verdict in (Verdict.ASK_LATER, Verdict.SLOW_DOWN):
            subscriptions.ask_later(refusal.trace, now_us, slower=verdict is Verdict.SLOW_DOWN)
            return self._reports.change(
                "degraded", f"{reason}; asked again in {PATIENCE // 1_000_000} s", now_us
            )
        if verdict is Verdict.RECONNECT or (verdict is Verdict.WAIT and self.waits_for_room()):
            self._enter(State.BROKEN, reason)
            return []
        self._enter(State.REFUSED, reason)
        self.refusal = refusal
        return self._reports.change("down", reason, now_us)

    def begin(self, channel: Channel, symbols: Iterable[str], now_us: int) -> list[Output]:
        """Return the begins of those of the symbols that have not begun on the connection."""
        coverage = self._coverage
        return [
            output
            for symbol in symbols
            if (channel, symbol) not in coverage.observed
            for output in coverage.begin(channel, symbol, now_us)
        ]

    def report_unanswered(self, now_us: int) -> list[Output]:
        """Return what is to be reported of requests without an answer, on an open connection."""
        subscriptions = self.requests
        if not subscriptions.unanswered:
            return []
        count, subscriptions.unanswered = subscriptions.unanswered, 0
        if subscriptions.never_answered >= UNANSWERED:
            self._enter(State.BROKEN, "the vendor has answered no subscription")
        reason = f"no answer to {count} of our requests; asked again in {PATIENCE // 1_000_000} s"
        return self._reports.change("degraded", reason, now_us)
