"""What the control records of the raw topics say was not observed, and the records that a
connection lacks: both from the log alone."""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from evidence import RAW, Evidence

LATENCY_MS = 1_000
"""What a feed sent so long before its last sign of life may be lost with it."""
MARGIN_MS = 3_000
"""How much further than the loss a gap reaches at most: the latency, and what clocks and the last
push leave open."""
HELD_BACK_MS = 60_000
"""A pong proves a socket. What a feed observed ends with its last push, or this long before its
last sign of life."""


class Span(NamedTuple):
    """[since, until] in which a symbol was not observed, or not wanted, in ms."""

    since: int
    until: int
    alive: int
    """When the feed had shown its last sign of life by then."""
    known: int
    """Until when it has observed everything, by the log; `since` where nothing says more."""


class Observed:
    """Until when connections of one partition observed what happened, in ms."""

    def __init__(self) -> None:
        self._alive: dict[tuple[str, str], int] = defaultdict(int)
        self._pushed: dict[tuple[str, str], int] = defaultdict(int)

    def sign(self, connection: tuple[str, str], received_ms: int) -> None:
        """Take a sign of life."""
        self._alive[connection] = max(self._alive[connection], received_ms)

    def push(self, connection: tuple[str, str], received_ms: int, ts_event: int) -> None:
        """Take a trade: what happened before it has come."""
        self.sign(connection, received_ms)
        self._pushed[connection] = max(self._pushed[connection], ts_event)

    def alive(self, connection: tuple[str, str]) -> int:
        """Return when a connection was last alive."""
        return self._alive[connection]

    def until(self, connection: tuple[str, str]) -> int:
        """Return until when a connection observed everything."""
        alive = self._alive[connection]
        return min(alive, max(self._pushed[connection], alive - HELD_BACK_MS))


def unobserved(seen: Evidence) -> dict[str, list[Span]]:
    """Return when each symbol was not observed, or not wanted, as the control records of the trade
    topic say."""
    spans: dict[str, list[Span]] = defaultdict(list)
    controls = {(m.partition(), m.offset()): c for m, c in seen.controls(RAW[0])}
    for partition, log in seen.raw[RAW[0]].items():
        observed = Observed()
        carried: dict[str, tuple[str, str]] = {}
        ended: dict[str, tuple[int, int]] = {}
        """Until when a symbol was observed, by its end and by the log before it."""
        for message in log:
            control = controls.get((partition, message.offset()))
            if control is None:
                row = seen.decoded(RAW[0], message)
                if row is not None and row.get("source") == "simulated":
                    connection = row["feed"], row["connection"]
                    event = 0 if row["repeat"] else row["ts_event"]
                    observed.push(connection, row["ts_recv"] // 1000, event)
                continue
            symbol, connection = (message.key() or b"").decode(), (control.feed, control.connection)
            if control.kind == "begin":
                # nothing was wanted before the first begin, nor from an end to the next begin
                before = observed.until(carried[symbol]) if symbol in carried else 0
                alive = observed.alive(carried[symbol]) if symbol in carried else 0
                since = before if control.ts_from is None else control.ts_from
                known = before if symbol in carried else since
                if symbol in ended:
                    since_end, known = ended.pop(symbol)
                    since = min(since, since_end)
                since = since if symbol in carried else 0
                carried[symbol] = connection
                spans[symbol].append(Span(since, control.ts, alive, min(known, control.ts)))
            elif control.kind == "gap":
                for name in [symbol] if symbol else carried:
                    if symbol or carried[name][0] == control.feed:
                        before = observed.until(carried[name]) if name in carried else 0
                        alive = observed.alive(carried[name]) if name in carried else 0
                        since = before if control.ts_from is None else control.ts_from
                        spans[name].append(Span(since, control.ts, alive, since))
            elif control.kind == "end":
                # what comes after it was not wanted any more: nothing is owed from there on
                ended[symbol] = control.ts, observed.until(connection)
            if control.kind in ("begin", "end", "mark"):
                observed.sign(connection, control.ts_recv // 1000)
        for symbol, (since, _) in ended.items():
            spans[symbol].append(Span(since, 1 << 62, since, since))
    return spans


def too_long(spans: dict[str, list[Span]]) -> Iterator[str]:
    """Yield the begins that count as lost what the log shows to be observed, beyond the margin."""
    for symbol, found in spans.items():
        for span in found:
            if span.since < span.known - MARGIN_MS:
                beyond = span.known - span.since
                yield f"{symbol}: the gap until {span.until} begins {beyond} ms too early"


def excused(seen: Evidence) -> list[tuple[str | None, int, int]]:
    """Return feed, begin and end (ms) of the gaps that are on record."""
    gaps: list[tuple[str | None, int, int]] = [
        (control.feed, control.ts_from, control.ts)
        for topic in RAW
        for _, control in seen.controls(topic)
        if control.kind in ("begin", "gap") and control.ts_from is not None
    ]
    # a begin that names no start excuses what is missing since the last push before it, no more
    feeds = {row["symbol"]: row["feed"] for _, row in seen.raw_rows[RAW[0]]}
    gaps += [
        (feeds.get(symbol), span.since, span.until)
        for symbol, spans in unobserved(seen).items()
        for span in spans
    ]
    return gaps


def holes(seen: Evidence) -> Iterator[str]:
    """Yield the numbers that a connection lacks where no gap of its feed is on record."""
    numbers: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    for rows in seen.raw_rows.values():
        for _, row in rows:
            numbers[row["feed"], row["connection"]][row["sequence"]] = row["ts_recv"] // 1000
    gaps = excused(seen)
    for (feed, connection), found in numbers.items():
        order = sorted(found)
        for before, after in zip([0, *order], order, strict=False):
            if after == before + 1:
                continue
            # where a connection's first records are missing, its gap ends before the first one
            since = found.get(before, found[after] - LATENCY_MS)
            until = found[after]
            if not any(
                name == feed and start - LATENCY_MS <= until and since <= end
                for name, start, end in gaps
            ):
                yield f"{feed} {connection}: no record {before + 1} to {after - 1}, and no gap"
