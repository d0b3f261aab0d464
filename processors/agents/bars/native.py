"""Bars by the kernels: runs them over trades and feeds' event time, and answers where they stop.

A symbol's bars are in the arrays, or TimeBars of the general path. Where a kernel cannot go on with
a symbol, its bars are lent to the general path for that record, and come back if their numbers fit.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from processors.agents.bars.arrays import NativeBars
from processors.agents.bars.exchange import code_of
from processors.agents.bars.figures import TimeBar
from processors.agents.bars.finding import session_of
from processors.agents.bars.general import GeneralBars
from processors.agents.bars.healing import HEALABLE_MS
from processors.agents.bars.published import Published
from processors.agents.bars.state import BarsState, BarTimers, SymbolBars
from processors.kernels.bars.arrays import (
    BEYOND,
    CLOSING,
    COMPLETENESS,
    DONE,
    FULL,
    GENERAL,
    IDLE,
    LOOK,
    NO_BARS,
    NONE,
    SESSION,
    TURN,
    UPDATING,
)
from processors.kernels.bars.fold import fold_trades
from processors.kernels.bars.state import settle_feed
from processors.kernels.columns import EncodedRows, Tables, TradeRun
from processors.kernels.numbered_pairs import NumberedPairs
from processors.kernels.observed import Observed
from processors.model.intervals import DAY, MINUTE
from processors.model.observation import BEGINNING, FOREVER
from processors.model.records import ControlRecord, Heal, Rows, Trade
from schemas.topics import PROGRESS


class NativePath:
    """What the kernels keep of a partition, beside the general path's state."""

    def __init__(
        self, general: GeneralBars, state: BarsState, entries: Mapping[bytes, bytes]
    ) -> None:
        """Take over what the general path has loaded, and load what the kernels have written;
        raises StateTooNew."""
        self._general = general
        self._state = state
        self._observed = Observed(state.feeds, general.event_time)
        self._native = NativeBars(
            state.partition,
            self._observed,
            general.event_time,
            general.ladder,
            general.grid_ms,
            general.update_ms,
            HEALABLE_MS,
        )
        self._topics = [*(f"infoway.bars.{name}" for name in general.names), PROGRESS]
        self._tables = Tables()
        """Of trades that come as records."""
        self._published: dict[str, Published] = {}
        """Of the symbols whose bars are in the arrays."""
        self._visitors: dict[str, None] = {}
        """Symbols that the general path has for this record."""
        self._next_try: dict[str, int] = {}
        """Symbols whose numbers did not fit, and the watermark from which on to try again."""
        self._to_show: list[TimeBar] | None = None
        """Open bars of the general path that updates are due of, the next one last."""
        self._horizon_ms = general.event_time.revision_horizon_ms
        self._rows: list[Any] = []
        state.lend = self._lend
        self._observed.before()
        self._native.know_feeds()
        if state.feeds.source is not None:
            self._native.set_source(state.feeds.source)
        self._native.load(entries)
        for symbol, symbol_bars in list(state.symbols.items()):
            self._native.slot(symbol)
            if symbol_bars.bars:
                self._visitors[symbol] = None
            else:
                self._published[symbol] = symbol_bars.published
                del state.symbols[symbol]
                self._native.note_forgotten(symbol, self._forgotten_until(symbol_bars.published))
        self._return_visitors()
        for feed in range(len(self._observed.feed_names)):
            settle_feed(feed, self._native.arrays)
        self._watch_general()

    def begin(self) -> None:
        """Begin a call of `apply`."""
        self._rows = []
        self._observed.before()

    def end(self) -> list[Any]:
        """Return the rows of the call, plain and encoded, in order."""
        self._flush()
        self._observed.after()
        return self._rows

    def fold_run(self, run: TradeRun) -> None:
        """Fold a run of trades. Raises SourcesMixed."""
        self._observed.follow(run.tables)
        self._run_kernel(run)

    def fold_trade(self, trade: Trade) -> None:
        """Fold a trade, whatever its numbers are. Raises SourcesMixed."""
        run = TradeRun.of(self._tables, trade)
        if run is not None:
            self.fold_run(run)
            return
        rows = self._hand_out(trade.offset, trade.ts_recv)
        if self._accept(rows, trade, is_new_lane=True):
            self._fold_generally(rows, trade)
            self._run_kernel(None)

    def control(self, record: ControlRecord) -> None:
        """Take a control record. Raises SourcesMixed."""
        state, control = self._state, record.control
        rows = self._hand_out(record.offset, control.ts_recv)
        changed = self._general.follow_symbols(state, rows, record)
        self._meet()
        self._observed.refresh(changed)
        self._watch_general()
        timers = state.timers(state.feeds.feed(control.feed))
        # as in the general path, a feed without a time of its own moves nothing
        has_time = timers.feed.latest_event_ms != BEGINNING
        if has_time:
            self._advance_if_due(self._observed.feed(control.feed), rows)
        self._run_kernel(None)
        if control.kind == "end" and has_time:
            rows = self._hand_out(record.offset, control.ts_recv)
            self._general.progress(state, rows, timers)

    def heal(self, record: Heal) -> None:
        """Take a heal."""
        rows = self._hand_out(record.offset, record.ts_recv)
        self._general.heal(self._state, rows, record)
        if record.symbol in self._state.symbols:
            self._native.slot(record.symbol)
            self._visitors[record.symbol] = None
        self._watch_general()
        self._run_kernel(None)

    def changes(self) -> Iterator[tuple[bytes, bytes | None] | NumberedPairs]:
        """Yield what changed since the last call, and forget it."""
        self._drain_forgotten()
        yield from self._state.dirty()
        yield from self._native.pairs_changed()

    def _run_kernel(self, run: TradeRun | None) -> None:
        native, position = self._native, self._native.run[0]
        position["next"], position["came_by"] = 0, NONE
        trades = native.no_trades if run is None else run.trades
        while True:
            if self._visitors and position["phase"] == IDLE:
                self._return_visitors()
            reason = fold_trades(trades, native.arrays)
            if reason == DONE:
                return
            if reason == FULL:
                self._flush()
            elif reason == NO_BARS:
                self._drain_forgotten()
                native.make_room()
            elif reason == SESSION:
                self._answer_session(int(position["slot"]), int(position["time"]))
            elif reason == COMPLETENESS:
                self._answer_completeness(int(position["bar"]))
            elif position["phase"] != IDLE:
                self._look_at_advance(reason)
            else:
                assert run is not None
                self._look_at_trade(run, reason)

    def _look_at_trade(self, run: TradeRun, reason: int) -> None:
        position = self._native.run[0]
        number = int(position["next"])
        trade = run.trade(number)
        rows = self._hand_out(trade.offset, trade.ts_recv)
        if reason == LOOK:
            lane = run.trades[number]["lane"]
            if self._accept(rows, trade, self._observed.feed_of_lane[lane] == NONE):
                position["came_by"] = self._observed.feed(trade.feed)
            else:
                position["next"] += 1
            return
        assert reason == GENERAL
        self._fold_generally(rows, trade)
        position["next"] += 1
        position["came_by"] = NONE

    def _accept(self, rows: Rows, trade: Trade, is_new_lane: bool) -> bool:
        """Let the feeds judge a trade, and write it where it is too late."""
        feeds = self._state.feeds
        accepted = feeds.accept(trade)
        self._observed.before()
        if is_new_lane:
            self._meet()
        if trade.symbol not in self._observed.slots and feeds.knows(trade.symbol):
            self._native.slot(trade.symbol)
        if not accepted and not trade.repeat:
            self._general.refuse(self._state, rows, trade)
        return accepted

    def _fold_generally(self, rows: Rows, trade: Trade) -> None:
        """Fold an accepted trade by the general path, and let its feed advance next."""
        state, symbol = self._state, trade.symbol
        is_guest = symbol not in state.symbols
        self._general.fold(state, rows, trade)
        self._native.make_general(symbol)
        if is_guest or state.feeds.watermark_of(symbol) >= self._next_try.get(symbol, BEGINNING):
            self._visitors[symbol] = None
        self._watch_general()
        self._advance_if_due(self._observed.feed(trade.feed), rows)

    def _advance_if_due(self, feed: int, rows: Rows) -> None:
        row = self._observed.feeds[feed]
        if row["latest_event"] >= row["due"]:
            position = self._native.run[0]
            position["offset"], position["ts_recv"] = rows.offset, rows.ts_recv
            position["advancing"], position["phase"] = feed, CLOSING

    def _look_at_advance(self, reason: int) -> None:
        """Do the general path's part of an advance."""
        native, state, general = self._native, self._state, self._general
        position = native.run[0]
        rows = self._hand_out(int(position["offset"]), int(position["ts_recv"]))
        feed = int(position["advancing"])
        timers = state.timers(state.feeds.feed(self._observed.feed_names[feed]))
        if reason == BEYOND:
            self._drain_forgotten()
            general.drop_closed(state, timers)
            # the boundary follows the watermark before this one
            watermark = general.healable_until(timers) + HEALABLE_MS + self._horizon_ms
            if watermark // DAY != (int(native.timers[feed]["boundary"]) - 1) // DAY:
                state.forget_idle(timers, general.healable_until(timers))
                self._forget_idle(timers, general.healable_until(timers))
        elif reason == GENERAL:
            self._lend(self._observed.names[int(native.bars[int(position["bar"])]["slot"])])
            self._to_show = None
        else:
            assert reason == TURN
            if position["phase"] == CLOSING:
                bar = state.next_bar(timers, closed=False)
                assert bar is not None
                general.close(state, rows, bar)
            elif self._to_show:
                state.publish(rows, self._to_show.pop(), "update")
        self._watch_general()
        position["shows_general"] = position["phase"] == UPDATING
        if position["phase"] != UPDATING:
            self._to_show = None
            return
        if self._to_show is None:
            waiting = [bar for bar in state.open_bars(timers) if bar.count != bar.published]
            self._to_show = waiting[::-1]
        native.watch_general(feed, self._to_show[-1] if self._to_show else None)

    def _lend(self, symbol: str) -> SymbolBars | None:
        """Lend the bars of a symbol to the general path; None if there are none in the arrays."""
        if symbol in self._state.symbols:
            return self._state.symbols[symbol]
        self._drain_forgotten()
        if not self._native.has_bars(symbol) and symbol not in self._published:
            return None
        self._visitors[symbol] = None
        bars = self._native.lift(symbol)
        published = self._published.pop(symbol, None) or self._state.new_published()
        return self._state.take_back(symbol, bars, published)

    def _return_visitors(self) -> None:
        for symbol in self._visitors:
            symbol_bars = self._state.symbols.get(symbol)
            if symbol_bars is None:
                continue
            published = symbol_bars.published
            bars = list(symbol_bars.bars.values())
            if self._native.place(symbol, bars, self._forgotten_until(published)):
                self._published[symbol] = published
                self._state.hand_over(symbol)
                self._next_try.pop(symbol, None)
            else:
                # it returns with a trade that comes when what it has now is forgotten
                self._native.make_general(symbol)
                watermark = self._state.feeds.watermark_of(symbol)
                self._next_try[symbol] = watermark + self._horizon_ms
        self._visitors.clear()
        self._watch_general()

    def _watch_general(self) -> None:
        """Let the kernels know the next bars of the general path."""
        state, delay = self._state, self._general.event_time.watermark_delay_ms
        for name, timers in state.timers_by_feed.items():
            feed = self._observed.feed(name)
            self._native.know_feeds()
            bar = state.next_bar(timers, closed=False)
            self._native.watch_general(feed, bar)
            row = self._observed.feeds[feed]
            if bar is not None and bar.end + delay < row["due"]:
                row["due"] = bar.end + delay
            is_waiting = state.next_bar(timers, closed=True) is not None
            closed = timers.closed[0][0] if is_waiting else FOREVER
            self._native.timers[feed]["general_closed"] = closed

    def _answer_session(self, slot: int, time: int) -> None:
        state, symbol = self._state, self._observed.names[slot]
        session = session_of(state, state.feeds.feed_of(symbol).business, symbol, time)
        if session is None:
            minute = time - time % MINUTE
            self._native.set_session(slot, (minute, minute + MINUTE, None))
        else:
            self._native.set_session(slot, (session.start, session.end, session.trade_date))

    def _answer_completeness(self, number: int) -> None:
        bar = self._native.bars[number]
        symbol = self._observed.names[int(bar["slot"])]
        bar["known"] = code_of(
            self._state.feeds.completeness(symbol, int(bar["start"]), int(bar["end"]))
        )

    def _drain_forgotten(self) -> None:
        count = int(self._native.run[0]["forgotten"])
        for start, until, slot, level in self._native.forgotten[:count].tolist():
            symbol = self._observed.names[slot]
            published = self._published.get(symbol)
            if published is None:
                published = self._published[symbol] = self._state.new_published()
            self._state.remember(symbol, published, level, start, until)
        self._native.run[0]["forgotten"] = 0

    def _forget_idle(self, timers: BarTimers, healable_until: int) -> None:
        for symbol, published in list(self._published.items()):
            if self._state.feeds.feed_of(symbol) is timers.feed:
                self._state.expire(symbol, published, healable_until)
                if published.is_empty():
                    del self._published[symbol]

    def _forgotten_until(self, published: Published) -> list[int]:
        found = [published.latest(level) for level in range(len(self._general.names))]
        return [BEGINNING if start is None else start for start in found]

    def _hand_out(self, offset: int, ts_recv: int) -> Rows:
        """Let the general path go on where the kernels are; return the rows that it appends to."""
        self._flush()
        self._observed.after()
        return Rows(self._rows, offset, ts_recv)

    def _meet(self) -> None:
        """Take over what the feeds have learnt of feeds and connections."""
        self._observed.before()
        self._native.know_feeds()
        self._observed.refresh_lanes()
        if self._state.feeds.source is not None:
            self._native.set_source(self._state.feeds.source)

    def _flush(self) -> None:
        native, run = self._native, self._native.run[0]
        count = int(run["rows"])
        if count:
            rows = native.rows[:count]
            self._rows.append(
                EncodedRows(
                    self._topics,
                    rows["topic"].copy(),
                    native.names,
                    native.keys,
                    rows["key"].copy(),
                    rows["end"].copy(),
                    native.out[: int(run["written"])].copy(),
                )
            )
            run["rows"] = run["written"] = 0
