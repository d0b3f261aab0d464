"""Tells the trades that a reconnect delivers again from new ones; within one connection nothing is ever a repeat."""

from collections import Counter, deque

MEMORY = 60_000_000
"""Microseconds of an earlier connection that a new one may deliver again."""

Trade = tuple[int, str, str, int]
"""ts_event, price, volume, direction: all that identifies a trade, and two real ones can be equal in it."""

Delivered = deque[tuple[int, Trade]]
"""Trades of a symbol with their receipt (microseconds), oldest first."""


class Repeats:
    """Remembers per symbol what was delivered in the last minute of a connection, as a multiset."""

    def __init__(self) -> None:
        self._delivered: dict[str, Delivered] = {}
        self._before: dict[str, Delivered] = {}
        self._unmatched: dict[str, Counter[Trade]] = {}

    def seen(self, symbol: str, trade: Trade, now: int) -> bool:
        """Remember a trade received at `now` (microseconds); return whether it is one that came before the reconnect."""
        delivered = self._delivered.get(symbol)
        if delivered is None:
            delivered = self._delivered[symbol] = deque()
        delivered.append((now, trade))
        while delivered[0][0] < now - MEMORY:
            delivered.popleft()
        unmatched = self._unmatched.get(symbol)
        # whatever matches is not newer than the symbol's last trade, as it is one of those before
        if not unmatched or not unmatched[trade]:
            return False
        unmatched[trade] -= 1
        return True

    def of(self, symbol: str) -> Delivered:
        """Return what was delivered of a symbol and by no later connection again; what is still delivered joins it."""
        left, kept = self._unmatched.pop(symbol, Counter[Trade]()), Delivered()
        for received, trade in self._before.pop(symbol, ()):
            if left[trade]:
                left[trade] -= 1
                kept.append((received, trade))
        delivered = self._delivered.setdefault(symbol, Delivered())
        delivered.extendleft(reversed(kept))
        return delivered

    def take_over(self, symbol: str, delivered: Delivered) -> None:
        """Take what another feed delivered of a symbol for what a connection before has delivered."""
        self._before[symbol] = delivered.copy()
        self._delivered.pop(symbol, None)
        self._unmatched[symbol] = Counter(trade for _, trade in self._before[symbol])

    def reconnect(self, now: int) -> None:
        """Begin a new connection, `now` being the end of the one before.

        What no connection has delivered again yet stays remembered, so that a connection that dies at once forgets nothing.
        """
        for symbol in list(self._before):
            self.of(symbol)
        self._before = {
            symbol: deque(
                (received, trade) for received, trade in delivered if received >= now - MEMORY
            )
            for symbol, delivered in self._delivered.items()
        }
        self._unmatched = {
            symbol: Counter(trade for _, trade in delivered)
            for symbol, delivered in self._before.items()
        }
        self._delivered = {}
