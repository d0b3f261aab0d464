"""The reconciliation agent: the vendor's klines beside our own bars, once both are final; it alters
neither.

It reads `infoway.raw.kline` and the bar topics side by side. What a stream of bars and one of
klines say depends on each one's own order alone, so the last record of a bar is the same however
the two are interleaved, but for bars that were no longer at hand (`expired`); the records before it
need not be.
"""

from collections.abc import Iterator, Mapping, Sequence

from processors.agents.reconciliation.figures import (
    Circumstances,
    Figures,
    Reason,
    compare,
    session_of_day,
    touches_auction,
)
from processors.agents.reconciliation.state import (
    HOUR,
    WAIT_MS,
    BarSide,
    DayTotals,
    KlineSide,
    Pair,
    ReconciliationState,
    Stream,
)
from processors.kernels.compiled import AVAILABLE
from processors.kernels.waiting.run import BarRun
from processors.model.begun_sessions import BegunSessions, SessionFinder
from processors.model.event_time import EventTime, Feeds
from processors.model.intervals import DAY, MINUTE, ladder, span_ms
from processors.model.observation import FOREVER, Interruption
from processors.model.records import (
    BarRevision,
    ControlRecord,
    Kline,
    Row,
    Rows,
    SourceRecord,
    SourcesMixed,
)
from processors.model.trading_days import LONGEST_SESSION_MS, Session
from schemas.decimals import UNIT, divide_half_even
from schemas.records import ReconciliationRecord
from schemas.topics import RECONCILIATION

UNPAIRED = 4
"""Bars that are kept at least of a stream without any kline yet: klines may be read later than the
bars; of short ones, an hour's."""
BEHIND = 1440
"""Bars that are kept at most where klines were seen and then came no more."""
MAX_AHEAD_MS = 60_000
"""How far ahead of its receipt a kline may begin and still move time on: more would let everything
expire."""


