"""Activity bars by the kernel: runs it over trades, and does by the general path what stops it.

The general path's state has every trade date. Of one date a symbol, that of its last trade, the
bars are in the kernel's arrays as long as their numbers fit. They are lent to the general path for
whatever it does with them, and come back before the kernel runs again.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from processors.agents.activity.exchange import bar_of, fits, record_of, records_of
from processors.agents.activity.general import GeneralActivityBars
from processors.agents.activity.state import ActivityState, OpenDay, SymbolDays
from processors.kernels.activity.arrays import (
    BAR,
    DONE,
    DUE,
    FIXED,
    FULL,
    LANE,
    LOOK,
    RUN,
    SLOT,
    ActivityArrays,
)
from processors.kernels.activity.fold import fold_trades
from processors.kernels.columns import Array, EncodedRows, Tables, TradeRun
from processors.kernels.names import Names, with_room
from processors.kernels.observed import Observed, grown
from processors.model.intervals import MINUTE
from processors.model.records import ControlRecord, Rows, Trade

_ROWS, _ROW_BYTES = 1024, 320
"""Rows that are set aside at first, and the bytes of a typical one."""


class NativeActivityBars:
    """What the kernel has of a partition, beside the general path's state."""

    def __init__(self, general: GeneralActivityBars, state: ActivityState) -> None:
        """Take the bars of `state` as its trades come."""
        self._general = general
        self._state = state
        state.lend = self._lend
        self._observed = Observed(state.feeds, general.event_time)
        self._topics = [f"infoway.bars.{threshold.name}" for threshold in general.thresholds]
        self._thresholds = records_of(general.thresholds)
        self._slots: Array = np.zeros(64, SLOT)
        self._bars: Array = np.zeros((64, len(self._thresholds)), BAR)
        self._days: dict[int, OpenDay] = {}
        """By slot the trade date whose bars are in the arrays."""
        self._visitors: dict[str, None] = {}
        """Symbols whose bars may go into the arrays before the kernel runs again."""
        self._tables = Tables()
        self._keys, self._texts = Names(), Names()
        self._texts.add(text.encode() for text in FIXED)
        self._sources: dict[str, int] = {}
        self._businesses: dict[str, int] = {}
        self._lanes: Array = np.zeros(4, LANE)
        self._known_lanes = 0
        self._run: Array = np.zeros(1, RUN)
        self._out: Array = np.zeros(_ROWS * _ROW_BYTES, np.uint8)
        self._ends: Array = np.zeros(_ROWS, np.int64)
        self._topic: Array = np.zeros(_ROWS, np.int8)
        self._row_keys: Array = np.zeros(_ROWS, np.int32)

    def fold_run(self, rows: list[Any], run: TradeRun) -> None:
        """Fold a run of trades, and append its rows. Raises SourcesMixed."""
        self._follow(run.tables)
        position = self._run[0]
        position["next"] = 0
        while (reason := self._call_kernel(run)) != DONE:
            had_rows = self._flush(rows)
            if reason == FULL:
                if not had_rows:
                    self._grow_outputs()
                continue
            at = int(position["next"])
            if reason == DUE:
                trade = run.trade(at - 1)
                self._general.advance(
                    self._state,
                    Rows(rows, trade.offset, trade.ts_recv),
                    self._state.timers_by_feed[trade.feed],
                )
                continue
            trade = run.trade(at)
            self._take_generally(rows, trade)
            if reason == LOOK:
                self._observed.refresh_lanes()
            else:
                self._note_outside(trade)
            position["next"] += 1
        self._flush(rows)

    def fold_trade(self, rows: list[Any], trade: Trade) -> None:
        """Fold a trade, whatever its numbers are. Raises SourcesMixed."""
        run = TradeRun.of(self._tables, trade)
        if run is not None:
            self.fold_run(rows, run)
            return
        self._take_generally(rows, trade)
        self._observed.refresh_lanes()

    def control(self, rows: list[Any], record: ControlRecord) -> None:
        """Take a control record. Raises SourcesMixed."""
        changed = self._general.control(self._state, Rows(rows), record)
        self._observed.refresh(changed)
        self._observed.refresh_lanes()

    def dirty(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield what changed since the last call, and forget it."""
        for slot in np.flatnonzero(self._slots["dirty"]).tolist():
            self._copy_out(slot, self._days[slot])
        return self._state.dirty()

    def _call_kernel(self, run: TradeRun) -> int:
        self._return_visitors()
        observed, state = self._observed, self._state
        observed.before()
        for feed, name in enumerate(observed.feed_names):
            observed.feeds[feed]["due"] = state.timers(state.feeds.feed(name)).due
        arrays = ActivityArrays(
            observed.feeds, observed.symbols, observed.slot_of, observed.feed_of_lane,
            observed.limits, self._lanes, self._thresholds, self._slots, self._bars,
            self._keys.packed, self._keys.ends, self._texts.packed, self._texts.ends,
            self._run, self._out, self._ends, self._topic, self._row_keys,
        )  # fmt: skip
        reason = fold_trades(run.trades, state.partition, arrays)
        observed.after()
        return reason

    def _take_generally(self, rows: list[Any], trade: Trade) -> None:
        self._lend(trade.symbol, False)
        self._general.take(self._state, Rows(rows), trade)
        self._visitors[trade.symbol] = None
        if self._state.feeds.knows(trade.symbol):  # not of a repeat alone
            self._slot(trade.symbol)

    def _note_outside(self, trade: Trade) -> None:
        """Have the kernel pass over what follows in the minute of an accepted trade that belongs to
        no session: sessions begin and end on whole minutes."""
        known = self._state.symbols.get(trade.symbol)
        if (
            known is None
            or not known.start <= trade.ts_event < known.end
            or known.business != trade.business
        ):
            slot = self._slots[self._slot(trade.symbol)]
            slot["outside_end"] = (trade.ts_event // MINUTE + 1) * MINUTE
            slot["outside_business"] = self._business(trade.business)

    def _lend(self, symbol: str, for_update: bool) -> None:
        """Take the bars of a symbol out of the arrays, if they are there; for an update only if
        there may be something to publish."""
        slot = self._observed.slots.get(symbol, -1)
        day = self._days.get(slot)
        if day is None or (for_update and not self._slots[slot]["unpublished"]):
            return
        self._copy_out(slot, day)
        self._slots[slot]["is_native"] = 0
        self._visitors[symbol] = None
        del self._days[slot]

    def _copy_out(self, slot: int, day: OpenDay) -> None:
        known = self._slots[slot]
        if known["dirty"]:
            known["dirty"] = 0
            day.bars[:] = map(bar_of, self._bars[slot].tolist())
            self._state.touch(day)

    def _return_visitors(self) -> None:
        for symbol in self._visitors:
            known = self._state.symbols.get(symbol)
            # after a load no date is at hand before the first trade
            if known is not None and known.today is not None and all(map(fits, known.today.bars)):
                self._place(symbol, known, known.today)
        self._visitors.clear()

    def _place(self, symbol: str, known: SymbolDays, day: OpenDay) -> None:
        slot = self._slot(symbol)
        row = self._slots[slot]
        row["session_start"], row["session_end"] = known.start, known.end
        row["trade_date"], row["business"] = day.trade_date, self._business(known.business)
        row["is_native"] = 1
        row["unpublished"] = any(bar.count != bar.published for bar in day.bars)
        for level, bar in enumerate(day.bars):
            self._bars[slot, level] = record_of(bar)
        self._days[slot] = day

    def _slot(self, symbol: str) -> int:
        slot = self._observed.slots.get(symbol)
        if slot is not None:
            return slot
        slot = self._observed.slot(symbol)
        self._slots = with_room(self._slots, slot + 1)
        self._bars = with_room(self._bars, slot + 1)
        return slot

    def _business(self, name: str) -> int:
        return self._businesses.setdefault(name, len(self._businesses))

    def _follow(self, tables: Tables) -> None:
        """Let the indices of the tables be known, those that are new since the last run too."""
        if tables is not self._tables:
            self._tables = tables
            self._keys, self._known_lanes = Names(), 0
        self._keys.add(tables.keys[len(self._keys) :])
        for lane in tables.lanes[self._known_lanes :]:
            self._lanes = with_room(self._lanes, self._known_lanes + 1)
            if lane.source not in self._sources:
                self._sources[lane.source] = len(self._texts)
                self._texts.add((lane.source.encode(),))
            self._lanes[self._known_lanes] = (
                self._business(lane.business),
                self._sources[lane.source],
            )
            self._known_lanes += 1
        self._observed.follow(tables)

    def _flush(self, rows: list[Any]) -> bool:
        """Append what the kernel has encoded; return whether there was anything."""
        run = self._run[0]
        count = int(run["rows"])
        if count == 0:
            return False
        rows.append(
            EncodedRows(
                self._topics,
                self._topic[:count].copy(),
                self._tables.symbols,
                self._tables.keys,
                self._row_keys[:count].copy(),
                self._ends[:count].copy(),
                self._out[: int(run["written"])].copy(),
            )
        )
        run["rows"] = run["written"] = 0
        return True

    def _grow_outputs(self) -> None:
        self._out = grown(self._out, 2 * len(self._out))
        count = 2 * len(self._ends)
        self._ends, self._topic = grown(self._ends, count), grown(self._topic, count)
        self._row_keys = grown(self._row_keys, count)
