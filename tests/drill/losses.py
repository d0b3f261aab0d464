"""Check G of the oracle: what is lost lies within gaps, in the log and in the bars, and gaps reach
no further than the loss and its margins."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from evidence import RAW, Evidence, VendorTrade
from gaps import LATENCY_MS, MARGIN_MS, Span, too_long, unobserved

LENGTHS = {"1s": 1_000, "10s": 10_000, "1m": 60_000}
"""Of the intervals that are looked at, in ms."""


def gaps_are_the_losses(seen: Evidence) -> Iterator[str]:
    """G: a trade that the vendor made and that is not in the log lies within a gap of its symbol,
    in the log and in its bars, no gap reaches further than the margins, and no trade counts
    twice."""
    delivered: dict[VendorTrade, int] = Counter()
    for _message, row in seen.raw_rows[RAW[0]]:
        if not row["repeat"]:
            delivered[_fact(row["symbol"], row["ts_event"], row["price"], row["volume"])] += 1
    made = Counter(_fact(*trade[1:]) for trade in seen.ledger)
    for fact, count in delivered.items():
        if seen.ledger and count > made[fact]:
            yield f"{fact[1:]} counts {count} times, and the vendor made it {made[fact]} times"
    spans, lost = unobserved(seen), []
    for trade in seen.ledger:
        fact = _fact(*trade[1:])
        if delivered[fact] > 0:
            delivered[fact] -= 1
            continue
        lost.append(trade)
        if not any(
            since - seen.tolerance_ms <= trade.made_ms <= until + seen.clock_ms
            for since, until, *_ in spans[trade.symbol]
        ):
            near = [
                (since - trade.made_ms, until - trade.made_ms)
                for since, until, *_ in spans[trade.symbol]
            ]
            nearest = min(near, key=lambda s: min(map(abs, s)), default=None)
            yield f"{trade} is lost outside of every gap; the nearest, from it in ms: {nearest}"
    yield from too_long(spans)
    yield from bars_hide_a_loss(seen, lost, spans)
    yield from bars_have_gaps_of_nothing(seen, spans)


def bars_hide_a_loss(
    seen: Evidence, lost: list[VendorTrade], spans: dict[str, list[Span]]
) -> Iterator[str]:
    for interval, last in _last_bars(seen):
        for trade in lost:
            bar = last.get((trade.symbol, trade.ts_event - trade.ts_event % LENGTHS[interval]))
            if bar is None or bar["completeness"] != "complete" or bar["provenance"] != "trades":
                continue
            # of a late trade nobody knows; and a bar that is out of the horizon is not revised
            known = trade.ts_event >= trade.made_ms - LATENCY_MS and any(
                alive - seen.revision_horizon_ms < bar["ts_end"]
                and since <= trade.ts_event <= until
                for since, until, alive, _ in spans[trade.symbol]
            )
            if known:
                yield f"{interval} {trade.symbol} {bar['ts_start']} is complete without {trade}"


def bars_have_gaps_of_nothing(seen: Evidence, spans: dict[str, list[Span]]) -> Iterator[str]:
    margin = LATENCY_MS + MARGIN_MS
    for interval, last in _last_bars(seen):
        for (symbol, start), bar in last.items():
            if bar["completeness"] == "gap" and not any(
                since - margin <= bar["ts_end"] and start <= until + margin
                for since, until, *_ in spans[symbol]
            ):
                yield f"{interval} {symbol} {start} has a gap, and none is on record near it"


def _last_bars(seen: Evidence) -> Iterator[tuple[str, dict[tuple[str, int], dict[str, Any]]]]:
    for interval in LENGTHS:
        rows = seen.rows[f"infoway.bars.{interval}"]
        yield interval, {(row["symbol"], row["ts_start"]): row for _, row in rows}


def _fact(symbol: str, ts_event: int, price: str, volume: str) -> VendorTrade:
    return VendorTrade(0, symbol, ts_event, price, volume)