class Reconciliation:
    """The agent `reconciliation`: rows of `infoway.reconciliation`."""

    name = "reconciliation"

    def __init__(
        self,
        intervals: Sequence[str],
        calendars: SessionFinder,
        event_time: EventTime,
        native: bool = AVAILABLE,
    ) -> None:
        """`native`: kernels have the bars of streams without klines."""
        self.takes_runs = native
        """Whether `apply` takes runs of bars beside single records."""
        self._lengths = {
            interval.name: interval.length_ms for interval in ladder(intervals).intervals
        }
        self._names = {length: name for name, length in self._lengths.items()}
        self._calendars = calendars
        self._event_time = event_time

    def load(self, partition: int, entries: Mapping[bytes, bytes]) -> ReconciliationState:
        """Return the state that `dirty` yielded."""
        feeds = Feeds(self._event_time, partition, LONGEST_SESSION_MS, entries)
        sessions = BegunSessions(self._calendars, self.name, partition, entries)
        kept = {interval: self._kept(interval) for interval in self._lengths}
        return ReconciliationState(partition, feeds, sessions, entries, kept, self.takes_runs)

    def apply(
        self, state: ReconciliationState, records: Sequence[SourceRecord | BarRun]
    ) -> list[Row]:
        """Fold records of one partition of the klines or of a bar topic, in log order. Raises
        SourcesMixed."""
        rows = Rows()
        for record in records:
            if isinstance(record, BarRun):
                self._take_run(state, rows, record)
            elif isinstance(record, Kline):
                self._take_kline(state, rows, record)
            elif isinstance(record, BarRevision):
                if self.takes_runs and not state.has_stream(record.symbol, record.interval):
                    self._take_alone(state, rows, record)
                else:
                    self._take_bar(state, rows, record)
            elif isinstance(record, ControlRecord):
                for symbol, lost in state.feeds.control(record).items():
                    self._judge_again(state, rows, symbol, lost, record.control.source)
        return rows.rows

    def dirty(self, state: ReconciliationState) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield what changed since the last call, and forget it."""
        return state.dirty()

    def _take_kline(self, state: ReconciliationState, rows: Rows, kline: Kline) -> None:
        if kline.source != "rest":
            state.feeds.observe(kline)
        interval = self._names.get(DAY if kline.interval == "1d" else span_ms(kline.interval) or 0)
        if interval is None:
            return  # bars of this interval are not computed
        stream = state.stream(kline.symbol, interval)
        stream.business = kline.business
        start, end, aligned = self._bar_period(state, interval, kline)
        if stream.is_over(start, end):
            # judged again without its bar, it would be worse than the last record and count twice
            return
        # how far this kline moves time on: one that begins ahead of its receipt does not
        now = min(start, kline.ts_recv // 1000 + MAX_AHEAD_MS)
        if stream.first == FOREVER:
            stream.expired = max(stream.expired, now)
            for early in [known for known in stream.pairs if known < now]:
                state.drop(stream, stream.pairs[early])
        stream.first = min(stream.first, start)
        side = KlineSide(
            Figures(*kline.prices, kline.volume, kline.turnover),
            kline.turnover_step,
            kline.offset,
            kline.ts_recv,
        )
        pair = stream.pairs.get(start)
        if pair is None:
            pair = state.pair(stream, start, end)
            # a session begins with its first kline, not only when one is judged
            state.sessions.session_of(kline.business, kline.symbol, kline.ts_start)
        pair.kline, pair.aligned = side, aligned
        state.touch(stream, pair)
        if start > stream.newest:
            before, stream.newest = stream.newest, start
            # with a later kline the one before is final, and a bar between the two has none
            for known in sorted(known for known in stream.pairs if before <= known < start):
                self._judge(state, rows, stream, stream.pairs[known], kline.source)
        else:
            self._judge(state, rows, stream, pair, kline.source)
        self._expire(state, rows, stream, now - WAIT_MS, kline.source)

    def _bar_period(
        self, state: ReconciliationState, interval: str, kline: Kline
    ) -> tuple[int, int, bool]:
        """Return start and end of our bar for a kline, and whether there can be one."""
        start, length = kline.ts_start, self._lengths[interval]
        if interval == "1d":
            session = session_of_day(state.sessions, kline.business, kline.symbol, start)
            return (
                (start, start + length, False)
                if session is None
                else (session.start, session.end, True)
            )
        return start, start + length, start % length == 0

    def _judge_again(
        self, state: ReconciliationState, rows: Rows, symbol: str, lost: Interruption, source: str
    ) -> None:
        """Judge anew what was judged of a time that was not observed, as is only known now."""
        for interval in self._lengths:
            if not state.has_stream(symbol, interval):
                continue
            stream = state.stream(symbol, interval)
            for start in sorted(
                start
                for start, pair in stream.pairs.items()
                if pair.status is not None and lost.begin < pair.end and start < lost.end
            ):
                self._judge(state, rows, stream, stream.pairs[start], source)

    def _take_run(self, state: ReconciliationState, rows: Rows, run: BarRun) -> None:
        self._check_source(state, run.source, run.first_offset)
        waiting, index = state.waiting[run.interval], 0
        while (index := waiting.take(run, index)) < len(run):
            self._take_bar(state, rows, run.record(index))
            index += 1

    def _take_alone(self, state: ReconciliationState, rows: Rows, bar: BarRevision) -> None:
        """Take a bar of a stream that has had no kline."""
        self._check_source(state, bar.source, bar.offset)
        if abs(bar.ts_recv) >= FOREVER:
            self._take_bar(state, rows, bar)  # kernels read numbers of 63 bits
        elif bar.from_trades:
            self._take_run(state, rows, BarRun.of(state.waiting[bar.interval].tables, bar))

    def _check_source(self, state: ReconciliationState, source: str, offset: int) -> None:
        if state.feeds.source not in (None, source):
            raise SourcesMixed(str(state.feeds.source), source, state.partition, offset)

    def _take_bar(self, state: ReconciliationState, rows: Rows, bar: BarRevision) -> None:
        self._check_source(state, bar.source, bar.offset)
        stream = state.stream(bar.symbol, bar.interval)
        pair = stream.pairs.get(bar.ts_start)
        if not bar.from_trades or (pair is None and bar.ts_end <= stream.expired):
            # open, or made of klines itself; or older than the vendor's first kline, or evicted
            return
        if pair is None:
            pair = state.pair(stream, bar.ts_start, bar.ts_end)
        pair.bar = BarSide.of(bar)
        state.touch(stream, pair)
        self._judge(state, rows, stream, pair, bar.source)
        if bar.ts_end > stream.closed:
            stream.closed = bar.ts_end
            self._settle(state, rows, stream, bar.source)
            self._expire(state, rows, stream, bar.ts_end - WAIT_MS, bar.source)

    def _expire(
        self, state: ReconciliationState, rows: Rows, stream: Stream, until: int, source: str
    ) -> None:
        """Judge for the last time, and forget, what ended by the full hour before `until`."""
        until -= until % HOUR  # in batches: a pass over all pairs for each kline would cost 0.2 ms
        if stream.oldest > until:
            return
        for start in sorted(start for start, pair in stream.pairs.items() if pair.end <= until):
            pair = stream.pairs[start]
            stream.expired = max(stream.expired, pair.end)
            if pair.status is None:
                self._judge(state, rows, stream, pair, source)
            state.drop(stream, pair)
        stream.oldest = min((pair.end for pair in stream.pairs.values()), default=FOREVER)

    def _settle(self, state: ReconciliationState, rows: Rows, stream: Stream, source: str) -> None:
        """Judge klines whose bar can no longer come, and forget the pairs that no revision can
        change any more."""
        settled = self._settled(stream)
        # what has no kline may be lost with a gap of the klines' that is told later
        certain = stream.newest - self._event_time.revision_horizon_ms
        for pair in sorted(
            (pair for pair in stream.pairs.values() if pair.end <= settled),
            key=lambda pair: pair.start,
        ):
            if pair.kline is not None and pair.bar is None and pair.start < stream.newest:
                self._judge(state, rows, stream, pair, source)
            both = pair.bar is not None and pair.kline is not None
            if pair.status is not None and (both or pair.end <= certain):
                stream.expired = max(stream.expired, pair.end)
                state.drop(stream, pair)
        waiting = BEHIND if stream.business else self._kept(stream.interval)
        alone = [start for start, pair in stream.pairs.items() if pair.kline is None]
        for start in sorted(alone)[: max(len(alone) - waiting, 0)]:
            stream.expired = max(stream.expired, stream.pairs[start].end)
            state.drop(stream, stream.pairs[start])

    def _kept(self, interval: str) -> int:
        """Return how many bars are kept of a stream that has had no kline."""
        return max(UNPAIRED, min(60, 60 * MINUTE // self._lengths[interval]))

    def _settled(self, stream: Stream) -> int:
        """Return up to which end no bar can come or be revised any more."""
        # bars are forgotten where the watermark crosses their grid, none of which is longer than
        # the interval
        return stream.closed - self._event_time.revision_horizon_ms - self._lengths[stream.interval]

    def _judge(
        self, state: ReconciliationState, rows: Rows, stream: Stream, pair: Pair, source: str
    ) -> None:
        if not stream.first <= pair.start < stream.newest:
            return  # the kline is not final, or there never was one so early
        # one that was judged and stayed at hand since has not lost its bar
        at_hand = pair.status is not None and pair.shown[1] != "expired"
        expired = pair.end <= stream.expired and not at_hand
        if (
            pair.bar is None
            and pair.aligned
            and not expired
            and pair.end > self._settled(stream)
            and pair.kline is not None
        ):
            return  # a late trade may yet make the bar
        session = self._session(state, stream, pair)
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
                ours,
                theirs,
                step,
                Circumstances(healthy, auctions, stream.interval == "1d", expired),
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
        record = self._record(state, stream, pair, reason, day, session, source)
        rows.append(RECONCILIATION, stream.symbol, record)

    def _record(
        self,
        state: ReconciliationState,
        stream: Stream,
        pair: Pair,
        reason: Reason | None,
        day: DayTotals,
        session: Session | None,
        source: str,
    ) -> ReconciliationRecord:
        bar, kline = pair.bar, pair.kline
        assert pair.status is not None
        ours, theirs = bar.figures if bar else None, kline.figures if kline else None
        return ReconciliationRecord(
            stream.symbol,
            stream.interval,
            pair.start,
            session.trade_date if session else None,
            pair.status,
            reason,
            pair.revision,
            bar.revision if bar else None,
            bar.completeness if bar else None,
            ours.open if ours else None,
            ours.high if ours else None,
            ours.low if ours else None,
            ours.close if ours else None,
            ours.volume if ours else None,
            ours.turnover if ours else None,
            theirs.open if theirs else None,
            theirs.high if theirs else None,
            theirs.low if theirs else None,
            theirs.close if theirs else None,
            theirs.volume if theirs else None,
            theirs.turnover if theirs else None,
            divide_half_even(day.ours * UNIT, day.theirs) if day.theirs else None,
            day.counts["equal"],
            day.counts["differs"],
            day.counts["not_comparable"],
            state.feeds.source or source,
            max(side.ts_recv for side in (bar, kline) if side),
            state.partition,
            kline.offset if kline else None,
            bar.offset if bar else None,
        )

    def _session(self, state: ReconciliationState, stream: Stream, pair: Pair) -> Session | None:
        for moment in (pair.start, pair.end - 1):
            session = state.sessions.session_of(stream.business, stream.symbol, moment)
            if session is not None:
                return session
        return None
