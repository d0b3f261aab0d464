"""Runs the feeds of a process, a thread each, and changes what they carry while they run; it plans
nothing and knows no frame."""

import random
import threading
import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, replace

from producers.delivery.sink import Sink
from producers.feed.metrics import FeedCounters
from producers.feed.protocol import FeedProtocol, Handover
from producers.feed.repeats import FORMER, Delivered
from producers.feed.states import State
from producers.transport.endpoint import Endpoint
from producers.transport.websocket import run_feed
from producers.vendor.symbols import Feed

RELEASE = 1.0
"""Seconds between the end of a connection and what takes its place: the vendor may count it for a
moment still (its code 512)."""
_PERIOD = 0.05
"""Seconds between two looks at feeds that are to let go of symbols."""


@dataclass(frozen=True, slots=True)
class _Running:
    protocol: FeedProtocol
    stop: threading.Event
    thread: threading.Thread


class RunningFeeds:
    """The feeds of a process from `with` to its end, or to the first failure of one, which ends
    all.

    A change is made in two steps, so that the package's connections and symbols are never exceeded:
    feeds end and let go of symbols, and only when the vendor has answered that, other feeds take
    symbols and new ones begin. A later change takes a change's place.
    """

    def __init__(
        self,
        feeds: Sequence[Feed],
        make: Callable[[Feed, FeedCounters], FeedProtocol],
        endpoint: Endpoint,
        sink: Sink,
        stop: threading.Event,
        chance: random.Random,
        delivered: MutableMapping[str, Delivered] | None = None,
    ) -> None:
        """`make` makes a feed's protocol; `stop` is set when all ends. `delivered` gets the last
        trades of symbols that are let go."""
        self.feeds = tuple(feeds)
        """The feeds that are wanted, with their symbols."""
        self.failure: Exception | None = None
        """Why the feeds ended, where one failed."""
        self._make = make
        self._endpoint = endpoint
        self._sink = sink
        self._stop = stop
        self._chance = chance
        self._counters: dict[str, FeedCounters] = {}
        self._handovers: dict[str, Handover] = {}
        self._delivered = {} if delivered is None else delivered
        self._ended = 0.0
        self._woken = threading.Event()
        self._running = {feed.name: self._prepared(self._protocol_of(feed)) for feed in feeds}
        self._thread = threading.Thread(target=self._run, name="feeds", daemon=True)

    def __enter__(self) -> "RunningFeeds":
        for each in self._running.values():
            each.thread.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._woken.set()
        self._thread.join()

    @property
    def counters(self) -> list[FeedCounters]:
        """The counters of every feed that there was; one that comes back counts on."""
        return list(self._counters.values())

    @property
    def wanted_counters(self) -> list[FeedCounters]:
        """The counters of the feeds that are wanted, as far as they have begun."""
        return [self._counters[feed.name] for feed in self.feeds if feed.name in self._counters]

    @property
    def not_subscribed(self) -> list[str]:
        """The names of the feeds that are wanted and do not carry all their symbols now."""
        running = {feed.name: self._running.get(feed.name) for feed in self.feeds}
        return [
            name
            for name, each in running.items()
            if each is None or not _carries_all(each.protocol)
        ]

    def change(self, feeds: Sequence[Feed]) -> None:
        """Have these feeds from now on; a feed that keeps its name keeps its connection."""
        self.feeds = tuple(feeds)
        self._woken.set()

    def check(self) -> None:
        """Raise what ended the feeds, where something did."""
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self._stop.is_set() and self.failure is None:
                self._woken.wait(None if self._step() else _PERIOD)
                self._woken.clear()
        except Exception as error:  # noqa: BLE001 - handed to the main thread, which ends with it
            self.failure = error
        finally:
            self._stop.set()
            for each in self._running.values():
                each.stop.set()
            for each in self._running.values():
                each.thread.join()

    def _step(self) -> bool:
        """Do what can be done now; return whether all feeds are as they are wanted."""
        wanted = {feed.name: feed for feed in self.feeds}
        known = list(self._running.values())
        for name, each in list(self._running.items()):
            if not each.thread.is_alive():
                del self._running[name]
                self._ended = time.monotonic()
            elif name not in wanted:
                each.stop.set()
            else:
                self._let_go(each.protocol, wanted[name])
        ready = all(
            each.protocol.is_up_to_date and not each.stop.is_set()
            for each in self._running.values()
        )
        # only now: a feed that was seen ready has released by then all that it let go
        for each in known:
            while each.protocol.released:
                symbol, handover = each.protocol.released.popitem()
                self._handovers[symbol] = handover
        if not ready:
            return False
        if wanted.keys() - self._running.keys() and time.monotonic() - self._ended < RELEASE:
            return False
        for feed in wanted.values():
            self._carry(feed)
        # what nobody has taken over has ended in order
        self._remember_handovers()
        self._handovers.clear()
        return all(each.protocol.is_up_to_date for each in self._running.values())

    def _remember_handovers(self) -> None:
        if not self._handovers:
            return
        self._delivered.update(
            {
                symbol: handover.delivered
                for symbol, handover in self._handovers.items()
                if handover.delivered
            }
        )
        asked = {symbol for feed in self.feeds for symbol in feed.symbols}
        former = [symbol for symbol in self._delivered if symbol not in asked]
        for symbol in former[: max(0, len(former) - 2 * len(asked) - FORMER)]:
            del self._delivered[symbol]

    def _let_go(self, protocol: FeedProtocol, feed: Feed) -> None:
        kept = tuple(symbol for symbol in protocol.wanted_symbols if symbol in feed.symbols)
        if kept == protocol.wanted_symbols:
            return
        for symbol in set(protocol.wanted_symbols).difference(kept):
            # wanted, and never taken up
            handover = protocol.handovers.pop(symbol, None)
            if handover is not None:
                self._handovers[symbol] = handover
        protocol.wanted_symbols = kept

    def _carry(self, feed: Feed) -> None:
        each = self._running.get(feed.name)
        protocol = self._protocol_of(replace(feed, symbols=())) if each is None else each.protocol
        if protocol.wanted_symbols != feed.symbols:
            gained = set(feed.symbols).difference(protocol.wanted_symbols)
            protocol.handovers.update(
                {
                    symbol: handover
                    for symbol, handover in self._handovers.items()
                    if symbol in gained
                }
            )
            protocol.wanted_symbols = feed.symbols
        if each is None:
            started = self._running[feed.name] = self._prepared(protocol)
            started.thread.start()

    def _protocol_of(self, feed: Feed) -> FeedProtocol:
        return self._make(feed, self._counters.setdefault(feed.name, FeedCounters(feed.name)))

    def _prepared(self, protocol: FeedProtocol) -> _Running:
        stop = threading.Event()
        return _Running(
            protocol,
            stop,
            threading.Thread(
                target=self._feed, args=(protocol, stop), name=protocol.feed.name, daemon=True
            ),
        )

    def _feed(self, protocol: FeedProtocol, stop: threading.Event) -> None:
        try:
            run_feed(protocol, self._endpoint, self._sink, stop, self._chance)
        except Exception as error:  # noqa: BLE001 - handed to the main thread, which ends with it
            self.failure = self.failure or error
        finally:
            self._woken.set()


def _carries_all(protocol: FeedProtocol) -> bool:
    # a connection that was lost keeps its answers
    return protocol.state is State.OPEN and protocol.is_up_to_date and protocol.subscribed
