"""The figures' definitions in plain fractions, slow and obvious: what the fast computation is held
against, and shares nothing with.

Takes the computation's own records (integers in units of 10^-18) and gives exact fractions rounded
half even once.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from processors.model.records import Trade

ONE = 10**18

Figures = dict[str, Any]
Level = tuple[Fraction, Fraction]
Side = list[Level]


def number(units: int) -> Fraction:
    """The number that so many units of 10^-18 are."""
    return Fraction(units, ONE)


def units(value: Fraction) -> int:
    """Units of 10^-18, rounded half even, as Python rounds a fraction."""
    return round(value * ONE)


def root_units(value: Fraction) -> int:
    """The square root in units of 10^-18, rounded half even: found by halving, decided by
    squares."""
    wanted = value * ONE * ONE
    low, high = (
        0,
        int(wanted) + 1,
    )  # low^2 <= wanted < high^2 but for wanted 0, where both hold at 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle * middle <= wanted else (low, middle)
    half = (low + Fraction(1, 2)) ** 2
    return low + 1 if wanted > half or (wanted == half and low % 2) else low


def vwap(trades: Iterable[Trade]) -> Figures:
    """VWAP, sums, count and standard deviation of trades."""
    chosen = [(number(trade.price), number(trade.volume)) for trade in trades]
    volume = sum((v for _, v in chosen), Fraction(0))
    turnover = sum((p * v for p, v in chosen), Fraction(0))
    mean = turnover / volume if volume else None
    variance = (
        sum((v * (p - mean) ** 2 for p, v in chosen), Fraction(0)) / volume
        if mean is not None
        else None
    )
    return {
        "vwap": None if mean is None else units(mean),
        "volume": units(volume),
        "turnover": units(turnover),
        "trade_count": len(chosen),
        "stdev": None if variance is None else root_units(variance),
    }


def rolling_vwap(trades: Sequence[Trade], span: int) -> Figures:
    """The window (t - span, t] over the trades of one symbol that came so far, t their greatest
    event time."""
    t = max(trade.ts_event for trade in trades)
    return {
        "ts_event": t,
        "ts_start": t - span,
        **vwap(trade for trade in trades if t - span < trade.ts_event <= t),
    }


def session_vwap(trades: Sequence[Trade], start: int, end: int) -> Figures:
    """The session [start, end) over the trades of one symbol that came so far."""
    chosen = [trade for trade in trades if start <= trade.ts_event < end]
    return {
        "ts_event": max(trade.ts_event for trade in chosen),
        "ts_start": start - 1,
        **vwap(chosen),
    }


def bars(trades: Iterable[Trade], interval: int) -> dict[int, Figures]:
    """Epoch-aligned bars of one symbol by their start, from its accepted trades in log order."""
    groups: dict[int, list[Trade]] = defaultdict(list)
    for trade in trades:
        groups[trade.ts_event - trade.ts_event % interval].append(trade)
    return {start: bar(groups[start]) for start in sorted(groups)}


def bar(trades: Sequence[Trade]) -> Figures:
    """One bar from its trades in log order."""
    ordered = sorted(
        trades, key=lambda trade: trade.ts_event
    )  # a stable sort: log order decides within a millisecond
    figures = vwap(ordered)
    del figures["stdev"]
    return {
        "open": ordered[0].price,
        "high": max(trade.price for trade in ordered),
        "low": min(trade.price for trade in ordered),
        "close": ordered[-1].price,
        **figures,
        "buy_volume": sum(trade.volume for trade in ordered if trade.direction == 1),
        "sell_volume": sum(trade.volume for trade in ordered if trade.direction == 2),
        "ts_first": ordered[0].ts_event,
        "ts_last": ordered[-1].ts_event,
    }


def activity_bars(trades: Iterable[Trade], kind: str, threshold: Fraction) -> list[Figures]:
    """The activity bars of one symbol and trade date from its accepted trades in log order, each
    with whether it `is_full`."""
    groups: list[list[Trade]] = []
    total = threshold
    for trade in trades:
        if total >= threshold:
            groups.append([])
            total = Fraction(0)
        groups[-1].append(trade)
        total += {
            "tick": Fraction(1),
            "volume": number(trade.volume),
            "turnover": number(trade.price) * number(trade.volume),
        }[kind]
    # open and close go by the log; the rest of a time bar's figures hold for any trades
    return [
        {
            **bar(group),
            "open": group[0].price,
            "close": group[-1].price,
            "ts_recv": max(trade.ts_recv for trade in group),
            "bar_index": place,
            "is_full": place < len(groups) - 1 or total >= threshold,
        }
        for place, group in enumerate(groups)
    ]


def side(levels: Iterable[tuple[int, int]], *, bids: bool, below_zero: bool = False) -> Side:
    """A side of a book: what is there, equal prices summed, best first."""
    sizes: dict[Fraction, Fraction] = defaultdict(Fraction)
    for price, size in levels:
        if size > 0 and (price > 0 or below_zero):
            sizes[number(price)] += number(size)
    return sorted(sizes.items(), reverse=bids)


def depth(bids: Side, asks: Side, before: tuple[Side, Side] | None = None) -> Figures:
    """What a cleaned book says, and its order flow against the cleaned book before it (None where
    there is none)."""
    prices = (
        "best_bid",
        "best_bid_size",
        "best_ask",
        "best_ask_size",
        "spread",
        "mid",
        "weighted_mid",
        "ofi",
    )
    figures: Figures = dict.fromkeys(
        (*prices, "imbalance_1", "imbalance_5", "imbalance_10", "imbalance_weighted")
    )
    for name, levels in (("bid", bids), ("ask", asks)):
        figures[f"{name}_levels"] = len(levels)
        if levels:
            figures[f"best_{name}"], figures[f"best_{name}_size"] = (
                units(levels[0][0]),
                units(levels[0][1]),
            )
        for n in (5, 10):
            figures[f"{name}_volume_{n}"] = units(_size(levels[:n]))
    if not bids or not asks:
        return figures | {"book_state": "one_sided" if bids or asks else "empty"}
    (b, qb), (a, qa) = bids[0], asks[0]
    figures["spread"], figures["mid"] = units(a - b), units((a + b) / 2)
    figures["weighted_mid"] = units((b * qa + a * qb) / (qa + qb))
    for n in (1, 5, 10):
        figures[f"imbalance_{n}"] = _imbalance(_size(bids[:n]), _size(asks[:n]))
    figures["imbalance_weighted"] = _imbalance(_weighted(bids), _weighted(asks))
    if before is not None and before[0] and before[1]:
        figures["ofi"] = units(_order_flow(before[0][0], before[1][0], bids[0], asks[0]))
    return figures | {"book_state": "normal" if b < a else "locked" if b == a else "crossed"}


def _order_flow(bid_0: Level, ask_0: Level, bid: Level, ask: Level) -> Fraction:
    gained = (bid[0] >= bid_0[0]) * bid[1] - (bid[0] <= bid_0[0]) * bid_0[1]
    return gained - (ask[0] <= ask_0[0]) * ask[1] + (ask[0] >= ask_0[0]) * ask_0[1]


def _size(levels: Side) -> Fraction:
    return sum((size for _, size in levels), Fraction(0))


def _weighted(levels: Side) -> Fraction:
    return sum((size / place for place, (_, size) in enumerate(levels[:10], 1)), Fraction(0))


def _imbalance(bid: Fraction, ask: Fraction) -> float:
    return float((bid - ask) / (bid + ask))
