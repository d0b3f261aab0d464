"""Finds the trades that a subscription delivers again: the vendor answers it by what came before.
Between two subscriptions no trade is a repeat.

Values are compared, not spellings: 98.150 is 98.15. Direction 0 is "unknown" and matches any.
"""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

from schemas.decimals import to_units

MEMORY = 60_000_000
"""Microseconds of an earlier connection that a new one may deliver again."""
FORMER = 100
"""Symbols beyond twice the asked ones whose last trade is remembered though nobody asks for
them."""

TradeIdentity = tuple[int, str, str, int]
"""ts_event, price, volume, direction: all that identifies a trade, and two real ones can be equal
in it."""

Delivered = deque[tuple[int, TradeIdentity]]
"""Trades of a symbol with their receipt (microseconds), oldest first."""

_Value = tuple[int, int, int]
"""ts_event, price and volume in units."""

# prices and sizes repeat
_units = lru_cache(maxsize=1 << 14)(to_units)


class _Unmatched:
    """Trades of a symbol that came before its subscription and since then not again, a multiset."""

    def __init__(self, trades: Iterable[TradeIdentity]) -> None:
        self._newest = 0
        """The greatest event time of all, matched or not (ms)."""
        self._directions: dict[_Value, list[int]] = {}
        for trade in trades:
            self._newest = max(self._newest, trade[0])
            self._directions.setdefault(value_of(trade), []).append(trade[3])

    def take(self, trade: TradeIdentity) -> bool:
        """Return whether one of the trades is this one, and count it as matched."""
        # what is newer than the symbol's last trade is none of those before
        left = self._directions.get(value_of(trade)) if trade[0] <= self._newest else None
        at = _match(left, trade[3]) if left else None
        if left is None or at is None:
            return False
        del left[at]
        return True


class Repeats:
    """Remembers per symbol its last trade, and what was delivered in the last minute."""

    def __init__(self) -> None:
        self._delivered: dict[str, Delivered] = {}
        self._before: dict[str, Delivered] = {}
        """What came before the last subscription of a symbol."""
        self._unmatched: dict[str, _Unmatched] = {}
        """Of the symbols of `_before` of which something has come since."""

    def is_repeat(self, symbol: str, trade: TradeIdentity, now_us: int) -> bool:
        """Remember a trade received at `now_us` (microseconds); return whether it is one that came
        before the symbol's subscription."""
        delivered = self._delivered.get(symbol)
        if delivered is None:
            delivered = self._delivered[symbol] = deque()
        repeat = symbol in self._before and self._came_before(symbol, trade)
        if repeat and (place := _place_in(delivered, trade)) is not None:
            # it came twice, and is one trade
            del delivered[place]
        delivered.append((now_us, trade))
        # the last one stays, however old: a subscription may be answered by it hours later
        while delivered[0][0] < now_us - MEMORY:
            delivered.popleft()
        return repeat

    def subscribed(self, symbols: Iterable[str]) -> None:
        """Note that the vendor has taken a subscription of these symbols.

        It answers by the last trade. That may have come on this very connection, where the symbols
        were asked for before. A trade that comes again before the ack cannot be told from an equal
        one.
        """
        for symbol in symbols:
            if symbol in self._delivered:
                self._before[symbol] = self._delivered[symbol].copy()
                self._unmatched.pop(symbol, None)

    def of(self, symbol: str) -> Delivered:
        """Return what was delivered of a symbol; what is still delivered joins it."""
        return self._delivered.setdefault(symbol, Delivered())

    def take_up(self, symbol: str, *known: Delivered | None) -> None:
        """Begin to ask for a symbol, of which this, another feed or another process has delivered
        something before: the newest of these counts."""
        newest = max(
            (each for each in (self.of(symbol), *known) if each),
            key=lambda each: each[-1][0],
            default=None,
        )
        if newest is not None:
            if newest is not self._delivered[symbol]:
                self._delivered[symbol] = newest.copy()
            self.subscribed([symbol])

    def forget(self, symbols: Iterable[str]) -> None:
        """Remember nothing of these symbols."""
        for symbol in symbols:
            self._delivered.pop(symbol, None)
            self._before.pop(symbol, None)
            self._unmatched.pop(symbol, None)

    def reconnect(self, now_us: int, asked: Collection[str]) -> None:
        """Begin a new connection for the symbols asked for; the one before ended at `now_us`.

        What no connection has delivered again yet stays remembered, so that a connection that dies
        at once forgets nothing.
        """
        self._delivered = {
            symbol: _last_of(delivered, now_us)
            for symbol, delivered in self._delivered.items()
            if delivered
        }
        self._before, self._unmatched = {}, {}
        former = [symbol for symbol in self._delivered if symbol not in asked]
        if surplus := len(former) - 2 * len(asked) - FORMER:
            former.sort(key=lambda symbol: self._delivered[symbol][-1][0])
            self.forget(former[: max(surplus, 0)])
        self.subscribed(self._delivered)

    def _came_before(self, symbol: str, trade: TradeIdentity) -> bool:
        unmatched = self._unmatched.get(symbol)
        if unmatched is None:
            unmatched = self._unmatched[symbol] = _Unmatched(
                trade for _, trade in self._before[symbol]
            )
        return unmatched.take(trade)


def _match(directions: Sequence[int], direction: int) -> int | None:
    """Return which of these directions is this one, the same before an unknown one."""
    if direction in directions:
        return directions.index(direction)
    if direction == 0:
        return len(directions) - 1
    return directions.index(0) if 0 in directions else None


def _place_in(delivered: Delivered, trade: TradeIdentity) -> int | None:
    """Return where this trade is among those, None where it is not."""
    value, time = value_of(trade), trade[0]
    places = [
        place
        for place, (_, each) in enumerate(delivered)
        if each[0] == time and value_of(each) == value
    ]
    found = _match([delivered[place][1][3] for place in places], trade[3]) if places else None
    return None if found is None else places[found]


def _last_of(delivered: Delivered, now_us: int) -> Delivered:
    """Return the trades of the last minute before `now_us`, and the last one in any case."""
    recent = deque(
        (received, trade) for received, trade in delivered if received >= now_us - MEMORY
    )
    return recent or deque([delivered[-1]])


def value_of(trade: TradeIdentity) -> _Value:
    """Return what two spellings of a trade have in common, whatever their direction."""
    ts_event, price, volume, _ = trade
    return ts_event, _units(price), _units(volume)
