"""The reconciliation agent: the vendor's klines beside our own bars, once both are final; it alters neither.

It reads `infoway.raw.kline` and the bar topics side by side. What a stream of bars and one of klines say depends on each
one's own order alone, so the last record of a bar is the same however the two are interleaved, but for bars that were
no longer at hand (`expired`); the records before it need not be.
"""

from collections.abc import Iterator, Mapping, Sequence

from processors.comparison import Figures, Market, compare, session_of_day, touches_auction
from processors.feeds import FOREVER, EventTime, Feeds
from processors.intervals import DAY, MINUTE, ladder
from processors.reconciliation_state import (
    BarSide,
    Day,
    KlineSide,
    Pair,
    ReconciliationState,
    Stream,
)
from processors.records import BarRevision, ControlRecord, Kline, Record, Row, SourcesMixed
from processors.rolling import span_ms
from processors.sessions import BeyondCalendar, Calendars, Session
from schemas.decimals import UNIT, divide_half_even

TOPIC = "infoway.reconciliation"

UNPAIRED = 4
"""Bars that are kept at least of a stream without any kline yet: klines may be read later than the bars; of short ones, an hour's."""
BEHIND = 1440
"""Bars that are kept where klines were seen and then came no more."""


class Reconciliation:
    """The agent `reconciliation`: rows of `infoway.reconciliation`."""

    name = "reconciliation"

    def __init__(
        self, intervals: Sequence[str], calendars: Calendars, event_time: EventTime
    ) -> None:
        self._lengths = {interval.name: interval.length for interval in ladder(intervals).intervals}
        self._names = {length: name for name, length in self._lengths.items()}
        self._calendars = calendars
        self._event_time = event_time

    def load(self, partition: int, entries: Mapping[bytes, bytes]) -> ReconciliationState:
        """Return the state that `dirty` yielded."""
        return ReconciliationState(
            partition, Feeds(self._event_time, partition, 2 * DAY, entries), entries
        )

    def apply(self, state: ReconciliationState, records: Sequence[Record]) -> list[Row]:
        """Fold records of one partition of the klines or of a bar topic, in log order. Raises SourcesMixed."""
        state.rows = []
        for record in records:
            if isinstance(record, Kline):
                self._take_kline(state, record)
            elif isinstance(record, BarRevision):
                self._take_bar(state, record)
            elif isinstance(record, ControlRecord):
                state.feeds.control(record)
        return state.rows

    def dirty(self, state: ReconciliationState) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield what changed since the last call, and forget it."""
        return state.dirty()

    def _take_kline(self, state: ReconciliationState, kline: Kline) -> None:
        if kline.source != "rest":
            state.feeds.observe(kline)
        interval = self._names.get(DAY if kline.interval == "1d" else span_ms(kline.interval) or 0)
        if interval is None:
            return  # bars of this interval are not computed
        stream = state.stream(kline.symbol, interval)
        stream.business = kline.business
        start, end, aligned = self._place(interval, kline)
        if stream.first == FOREVER:
            stream.expired = max(stream.expired, start)
            for early in [known for known in stream.pairs if known < start]:
                state.drop(stream, stream.pairs[early])
        stream.first = min(stream.first, start)
        side = KlineSide(
            Figures(kline.prices, kline.volume, kline.turnover),
            kline.turnover_step,
            kline.offset,
            kline.ts_recv,
        )
        pair = stream.pairs.get(start)
        if pair is None:
            pair = state.pair(stream, start, end)
        pair.kline, pair.aligned = side, aligned
        state.touch(stream, pair)
        if start > stream.newest:
            before, stream.newest = stream.newest, start
            # with a later kline the one before is final, and a bar between the two has none
            for known in sorted(known for known in stream.pairs if before <= known < start):
                self._judge(state, stream, stream.pairs[known], kline.source)
        else:
            self._judge(state, stream, pair, kline.source)

    def _place(self, interval: str, kline: Kline) -> tuple[int, int, bool]:
        """Return start and end of our bar for a kline, and whether there can be one."""
        start, length = kline.ts_start, self._lengths[interval]
        if interval == "1d":
            session = session_of_day(self._calendars, kline.business, kline.symbol, start)
            return (
                (start, start + length, False)
                if session is None
                else (session.start, session.end, True)
            )
        return start, start + length, start % length == 0

    def _take_bar(self, state: ReconciliationState, bar: BarRevision) -> None:
        if state.feeds.source not in (None, bar.source):
            raise SourcesMixed(str(state.feeds.source), bar.source, state.partition, bar.offset)
        stream = state.stream(bar.symbol, bar.interval)
        pair = stream.pairs.get(bar.ts_start)
        if not bar.from_trades or (pair is None and bar.ts_end <= stream.expired):
            return  # still open or made of klines itself; or older than the vendor's first kline, or evicted
        if pair is None:
            pair = state.pair(stream, bar.ts_start, bar.ts_end)
        figures = Figures(bar.prices, bar.volume, bar.turnover)
        pair.bar = BarSide(figures, bar.revision, bar.completeness, bar.offset, bar.ts_recv)
        state.touch(stream, pair)
        self._judge(state, stream, pair, bar.source)
        if bar.ts_end > stream.closed:
            stream.closed = bar.ts_end
            self._settle(state, stream, bar.source)

    def _settle(self, state: ReconciliationState, stream: Stream, source: str) -> None:
        """Judge klines whose bar can no longer come, and forget the pairs that no revision can change any more."""
        settled = self._settled(stream)
        for pair in sorted(
            (pair for pair in stream.pairs.values() if pair.end <= settled),
            key=lambda pair: pair.start,
        ):
            if pair.kline is not None and pair.bar is None and pair.start < stream.newest:
                self._judge(state, stream, pair, source)
            if pair.status is not None:
                stream.expired = max(stream.expired, pair.end)
                state.drop(stream, pair)
        waiting = (
            BEHIND
            if stream.business
            else max(UNPAIRED, min(60, 60 * MINUTE // self._lengths[stream.interval]))
        )
        alone = [start for start, pair in stream.pairs.items() if pair.kline is None]
        for start in sorted(alone)[: max(len(alone) - waiting, 0)]:
            stream.expired = max(stream.expired, stream.pairs[start].end)
            state.drop(stream, stream.pairs[start])

    def _settled(self, stream: Stream) -> int:
        """Return up to which end no bar can come or be revised any more."""
        # bars are forgotten where the watermark crosses their grid, none of which is longer than the interval
        return stream.closed - self._event_time.revision_horizon_ms - self._lengths[stream.interval]

    def _judge(self, state: ReconciliationState, stream: Stream, pair: Pair, source: str) -> None:
        if not stream.first <= pair.start < stream.newest:
            return  # the kline is not final, or there never was one so early
        expired = pair.end <= stream.expired
        if (
            pair.bar is None
            and pair.aligned
            and not expired
            and pair.end > self._settled(stream)
            and pair.kline is not None
        ):
            return  # a late trade may yet make the bar
        session = self._session(stream, pair)
        ours, theirs = (
            pair.bar.figures if pair.bar else None,
            pair.kline.figures if pair.kline else None,
        )
        step = pair.kline.turnover_step if pair.kline else 0
        if pair.aligned:
            healthy = (pair.bar is None or pair.bar.completeness == "complete") and (
                (pair.bar is not None and pair.kline is not None)
                or state.observed(stream.symbol, pair.start, pair.end)
            )
            auctions = touches_auction(session, pair.start, pair.end)
            status, reason = compare(
                ours, theirs, step, Market(healthy, auctions, stream.interval == "1d", expired)
            )
        else:
            status, reason = "not_comparable", "alignment"
        shown = [
            status,
            reason,
            pair.bar.revision if pair.bar else None,
            theirs.texts() if theirs else None,
        ]
        if shown == pair.shown:
            return
        day = stream.day(session.trade_date if session else pair.start // DAY)
        if pair.status is not None:
            day.count(pair.status, -1)
            day.add(-pair.counted[0], -pair.counted[1])
        pair.shown, pair.status = shown, status
        pair.counted = (
            (ours.volume if ours else 0, theirs.volume if theirs else 0) if pair.aligned else (0, 0)
        )
        pair.revision += 1
        day.count(status, 1)
        day.add(*pair.counted)
        state.touch(stream, pair)
        state.rows.append(
            (TOPIC, stream.symbol, self._fields(state, stream, pair, day, session, source))
        )

    def _fields(
        self,
        state: ReconciliationState,
        stream: Stream,
        pair: Pair,
        day: Day,
        session: Session | None,
        source: str,
    ) -> tuple[object, ...]:
        bar, kline = pair.bar, pair.kline
        return (
            stream.symbol,
            stream.interval,
            pair.start,
            session.trade_date if session else None,
            *pair.shown[:2],
            pair.revision,
            bar and bar.revision,
            bar and bar.completeness,
            *_numbers(bar.figures if bar else None),
            *_numbers(kline.figures if kline else None),
            divide_half_even(day.ours * UNIT, day.theirs) if day.theirs else None,
            day.counts["equal"],
            day.counts["differs"],
            day.counts["not_comparable"],
            state.feeds.source or source,
            max(side.ts_recv for side in (bar, kline) if side),
            state.partition,
            kline and kline.offset,
            bar and bar.offset,
        )

    def _session(self, stream: Stream, pair: Pair) -> Session | None:
        for moment in (pair.start, pair.end - 1):
            try:
                session = self._calendars.session_of(stream.business, stream.symbol, moment)
            except BeyondCalendar:
                continue
            if session is not None:
                return session
        return None


def _numbers(figures: Figures | None) -> tuple[int | None, ...]:
    return (None,) * 6 if figures is None else (*figures.prices, figures.volume, figures.turnover)
