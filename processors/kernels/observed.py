"""What kernels judge trades by: the feeds and symbols of `model.event_time.Feeds`, as arrays.

`Feeds` stays the authority. What every trade moves, a feed's times, is kept in the arrays while
kernels run, and written back after a run. What control records move is written here after each.
"""

from collections.abc import Iterable

import numpy as np

from processors.kernels.columns import Array, Lane, Tables
from processors.kernels.compiled import part
from processors.model.event_time import EventTime, Feeds
from processors.model.observation import FOREVER

FEED = np.dtype(
    [
        ("latest_event", np.int64),
        ("last_alive", np.int64),
        ("latest_push", np.int64),
        ("due", np.int64),
    ],
    align=True,
)
"""A feed: times in ms as in FeedState; `due` is the event time from which on Python must look, set
by the agent."""

SYMBOL = np.dtype(
    [("least_watermark", np.int64), ("complete_from", np.int64), ("feed", np.int32)], align=True
)
"""A symbol by the agent's own slot: times in ms as in SymbolObservation, the index of its feed."""

LIMITS = np.dtype([("tolerance", np.int64), ("horizon", np.int64)])
"""Watermark delay + revision horizon, and the horizon, in ms: one record."""

ACCEPTED = 0
"""The trade counts."""
REPEAT = 1
"""The trade is a sign of life and counts nowhere."""
NEW_LANE = 2
"""Python must look: a feed or connection that is not the present one, or another source."""
NEW_SYMBOL = 3
"""Python must look: the agent has no slot for the symbol."""
LATE = 4
"""Too late; Python handles it."""


class Observed:
    """The arrays of one agent and partition."""

    def __init__(self, feeds: Feeds, settings: EventTime) -> None:
        self._authority = feeds
        self.names: list[str] = []
        """The symbol of each slot."""
        self.slots: dict[str, int] = {}
        self.symbols: Array = np.zeros(64, SYMBOL)
        self.feeds: Array = np.zeros(4, FEED)
        self.slot_of: Array = np.full(64, -1, np.int32)
        """By the index of the tables; -1: none."""
        self.feed_of_lane: Array = np.full(4, -1, np.int32)
        """By the index of the tables; -1: Python must look."""
        self.feed_names: list[str] = []
        self._feed_index: dict[str, int] = {}
        self.limits: Array = np.zeros(1, LIMITS)
        self.limits["horizon"] = settings.revision_horizon_ms
        self.limits["tolerance"] = settings.watermark_delay_ms + settings.revision_horizon_ms
        self._tables: Tables | None = None
        self._known_symbols = self._known_lanes = 0

    def slot(self, name: str) -> int:
        """Return the slot of a symbol that the feeds know, made if there is none."""
        found = self.slots.get(name)
        if found is None:
            found = self.slots[name] = len(self.names)
            self.names.append(name)
            if found == len(self.symbols):
                self.symbols = grown(self.symbols, 2 * found)
            if self._tables is not None:
                self._know_symbol(self._tables, self._tables.symbol(name))
        self.refresh((name,))
        return found

    def feed(self, name: str) -> int:
        """Return the index of a feed that the authority knows, made if there is none."""
        found = self._feed_index.get(name)
        if found is None:
            found = self._feed_index[name] = len(self.feed_names)
            self.feed_names.append(name)
            if found == len(self.feeds):
                self.feeds = grown(self.feeds, 2 * found)
            self.feeds["due"][found] = FOREVER
        return found

    def follow(self, tables: Tables) -> None:
        """Let the indices of the tables be known, those that are new since the last call too."""
        if tables is not self._tables:
            self._tables = tables
            self._known_symbols = self._known_lanes = 0
            self.slot_of[:] = -1
        while self._known_symbols < len(tables.symbols):
            self._know_symbol(tables, self._known_symbols)
            self._known_symbols += 1
        if self._known_lanes < len(tables.lanes):
            self.refresh_lanes()

    def refresh(self, names: Iterable[str]) -> None:
        """Take over how these symbols are observed; those without a slot are passed over."""
        authority = self._authority
        for name in names:
            slot = self.slots.get(name)
            if slot is not None:
                self.symbols[slot] = (
                    authority.least_watermark_of(name),
                    authority.complete_from(name),
                    self.feed(authority.feed_of(name).name),
                )

    def refresh_lanes(self) -> None:
        """Look again which lanes are the present connections of feeds: after every record that
        Python has taken into the authority."""
        if self._tables is None:
            return
        lanes = self._tables.lanes
        while len(lanes) > len(self.feed_of_lane):
            self.feed_of_lane = np.append(self.feed_of_lane, np.full_like(self.feed_of_lane, -1))
        for index, lane in enumerate(lanes):
            self.feed_of_lane[index] = self.feed(lane.feed) if self._is_present(lane) else -1
        self._known_lanes = len(lanes)

    def before(self) -> None:
        """Take the feeds' times over from the authority."""
        for name in self._authority.names():
            known = self._authority.feed(name)
            at = self.feed(name)  # before `self.feeds`, which it may replace
            row = self.feeds[at]
            row["latest_event"], row["last_alive"] = known.latest_event_ms, known.last_alive_ms
            row["latest_push"] = known.latest_push_ms

    def after(self) -> None:
        """Write the feeds' times back to the authority."""
        for name, index in self._feed_index.items():
            row = self.feeds[index]
            self._authority.moved(
                name,
                int(row["latest_event"]),
                int(row["last_alive"]),
                int(row["latest_push"]),
            )

    def _know_symbol(self, tables: Tables, index: int) -> None:
        while index >= len(self.slot_of):
            self.slot_of = np.append(self.slot_of, np.full_like(self.slot_of, -1))
        self.slot_of[index] = self.slots.get(tables.symbols[index], -1)

    def _is_present(self, lane: Lane) -> bool:
        authority = self._authority
        return (
            lane.source == authority.source
            and lane.feed in authority.names()
            and authority.feed(lane.feed).connection == lane.connection
        )


