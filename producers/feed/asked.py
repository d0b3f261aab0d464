"""Compares the symbols that a feed asked for with those that come: silent ones are reported, and
others are taken up to a bound, and named."""

from collections.abc import Callable, Iterable

REPORT_PERIOD_US = 60_000_000
"""Microseconds between two reports of symbols that were not asked for."""
NAMED = 100
"""Symbols that one report names."""

IsOpen = Callable[[str, str, int], bool]
"""Whether the market of a business's symbol is open at a time (microseconds UTC)."""


def always_open(business: str, symbol: str, now_us: int) -> bool:
    """Return True: every market counts as open."""
    return True


class Silence:
    """The symbols of a feed that are waited for: acked on this connection, without data on it.
    Times are microseconds."""

    def __init__(self, period_us: int, is_open: IsOpen, business: str) -> None:
        self._period_us = period_us
        self._is_open = is_open
        self._business = business
        self.waiting: dict[str, int] = {}
        """When waiting for each symbol began."""
        self._heard: set[str] = set()
        self._next_us = 0
        self.silent: set[str] = set()
        """Reported, and without data since; a new connection does not change that."""

    def connect(self) -> None:
        """Wait for every symbol again."""
        self.waiting.clear()
        self._heard.clear()

    def forget(self, symbols: Iterable[str]) -> None:
        """Wait no more for symbols that are no longer asked for."""
        for symbol in symbols:
            self.waiting.pop(symbol, None)
            self._heard.discard(symbol)
            self.silent.discard(symbol)

    def acked(self, symbols: Iterable[str], now_us: int) -> None:
        """Wait for those of the symbols that had no data yet."""
        for symbol in symbols:
            if symbol not in self._heard and symbol not in self.silent:
                self.waiting.setdefault(symbol, now_us)

    def heard(self, symbol: str) -> bool:
        """Note data of a symbol; return whether it was silent until now."""
        if symbol in self._heard:
            return False
        self._heard.add(symbol)
        self.waiting.pop(symbol, None)
        if symbol not in self.silent:
            return False
        self.silent.remove(symbol)
        return True

    def due(self, now_us: int) -> list[str]:
        """Return the symbols that have become silent; time in which a symbol's market is closed
        does not count."""
        if now_us < self._next_us or not self.waiting:
            return []
        self._next_us = now_us + self._period_us // 10
        found = []
        for symbol, since in self.waiting.items():
            if not self._is_open(self._business, symbol, now_us):
                self.waiting[symbol] = now_us
            elif now_us - since >= self._period_us:
                found.append(symbol)
        for symbol in found:
            del self.waiting[symbol]
        self.silent.update(found)
        return found


def most_unasked(asked: int) -> int:
    """Return how many symbols that were not asked for a connection may send, where `asked` were.

    The vendor may echo each in another spelling; one that sends any number of them would fill every
    state downstream.
    """
    return 2 * asked + 100


class Unasked:
    """The symbols of one feed that were not asked for, on this connection and before; times are
    microseconds."""

    def __init__(self) -> None:
        self.forgotten: list[str] = []
        """Symbols of connections before that need to be known no longer; to be taken out by the
        feed."""
        self.refused = 0
        """Frames of symbols beyond the bound that no report has counted."""
        self.pending = False
        """Whether something is still to be reported."""
        self._here: set[str] = set()
        self._known: dict[str, None] = {}
        """Those of this connection and of the ones before, the latest last: what comes again after
        a loss is known by them."""
        self._unnamed: dict[str, None] = {}
        self._next_us = 0

    def connect(self) -> None:
        """Go on with a new connection, which has sent nothing."""
        self._here = set()

    def asked(self, symbols: tuple[str, ...]) -> None:
        """Note that these symbols are asked for from now on."""
        for symbol in symbols:
            self._here.discard(symbol)
            self._known.pop(symbol, None)
            self._unnamed.pop(symbol, None)

    def takes(self, symbol: str, asked: int) -> bool:
        """Return whether a symbol is still within the bound of a feed that asked for so many
        symbols."""
        if symbol in self._here:
            return True
        most = most_unasked(asked)
        if len(self._here) >= most:
            self.refused += 1
            self.pending = True
            return False
        self._here.add(symbol)
        if symbol not in self._known:
            self._unnamed[symbol] = None
            self.pending = True
        self._known.pop(symbol, None)
        self._known[symbol] = None
        # twice: what a connection sends again is known, though the one between brought nothing of
        # it
        while len(self._known) > 2 * most:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self.forgotten.append(oldest)
        return True

    def due(self, now_us: int) -> tuple[list[str], int, int] | None:
        """Return what is to be reported: symbols to name, how many there are that no report named,
        frames refused; None: not now."""
        if now_us < self._next_us or not (self._unnamed or self.refused):
            return None
        self._next_us = now_us + REPORT_PERIOD_US
        found, refused = list(self._unnamed), self.refused
        self._unnamed, self.refused, self.pending = {}, 0, False
        return found[:NAMED], len(found), refused
