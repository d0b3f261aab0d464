"""Spreads symbols over connections within the limits of the vendor's package; no I/O."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

from producers.vendor.frame_budget import FRAMES, RESERVED
from producers.vendor.subscriptions import channels_of
from producers.vendor.symbols import MAX_SYMBOLS, Feed, plan_feeds
from schemas.errors import SettingsWrong

_NAMED = 5


@dataclass(frozen=True, slots=True)
class Package:
    """What the vendor sells with a key.

    requests      REST requests a second
    connections   WebSocket connections at a time
    a_connection  symbols on one connection
    symbols       symbols of all connections together
    expires_ms    ms UTC; None: the vendor names no end
    """

    name: str
    requests: int
    connections: int
    a_connection: int
    symbols: int
    expires_ms: int | None = None


FREE = Package("Free", requests=1, connections=1, a_connection=10, symbols=10)
"""The vendor's smallest package, by its page on WebSocket limits. It is assumed if no other is
known."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """A limit of a package that is too low; `unfit` has the feeds beyond it, with their symbols."""

    what: str
    needed: int
    allowed: int
    unfit: tuple[Feed, ...]

    def __str__(self) -> str:
        unfit = ", ".join(f"{feed.name} ({_listed(feed.symbols)})" for feed in self.unfit)
        return (
            f"{self.needed} {self.what} are needed and it has {self.allowed}, "
            f"{self.needed - self.allowed} too few: no room for {unfit}"
        )


class PlanTooSmall(SettingsWrong):
    """The package does not allow these symbols; the message names every limit in one line."""

    def __init__(
        self, package: Package, feeds: Sequence[Feed], shortages: Sequence[Shortage]
    ) -> None:
        self.package = package
        self.shortages = tuple(shortages)
        wanted = Counter[str]()
        for feed in feeds:
            wanted[feed.business] += len(feed.symbols)
        asked = ", ".join(f"{business} {count}" for business, count in wanted.items())
        super().__init__(
            f"the package {package.name} is too small for these symbols ({asked}): "
            f"{'; '.join(map(str, self.shortages))}:"
            " take fewer symbols or businesses, or a larger package"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The feeds, one connection each, and the frames that each sends to subscribe: one for all
    symbols of a channel."""

    package: Package
    feeds: tuple[Feed, ...]
    frames: int


def plan(
    symbols: Iterable[str],
    package: Package,
    overrides: Mapping[str, str] | None = None,
    klines: Sequence[str] = ("1m",),
    running: Sequence[Feed] = (),
) -> Plan:
    """Return which connection carries which symbols: one business each, in the order given.

    `on_running_feeds` says what happens to feeds that run already.

    Raises BadSymbols with every mistake in the symbols, and PlanTooSmall with every limit that they
    exceed.
    """
    limit = min(package.a_connection, MAX_SYMBOLS)
    frames = len(channels_of(klines))
    feeds = plan_feeds(symbols, overrides, max(limit, 1))
    shortages = [
        shortage
        for shortage in _shortages(feeds, package, limit, frames)
        if shortage.needed > shortage.allowed
    ]
    if shortages:
        raise PlanTooSmall(package, feeds, shortages)
    return Plan(
        package, tuple(on_running_feeds(feeds, running, limit, package.connections)), frames
    )


def on_running_feeds(
    planned: Sequence[Feed],
    running: Sequence[Feed],
    limit: int = MAX_SYMBOLS,
    connections: int | None = None,
) -> list[Feed]:
    """Return the planned symbols on the feeds that run: a symbol stays on its feed if it can.

    A feed is given up if no symbol is left on it, or if there are more feeds than `connections`
    (None: any number). Of the feeds that a fresh plan would not need, the one with the fewest
    symbols goes first. Symbols without a feed fill up feeds of their business, with at most
    `limit` symbols each. The rest gets new feeds under free names. `planned` has to fit into
    `limit` and `connections`.
    """
    found: list[Feed] = []
    for business in dict.fromkeys(feed.business for feed in planned):
        wanted = [
            symbol for feed in planned if feed.business == business for symbol in feed.symbols
        ]
        kept = [_reduced(feed, set(wanted), limit) for feed in running if feed.business == business]
        found += _placed(wanted, business, [feed for feed in kept if feed.symbols], limit)
    while connections is not None and len(found) > connections:
        needed = Counter(feed.business for feed in planned)
        there = Counter(feed.business for feed in found)
        spare = min(
            (feed for feed in found if there[feed.business] > needed[feed.business]),
            key=lambda feed: len(feed.symbols),
        )
        others = [feed for feed in found if feed.business == spare.business and feed is not spare]
        moved = _placed(
            [symbol for feed in (*others, spare) for symbol in feed.symbols],
            spare.business,
            others,
            limit,
        )
        found = [feed for feed in found if feed.business != spare.business] + moved
    return found


def _reduced(feed: Feed, wanted: set[str], limit: int) -> Feed:
    return replace(
        feed, symbols=tuple(symbol for symbol in feed.symbols if symbol in wanted)[:limit]
    )


def _placed(wanted: Sequence[str], business: str, feeds: Sequence[Feed], limit: int) -> list[Feed]:
    """Return a business's feeds with all wanted symbols; symbols without a feed go where there is
    room."""
    placed = {symbol for feed in feeds for symbol in feed.symbols}
    left = [symbol for symbol in wanted if symbol not in placed]
    found = []
    for feed in feeds:
        room = limit - len(feed.symbols)
        found.append(replace(feed, symbols=(*feed.symbols, *left[:room])))
        left = left[room:]
    names = {feed.name for feed in feeds}
    numbers = (number for number in count(1) if f"{business}-{number}" not in names)
    return found + [
        Feed(f"{business}-{next(numbers)}", business, tuple(left[start : start + limit]))
        for start in range(0, len(left), limit)
    ]


def _shortages(feeds: Sequence[Feed], package: Package, limit: int, frames: int) -> list[Shortage]:
    every = tuple(feeds)
    return [
        Shortage(
            "connections", len(feeds), package.connections, every[max(package.connections, 0) :]
        ),
        Shortage(
            "symbols",
            sum(len(feed.symbols) for feed in feeds),
            package.symbols,
            _beyond(feeds, package.symbols),
        ),
        # a package without a symbol on a connection; any other limit only needs more connections
        Shortage("symbols a connection", 1 if feeds else 0, min(limit, 1), every),
        Shortage(
            "subscription frames a minute on a connection",
            frames if feeds else 0,
            FRAMES - RESERVED,
            every,
        ),
    ]


def _beyond(feeds: Sequence[Feed], allowed: int) -> tuple[Feed, ...]:
    left, beyond = allowed, []
    for feed in feeds:
        if len(feed.symbols) > left:
            beyond.append(Feed(feed.name, feed.business, feed.symbols[max(left, 0) :]))
        left -= len(feed.symbols)
    return tuple(beyond)


def _listed(symbols: Sequence[str]) -> str:
    more = f" and {len(symbols) - _NAMED} more" if len(symbols) > _NAMED else ""
    return (
        f"{len(symbols)} symbol{'s' if len(symbols) > 1 else ''}: "
        f"{', '.join(symbols[:_NAMED])}{more}"
    )