def grown(array: Array, length: int) -> Array:
    """Return a longer array that begins with the given one; the rest is zero."""
    longer = np.zeros((length, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer


@part
def judge(
    feeds: Array,
    symbols: Array,
    slot_of: Array,
    feed_of_lane: Array,
    limits: Array,
    trade: Array,
) -> int:
    """Return what becomes of a trade, by the log before it; touches nothing."""
    feed = feed_of_lane[trade["lane"]]
    if feed < 0:
        return NEW_LANE
    if trade["repeat"] != 0:
        return REPEAT
    slot = slot_of[trade["symbol"]]
    if slot < 0:
        return NEW_SYMBOL
    event = trade["ts_event"]
    # the watermark of a symbol is its own feed's, whatever feed the trade came by
    carrier = symbols[slot]["feed"]
    if (
        event < feeds[carrier]["latest_event"] - limits[0]["tolerance"]
        or event < symbols[slot]["least_watermark"] - limits[0]["horizon"]
    ):
        return LATE
    return ACCEPTED


@part
def take(feeds: Array, feed_of_lane: Array, trade: Array, counts: bool) -> int:
    """Move the feed's times by a trade that is accepted (`counts`) or a repeat; return the feed's
    index."""
    feed = feed_of_lane[trade["lane"]]
    alive = trade["ts_recv"] // np.int64(1000)
    if alive > feeds[feed]["last_alive"]:
        feeds[feed]["last_alive"] = alive
    if counts and trade["ts_event"] > feeds[feed]["latest_push"]:
        feeds[feed]["latest_push"] = trade["ts_event"]
        if trade["ts_event"] > feeds[feed]["latest_event"]:
            feeds[feed]["latest_event"] = trade["ts_event"]
    return int(feed)
