"""What the depth agent remembers of each symbol's books, and its form in the state topic."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import orjson

from processors.model.event_time import Feeds

Level = tuple[int, int]
"""(price, size) in units of 10^-18."""

Best = tuple[int, int, int, int]
"""Best bid, its size, best ask, its size."""

BOOK_KEY = b"book:"

_VERSION = 1
"""The first byte of an entry. One of the versions before is a JSON list, and begins with `[`."""
_SETTLED, _REVERSED, _HAS_BEST = 1, 2, 4
_SETTLED_JSON = 3
"""How the versions before said that the sides of a symbol are settled: the first of them counted
evidence, and three was enough."""


@dataclass(slots=True)
class SymbolBook:
    """What is remembered of a symbol's books."""

    connection: str = ""
    settled: bool = False
    """Whether the order of levels has shown which list is which: it holds until the connection
    ends."""
    reversed: bool = False
    """Whether list a is read as the bids."""
    best: Best | None = None
    """Top of the book before; None where order flow must not be measured from it."""


class DepthState:
    """The state of one partition: its feeds and each symbol's book before."""

    def __init__(self, feeds: Feeds, partition: int, entries: Mapping[bytes, bytes]) -> None:
        self.feeds = feeds
        self.partition = partition
        self.books: dict[str, SymbolBook] = {}
        self.changed: set[str] = set()
        for symbol, known, is_old in stored_books(entries):
            self.books[symbol] = known
            if is_old:
                self.changed.add(symbol)

    def book(self, symbol: str) -> SymbolBook:
        """Return what is remembered of a symbol's books, to be changed and kept."""
        known = self.books.get(symbol)
        return SymbolBook() if known is None else known

    def keep(self, symbol: str, known: SymbolBook) -> None:
        """Remember a symbol's book."""
        self.books[symbol] = known
        self.changed.add(symbol)

    def interrupted(self, symbols: Iterable[str]) -> None:
        """After a control record: start the order flow of these symbols again with their next
        books."""
        for symbol in symbols:
            known = self.books.get(symbol)
            if known is not None and known.best is not None:
                known.best = None
                self.changed.add(symbol)

    def dirty(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield what changed since the last call, and forget it."""
        yield from self.feeds.dirty()
        for symbol in sorted(self.changed):
            yield BOOK_KEY + symbol.encode(), packed(self.books[symbol])
        self.changed.clear()


def stored_books(entries: Mapping[bytes, bytes]) -> Iterator[tuple[str, SymbolBook, bool]]:
    """Yield the symbols' books of a state topic, each with whether its entry is of a version
    before and has to be rewritten; raises ValueError for one that this version cannot read."""
    for key, value in entries.items():
        if key.startswith(BOOK_KEY):
            symbol = key.removeprefix(BOOK_KEY).decode()
            is_old = value.startswith(b"[")
            yield symbol, (_of_json(value) if is_old else unpacked(symbol, value)), is_old


def packed(known: SymbolBook) -> bytes:
    """Return an entry: the version, flags, the connection behind its length (two bytes), and the
    four numbers of `best` as big-endian two's complement, each behind its length (one byte)."""
    name = known.connection.encode()
    flags = _SETTLED * known.settled | _REVERSED * known.reversed
    if known.best is not None:
        flags |= _HAS_BEST
    parts = [bytes((_VERSION, flags)), len(name).to_bytes(2, "big"), name]
    for number in known.best or ():
        size = (number.bit_length() >> 3) + 1
        parts.append(bytes((size,)) + number.to_bytes(size, "big", signed=True))
    return b"".join(parts)


def unpacked(symbol: str, entry: bytes) -> SymbolBook:
    """Return what `packed` wrote; raises ValueError for what it did not write."""
    if len(entry) < 4 or entry[0] != _VERSION:
        raise ValueError(
            f"the book of {symbol} has the form {entry[:1].hex() or '(none)'}, and this version "
            f"knows {_VERSION:02x}: a newer version wrote it; start that one"
        )
    flags, at = entry[1], 4 + int.from_bytes(entry[2:4], "big")
    connection = entry[4:at].decode()
    numbers: list[int] = []
    while flags & _HAS_BEST and len(numbers) < 4:
        after = at + 1 + entry[at]
        numbers.append(int.from_bytes(entry[at + 1 : after], "big", signed=True))
        at = after
    best = (numbers[0], numbers[1], numbers[2], numbers[3]) if numbers else None
    return SymbolBook(connection, bool(flags & _SETTLED), bool(flags & _REVERSED), best)


def _of_json(entry: bytes) -> SymbolBook:
    connection, evidence, is_reversed, best = orjson.loads(entry)
    known = None if best is None else (int(best[0]), int(best[1]), int(best[2]), int(best[3]))
    return SymbolBook(connection, abs(evidence) >= _SETTLED_JSON, is_reversed, known)
