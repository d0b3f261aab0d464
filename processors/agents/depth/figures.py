"""What one order book says: its sides, spread, mids, imbalances and order flow; no state of a
partition."""

from typing import NamedTuple

from processors.agents.depth.state import Best, Level, SymbolBook
from processors.model.records import Book
from schemas.decimals import divide_half_even
from schemas.sides import order_speaks

_WEIGHTS = tuple(2520 // level for level in range(1, 11))
"""1/i for the i-th of ten levels, in units of 1/2520, the least common multiple of 1..10: weighted
sums stay whole."""


class BookFigures(NamedTuple):
    """The figures of one book, prices and sizes in units of 10^-18, in the order in which
    DepthImbalanceRecord has them."""

    best_bid: int | None
    best_bid_size: int | None
    best_ask: int | None
    best_ask_size: int | None
    spread: int | None
    mid: int | None
    weighted_mid: int | None
    imbalance_1: float | None
    imbalance_5: float | None
    imbalance_10: float | None
    imbalance_weighted: float | None
    bid_volume_5: int
    ask_volume_5: int
    bid_volume_10: int
    ask_volume_10: int


def sides(book: Book, known: SymbolBook) -> tuple[list[Level], list[Level]]:
    """Return the cleaned bids, best first, and asks, best first, and settle which list is which
    where the book shows it.

    List a holds the asks. Only the order of several levels within a list is evidence against that
    (`order_speaks`): a crossed book is none, nor are a thousand. What the order has shown holds for
    the connection's later books, whatever they look like.
    """
    a = clean(book.a, book.business)
    b = clean(book.b, book.business)
    if not known.settled and (len(a) > 1 or len(b) > 1):
        speaks = order_speaks([price for price, _ in a], [price for price, _ in b])
        if speaks:
            known.settled, known.reversed = True, speaks < 0
    ascending, descending = (sorted(b), sorted(a)) if known.reversed else (sorted(a), sorted(b))
    descending.reverse()
    return merged(descending), merged(ascending)


def clean(levels: list[Level], business: str) -> list[Level]:
    """Return the levels that are there: size above 0, and price above 0 but for `common`, where
    prices below 0 are real."""
    if business == "common":
        return [level for level in levels if level[1] > 0]
    return [level for level in levels if level[1] > 0 and level[0] > 0]


def merged(levels: list[Level]) -> list[Level]:
    """Return sorted levels with the sizes of equal prices summed."""
    sizes: dict[int, int] = {}
    for price, size in levels:
        sizes[price] = sizes.get(price, 0) + size
    return levels if len(sizes) == len(levels) else list(sizes.items())


def book_state(bids: list[Level], asks: list[Level]) -> str:
    """Return normal, one_sided, locked (best bid = best ask), crossed (best bid > best ask) or
    empty."""
    if not bids or not asks:
        return "one_sided" if bids or asks else "empty"
    spread = asks[0][0] - bids[0][0]
    return "normal" if spread > 0 else "locked" if spread == 0 else "crossed"


def book_figures(bids: list[Level], asks: list[Level]) -> BookFigures:
    """Return the figures of a book in whatever state.

    With a side empty its best and all that needs both sides is None, its volumes are 0. A locked or
    crossed book goes by the same formulas as any: its spread is 0 or negative.
    """
    bid_5, ask_5 = _volume(bids, 5), _volume(asks, 5)
    bid_10, ask_10 = _volume(bids, 10), _volume(asks, 10)
    volumes = (bid_5, ask_5, bid_10, ask_10)
    if not bids or not asks:
        bid, bid_size = bids[0] if bids else (None, None)
        ask, ask_size = asks[0] if asks else (None, None)
        return BookFigures(
            bid, bid_size, ask, ask_size, None, None, None, None, None, None, None, *volumes
        )
    (bid, bid_size), (ask, ask_size) = bids[0], asks[0]
    return BookFigures(
        bid,
        bid_size,
        ask,
        ask_size,
        ask - bid,
        divide_half_even(bid + ask, 2),
        divide_half_even(bid * ask_size + ask * bid_size, bid_size + ask_size),
        imbalance(bid_size, ask_size),
        imbalance(bid_5, ask_5),
        imbalance(bid_10, ask_10),
        imbalance(_weighted(bids), _weighted(asks)),
        *volumes,
    )


def imbalance(bid: int, ask: int) -> float:
    """Return (bid - ask) / (bid + ask) in [-1, 1], the nearest double to the exact quotient (int /
    int rounds once)."""
    return (bid - ask) / (bid + ask)


def order_flow_imbalance(before: Best, now: Best) -> int:
    """Return the order-flow imbalance between two books: Cont, Kukanov, Stoikov 2014, eq. 4, sizes
    in units of 10^-18.

    What the best bid's queue gained, less what the best ask's queue gained; a best price that
    improves counts its whole queue, one that retreats the whole queue before.
    """
    bid_0, bid_size_0, ask_0, ask_size_0 = before
    bid, bid_size, ask, ask_size = now
    flow = 0
    if bid >= bid_0:
        flow += bid_size
    if bid <= bid_0:
        flow -= bid_size_0
    if ask <= ask_0:
        flow -= ask_size
    if ask >= ask_0:
        flow += ask_size_0
    return flow


def _volume(levels: list[Level], depth: int) -> int:
    return sum([size for _, size in levels[:depth]])


def _weighted(levels: list[Level]) -> int:
    return sum([weight * size for weight, (_, size) in zip(_WEIGHTS, levels, strict=False)])
