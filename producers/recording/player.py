"""Plays a recording into the producer's core in a socket's place: connections as they were recorded, or one for each business
of frames that were recorded without."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import orjson

from infra.recordings import Entry, RecordedEvent, RecordedFrame, Recording
from producers.counters import FeedCounters
from producers.protocol import FeedProtocol, State
from producers.publish import Sink
from producers.settings import FeedSettings
from producers.symbols import BUSINESSES, BadSymbol, Feed, business_of


class _PlayedFeed(FeedProtocol):
    """A feed's protocol whose recording may begin after the acks of its connection, and have those of the next."""

    def expect_acks(self) -> None:
        """Begin symbols with the vendor's acks from the next connection on."""
        self._settings = replace(self._settings, has_acks=True)


@dataclass(slots=True)
class _Played:
    """A feed under way: when its connection was made, and the last time that it was heard of."""

    core: _PlayedFeed
    connected: int = 0
    last: int = 0


class Player:
    """Plays entries in their order into one core for each feed; the receive time takes the place of the producer's clock."""

    def __init__(self, recording: Recording, partitions: Mapping[str, int], sink: Sink) -> None:
        self.counters: dict[str, FeedCounters] = {}
        self._recording = recording
        self._partitions = partitions
        self._sink = sink
        self._played: dict[str, _Played] = {}
        self._last = recording.entries[-1].recv_us if recording.entries else 0
        recorded = {entry.feed for entry in recording.entries if entry.feed}
        self._plain = _plain_feeds(
            [frame for frame in recording.frames if not frame.feed], recorded
        )
        self._plain_of = {
            symbol: feed.name for feed in self._plain.values() for symbol in feed.symbols
        }

    def play(self, entry: Entry) -> None:
        """Play the next entry."""
        if isinstance(entry, RecordedFrame):
            self._frame(entry)
        elif entry.event == "connected":
            self._connected(entry)
        elif entry.event == "changed":
            self._changed(entry)
        elif entry.event == "pong":
            played = self._played.get(entry.feed)
            if played is not None and played.core.state is State.OPEN:
                played.last = entry.recv_us
                self._sink.publish(played.core.pong(entry.recv_us), played.core.counters)
        elif entry.event != "subscribed":
            # the acks among the frames say what was subscribed
            self._lost(entry)

    def end(self) -> None:
        """End in order what the recording leaves open, but no feed that the vendor refused."""
        for name, played in sorted(self._played.items()):
            if played.core.state not in (State.ENDED, State.REFUSED):
                outputs, _ = played.core.ended(self._last if name in self._plain else played.last)
                self._sink.publish(outputs, played.core.counters)

    def _frame(self, frame: RecordedFrame) -> None:
        # a frame without feed and symbol is told of the first feed: every frame is delivered or dead-lettered
        name = (
            frame.feed or self._plain_of.get(_symbol(frame.frame) or "") or next(iter(self._plain))
        )
        played = self._played.get(name)
        if played is None or played.core.state in (State.DOWN, State.ENDED):
            feed = self._plain.get(name) or self._described(name)
            played = self._open(feed, frame.recv_us, has_acks=False)
        played.last = frame.recv_us
        self._sink.publish(played.core.receive(frame.frame, frame.recv_us), played.core.counters)

    def _connected(self, event: RecordedEvent) -> None:
        played = self._played.get(event.feed)
        if event.since is not None:
            if played is None or played.connected != event.since:
                self._open(_feed(event), event.recv_us, has_acks=False).connected = event.since
        elif played is not None and played.core.state is State.DOWN:
            played.connected = played.last = event.recv_us
            played.core.expect_acks()
            self._sink.publish(played.core.connected(event.recv_us), played.core.counters)
        else:
            # the first, or one of another process: the one before had ended, or was killed
            self._open(_feed(event), event.recv_us, has_acks=True)

    def _changed(self, event: RecordedEvent) -> None:
        played = self._played.get(event.feed)
        if played is None or played.core.state is State.ENDED:
            # a feed that the change began
            played = self._begin(replace(_feed(event), symbols=()), has_acks=True)
        played.last = event.recv_us
        taken = {
            symbol: self._played[name].core.left[symbol]
            for symbol, name in event.taken_from.items()
            if name in self._played and symbol in self._played[name].core.left
        }
        self._sink.publish(
            played.core.change_symbols(event.symbols, taken, event.recv_us), played.core.counters
        )

    def _lost(self, event: RecordedEvent) -> None:
        played = self._played.get(event.feed)
        if played is None or played.core.state is State.ENDED:
            played = self._begin(_feed(event), has_acks=True)
        played.last = event.recv_us
        if event.event == "disconnected":
            outputs = played.core.disconnected(event.recv_us, event.reason, event.read_us)
        else:
            outputs, _ = played.core.ended(event.recv_us, event.read_us)
        self._sink.publish(outputs, played.core.counters)

    def _open(self, feed: Feed, now: int, has_acks: bool) -> _Played:
        played = self._begin(feed, has_acks)
        played.connected = played.last = now
        self._sink.publish(played.core.connected(now), played.core.counters)
        return played

    def _begin(self, feed: Feed, has_acks: bool) -> _Played:
        counters = self.counters.setdefault(feed.name, FeedCounters(feed.name))
        settings = FeedSettings(source="replay", has_acks=has_acks)
        played = self._played[feed.name] = _Played(
            _PlayedFeed(feed, settings, self._partitions, counters, random.Random(0))
        )
        return played

    def _described(self, name: str) -> Feed:
        """Return a feed whose beginning is missing, by what the rest of the recording says of it."""
        entries = [entry for entry in self._recording.entries if entry.feed == name]
        for entry in entries:
            if isinstance(entry, RecordedEvent) and entry.symbols:
                return _feed(entry)
        business = name.rpartition("-")[0]
        return Feed(
            name, business if business in BUSINESSES else "common", tuple(_symbols(entries))
        )


def _feed(event: RecordedEvent) -> Feed:
    return Feed(event.feed, event.business or event.feed.rpartition("-")[0], event.symbols)


def _plain_feeds(frames: list[RecordedFrame], taken: set[str]) -> dict[str, Feed]:
    """Return the feeds of frames recorded without: a symbol whose business cannot be told is played as `common`, never left out."""
    businesses: dict[str, str] = {}
    for symbol in _symbols(frames):
        try:
            businesses[symbol] = business_of(symbol)
        except BadSymbol:
            businesses[symbol] = "common"
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


def _symbols(entries: Iterable[Entry]) -> list[str]:
    found = {_symbol(entry.frame) for entry in entries if isinstance(entry, RecordedFrame)}
    return sorted(symbol for symbol in found if symbol is not None)


def _symbol(frame: bytes) -> str | None:
    try:
        symbol = orjson.loads(frame)["data"]["s"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None  # the producer's core dead-letters it
    return symbol if isinstance(symbol, str) and symbol else None
