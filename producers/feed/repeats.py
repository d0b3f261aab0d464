"""Finds the trades that a subscription delivers again: the vendor answers it by what came before.
Between two subscriptions no trade is a repeat.

Values are compared, not spellings: 98.150 is 98.15. Direction 0 is "unknown" and matches any.
"""

from collections import deque
from collections.abc import Collection, Iterable
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
        self.newest = 0
        """The greatest event time of all, matched or not (ms)."""
        self._directions: dict[_Value, list[int]] = {}
        for trade in trades:
            self.newest = max(self.newest, trade[0])
            self._directions.setdefault(value_of(trade), []).append(trade[3])

    def take(self, trade: TradeIdentity) -> bool:
        """Return whether one of the trades is this one, and count it as matched."""
        left, direction = self._directions.get(value_of(trade)), trade[3]
        if not left:
            return False
        if direction in left:
            left.remove(direction)
        elif direction == 0:
            left.pop()
        elif 0 in left:
            left.remove(0)
        else:
            return False
        return True

    def pop(self, trade: TradeIdentity) -> bool:
        """Take out a trade as it was delivered; return whether it was still unmatched."""
        left = self._directions.get(value_of(trade), [])
        if trade[3] not in left:
            return False
        left.remove(trade[3])
        return True


class Repeats:
    """Remembers per symbol its last trade, and what was delivered in the last minute of a
    connection."""

    def __init__(self) -> None:
        self._delivered: dict[str, Delivered] = {}
        self._before: dict[str, Delivered] = {}
        self._unmatched: dict[str, _Unmatched] = {}
        """Of the symbols of `_before` of which something has come since."""

    def is_repeat(self, symbol: str, trade: TradeIdentity, now_us: int) -> bool:
        """Remember a trade received at `now_us` (microseconds); return whether it is one that came
        before the symbol's subscription."""
        delivered = self._delivered.get(symbol)
        if delivered is None:
            delivered = self._delivered[symbol] = deque()
        delivered.append((now_us, trade))
        # the last one stays, however old: a subscription may be answered by it hours later
        while delivered[0][0] < now_us - MEMORY:
            delivered.popleft()
        if symbol not in self._before:
            return False
        unmatched = self._unmatched.get(symbol)
        if unmatched is None:
            unmatched = self._unmatched[symbol] = _Unmatched(
                trade for _, trade in self._before[symbol]
            )
        # what is newer than the symbol's last trade is none of those before
        return trade[0] <= unmatched.newest and unmatched.take(trade)

    def subscribed(self, symbols: Iterable[str]) -> None:
        """Note that the vendor has taken a subscription of these symbols.

        It answers by the last trade. That may have come on this very connection, where the symbols
        were asked for before.
        """
        for symbol in symbols:
            if symbol in self._delivered:
                self.take_over(symbol, self.of(symbol))

    def of(self, symbol: str) -> Delivered:
        """Return what was delivered of a symbol and by no later subscription again; what is still
        delivered joins it."""
        unmatched, kept = self._unmatched.pop(symbol, None), Delivered()
        for received, trade in self._before.pop(symbol, ()):
            if unmatched is None or unmatched.pop(trade):
                kept.append((received, trade))
        delivered = self._delivered.setdefault(symbol, Delivered())
        delivered.extendleft(reversed(kept))
        return delivered

    def take_over(self, symbol: str, delivered: Delivered) -> None:
        """Take what was delivered of a symbol, here, by another feed or another process, for what
        came before its subscription."""
        self._before[symbol] = delivered.copy()
        self._delivered.pop(symbol, None)
        self._unmatched.pop(symbol, None)

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
        for symbol in list(self._before):
            self.of(symbol)
        self._before = {
            symbol: _last_of(delivered, now_us)
            for symbol, delivered in self._delivered.items()
            if delivered
        }
        self._delivered = {}
        former = [symbol for symbol in self._before if symbol not in asked]
        if surplus := len(former) - 2 * len(asked) - FORMER:
            former.sort(key=lambda symbol: self._before[symbol][-1][0])
            for symbol in former[: max(surplus, 0)]:
                del self._before[symbol]


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
