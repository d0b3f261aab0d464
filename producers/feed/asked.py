"""Finds symbols whose subscription was acked and that then sent no data; it reports nothing itself."""

from collections.abc import Callable, Iterable

IsOpen = Callable[[str, str, int], bool]
"""Whether the market of a business's symbol is open at a time (microseconds UTC)."""


def always_open(business: str, symbol: str, now: int) -> bool:
    """Take every market for open at any time."""
    return True


class Silence:
    """The symbols of a feed that are waited for: acked on this connection, without data on it. Times are microseconds."""

    def __init__(self, period: int, is_open: IsOpen, business: str) -> None:
        self._period = period
        self._is_open = is_open
        self._business = business
        self._waiting: dict[str, int] = {}
        self._heard: set[str] = set()
        self._next = 0
        self.silent: set[str] = set()
        """Reported, and without data since; a new connection does not change that."""

    def connect(self) -> None:
        """Begin to wait anew."""
        self._waiting.clear()
        self._heard.clear()

    def forget(self, symbols: Iterable[str]) -> None:
        """Wait no more for symbols that are no longer asked for."""
        for symbol in symbols:
            self._waiting.pop(symbol, None)
            self._heard.discard(symbol)
            self.silent.discard(symbol)

    def acked(self, symbols: Iterable[str], now: int) -> None:
        """Wait for those of the symbols that had no data yet."""
        for symbol in symbols:
            if symbol not in self._heard and symbol not in self.silent:
                self._waiting.setdefault(symbol, now)

    def heard(self, symbol: str) -> bool:
        """Note data of a symbol; return whether it was silent until now."""
        if symbol in self._heard:
            return False
        self._heard.add(symbol)
        self._waiting.pop(symbol, None)
        if symbol not in self.silent:
            return False
        self.silent.remove(symbol)
        return True

    def due(self, now: int) -> list[str]:
        """Return the symbols that have become silent; time in which a symbol's market is closed does not count."""
        if now < self._next or not self._waiting:
            return []
        self._next = now + self._period // 10
        found = []
        for symbol, since in self._waiting.items():
            if not self._is_open(self._business, symbol, now):
                self._waiting[symbol] = now
            elif now - since >= self._period:
                found.append(symbol)
        for symbol in found:
            del self._waiting[symbol]
        self.silent.update(found)
        return found
