"""Finds feeds whose books seem to have their sides swapped; it only reports, and changes no
book."""

from functools import lru_cache

from producers.vendor.pushes import DepthPush
from schemas.decimals import to_units
from schemas.sides import order_speaks

BOOKS = 1_000
"""One-level books after which their share that is crossed is judged."""
MOST_CROSSED = 990
"""Of BOOKS: with more than that the sides are suspect. A market is crossed for moments only."""

# prices and sizes repeat: a hit costs 0.1 us, the parsing 0.6
_units = lru_cache(maxsize=1 << 14)(to_units)


class Sides:
    """What the books of one connection show of their sides."""

    def __init__(self, business: str, swapped: bool) -> None:
        """`swapped`: the settings say already that list a of this business holds the bids."""
        self._business = business
        self._swapped = swapped
        self._reversed: dict[str, bool] = {}
        """By symbol what the order of its levels has shown."""
        self._books = self._crossed = 0
        self.is_suspect = False
        """Whether nearly all one-level books were crossed."""

    def look(self, book: DepthPush) -> str:
        """Take a book. Return what is to be reported, else ""."""
        symbol = book.symbol
        asks, ask_sizes = book.ask_prices, book.ask_volumes
        bids, bid_sizes = book.bid_prices, book.bid_volumes
        if self._swapped:
            asks, ask_sizes, bids, bid_sizes = bids, bid_sizes, asks, ask_sizes
        if len(asks) != 1 or len(bids) != 1:
            if not asks or not bids or symbol in self._reversed:
                return ""
            asks, bids = _there(asks, ask_sizes), _there(bids, bid_sizes)
            if speaks := order_speaks(list(map(_units, asks)), list(map(_units, bids))):
                self._reversed[symbol] = speaks < 0
                return self._reason("the order of its levels says so") if speaks < 0 else ""
            if len(asks) != 1 or len(bids) != 1:
                return ""
        elif _units(ask_sizes[0]) <= 0 or _units(bid_sizes[0]) <= 0:
            return ""
        ask, bid = _units(asks[0]), _units(bids[0])
        return self._count(bid < ask if self._reversed.get(symbol) else ask < bid)

    def _count(self, crossed: bool) -> str:
        self._books += 1
        self._crossed += crossed
        if self._books < BOOKS:
            return ""
        found, self._books, self._crossed = self._crossed, 0, 0
        if found <= MOST_CROSSED or self.is_suspect:
            return ""
        self.is_suspect = True
        share = f"{found} of {BOOKS} books of one level are crossed"
        return self._reason(f"{share}; nothing is swapped by itself")

    def _reason(self, evidence: str) -> str:
        way = "leave it out of" if self._swapped else "name it in"
        bids, asks = "ba" if self._swapped else "ab"
        found = f"the bids in list {bids} and the asks in list {asks}: {evidence}"
        return (
            f"books of {self._business} seem to have {found}: check, and {way} INFOWAY_SWAP_SIDES"
        )


def _there(prices: list[str], sizes: list[str]) -> list[str]:
    """Return the prices of the levels that are there."""
    return [price for price, size in zip(prices, sizes, strict=True) if _units(size) > 0]
