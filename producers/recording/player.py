"""Plays a recording into the producer's core in a socket's place: connections as they were
recorded, or one for each business of frames that were recorded without."""

import random
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import orjson

from producers.delivery.sink import Sink
from producers.feed.metrics import FeedCounters
from producers.feed.protocol import FeedProtocol
from producers.feed.repeats import Delivered
from producers.feed.settings import FeedSettings
from producers.feed.states import State
from producers.recording.reader import RecordedEvent, RecordedFrame, Recording, RecordingEntry
from producers.vendor.symbols import (
    BUSINESSES,
    BadSymbol,
    Feed,
    business_of,
    is_common_by_default,
    normal,
)


class _ReplayedProtocol(FeedProtocol):
    """A feed's protocol whose recording may begin after the acks of its connection, and have those
    of the next."""

    def expect_acks(self) -> None:
        """Begin symbols with the vendor's acks from the next connection on."""
        self._settings = replace(self._settings, has_acks=True)


@dataclass(slots=True)
class _Playback:
    """A feed under way: when its connection was made, and the last time that it was heard of."""

    protocol: _ReplayedProtocol
    connected: int = 0
    last: int = 0


class Player:
    """Plays entries in their order into one core for each feed; the receive time takes the place of
    the producer's clock."""

    def __init__(
        self,
        recording: Recording,
        partitions: Mapping[str, int],
        sink: Sink,
        businesses: Mapping[str, str] | None = None,
        swapped: Collection[str] = (),
    ) -> None:
        """`businesses` names that of symbols which were recorded without; `swapped` those whose
        books have their sides swapped."""
        self.counters: dict[str, FeedCounters] = {}
        self.guessed: list[str] = []
        """Symbols that are played as `common` only as nothing says which business carried them."""
        self._recording = recording
        self._partitions = partitions
        self._sink = sink
        self._swapped = frozenset(swapped)
        self._playbacks: dict[str, _Playback] = {}
        self._carried: dict[str, _ReplayedProtocol] = {}
        self._last = recording.entries[-1].recv_us if recording.entries else 0
        recorded = {entry.feed for entry in recording.entries if entry.feed}
        plain = [frame for frame in recording.frames if not frame.feed]
        self._plain = _plain_feeds(self._businesses_of(plain, businesses or {}), recorded)
        self._plain_of = {
            symbol: feed.name for feed in self._plain.values() for symbol in feed.symbols
        }

    def play(self, entry: RecordingEntry) -> None:
        """Play the next entry."""
        if isinstance(entry, RecordedFrame):
            self._frame(entry)
        elif entry.event == "connected":
            self._connected(entry)
        elif entry.event == "changed":
            self._changed(entry)
        elif entry.event == "pong":
            playback = self._playbacks.get(entry.feed)
            if playback is not None and playback.protocol.state is State.OPEN:
                playback.last = entry.recv_us
                self._sink.publish(
                    playback.protocol.pong(entry.recv_us), playback.protocol.counters
                )
        elif entry.event != "subscribed":
            # the acks among the frames say what was subscribed
            self._lost(entry)

    def end(self) -> None:
        """End in order what the recording leaves open, but no feed that the vendor refused."""
        for name, playback in sorted(self._playbacks.items()):
            if playback.protocol.state not in (State.ENDED, State.REFUSED):
                outputs, _ = playback.protocol.ended(
                    self._last if name in self._plain else playback.last
                )
                self._sink.publish(outputs, playback.protocol.counters)

    def _frame(self, frame: RecordedFrame) -> None:
        # a frame without feed and symbol goes to the first feed: every frame is delivered or
        # dead-lettered
        name = (
            frame.feed or self._plain_of.get(_symbol(frame.frame) or "") or next(iter(self._plain))
        )
        playback = self._playbacks.get(name)
        if playback is None or playback.protocol.state in (State.DOWN, State.ENDED):
            feed = self._plain.get(name) or self._described(name)
            playback = self._open(feed, frame.recv_us, has_acks=False)
        playback.last = frame.recv_us
        self._sink.publish(
            playback.protocol.receive(frame.frame, frame.recv_us), playback.protocol.counters
        )

    def _connected(self, event: RecordedEvent) -> None:
        playback = self._playbacks.get(event.feed)
        if event.since is not None:
            if playback is None or playback.connected != event.since:
                self._open(_feed(event), event.recv_us, has_acks=False).connected = event.since
        elif playback is not None and playback.protocol.state is State.DOWN:
            playback.connected = playback.last = event.recv_us
            playback.protocol.expect_acks()
            self._sink.publish(
                playback.protocol.connected(event.recv_us), playback.protocol.counters
            )
        else:
            # the first, or one of another process: the one before had ended, or was killed
            self._open(_feed(event), event.recv_us, has_acks=True)

    def _changed(self, event: RecordedEvent) -> None:
        playback = self._playbacks.get(event.feed)
        if playback is None or playback.protocol.state is State.ENDED:
            # a feed that the change began
            playback = self._begin(replace(_feed(event), symbols=()), has_acks=True)
        playback.last = event.recv_us
        taken = {
            symbol: self._playbacks[name].protocol.released[symbol]
            for symbol, name in event.taken_from.items()
            if name in self._playbacks and symbol in self._playbacks[name].protocol.released
        }
        self._sink.publish(
            playback.protocol.change_symbols(event.symbols, taken, event.recv_us),
            playback.protocol.counters,
        )
        self._carried.update(dict.fromkeys(event.symbols, playback.protocol))

    def _lost(self, event: RecordedEvent) -> None:
        playback = self._playbacks.get(event.feed)
        if playback is None or playback.protocol.state is State.ENDED:
            playback = self._begin(_feed(event), has_acks=True)
        playback.last = event.recv_us
        if event.event == "disconnected":
            outputs = playback.protocol.disconnected(event.recv_us, event.reason, event.read_us)
        else:
            outputs, _ = playback.protocol.ended(event.recv_us, event.read_us)
        self._sink.publish(outputs, playback.protocol.counters)

    def _open(self, feed: Feed, now: int, has_acks: bool) -> _Playback:
        playback = self._begin(feed, has_acks)
        playback.connected = playback.last = now
        self._sink.publish(playback.protocol.connected(now), playback.protocol.counters)
        return playback

    def _begin(self, feed: Feed, has_acks: bool) -> _Playback:
        counters = self.counters.setdefault(feed.name, FeedCounters(feed.name))
        settings = FeedSettings(
            source="replay",
            has_acks=has_acks,
            swapped_sides=feed.business in self._swapped,
            delivered_before=self._delivered_before,
        )
        playback = self._playbacks[feed.name] = _Playback(
            _ReplayedProtocol(feed, settings, self._partitions, counters, random.Random(0))
        )
        self._carried.update(dict.fromkeys(feed.symbols, playback.protocol))
        return playback

    def _delivered_before(self, symbol: str) -> Delivered | None:
        # what a process reads back from the topic at its start
        protocol = self._carried.get(symbol)
        return None if protocol is None else protocol.delivered(symbol)

    def _described(self, name: str) -> Feed:
        """Return a feed whose beginning is missing, by what the rest of the recording says of
        it."""
        entries = [entry for entry in self._recording.entries if entry.feed == name]
        for entry in entries:
            if isinstance(entry, RecordedEvent) and entry.symbols:
                return _feed(entry)
        business, symbols = name.rpartition("-")[0], tuple(_symbols(entries))
        if business not in BUSINESSES:
            business = "common"
            self.guessed += symbols
        return Feed(name, business, symbols)

    def _businesses_of(
        self, frames: list[RecordedFrame], named: Mapping[str, str]
    ) -> dict[str, str]:
        """Return the business of each symbol of frames recorded without: an unknown one is
        `common`, never left out."""
        businesses: dict[str, str] = {}
        for symbol in _symbols(frames):
            try:
                said = named.get(normal(symbol))
                businesses[symbol] = said or business_of(symbol)
                guessed = said is None and is_common_by_default(symbol)
            except BadSymbol:
                businesses[symbol], guessed = "common", True
            if guessed:
                self.guessed.append(symbol)
        return businesses


def _feed(event: RecordedEvent) -> Feed:
    return Feed(event.feed, event.business or event.feed.rpartition("-")[0], event.symbols)


def _plain_feeds(businesses: Mapping[str, str], taken: set[str]) -> dict[str, Feed]:
    """Return the feeds of frames recorded without, by the business of each symbol."""
    feeds: dict[str, Feed] = {}
    for business in sorted(set(businesses.values())) or ["common"]:
        number = next(
            number for number in range(1, len(taken) + 2) if f"{business}-{number}" not in taken
        )
        name = f"{business}-{number}"
        feeds[name] = Feed(
            name, business, tuple(symbol for symbol in businesses if businesses[symbol] == business)
        )
    return feeds


def _symbols(entries: Iterable[RecordingEntry]) -> list[str]:
    found = {_symbol(entry.frame) for entry in entries if isinstance(entry, RecordedFrame)}
    return sorted(symbol for symbol in found if symbol is not None)


def _symbol(frame: bytes) -> str | None:
    try:
        symbol = orjson.loads(frame)["data"]["s"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None  # the producer's core dead-letters it
    return symbol if isinstance(symbol, str) and symbol else None
