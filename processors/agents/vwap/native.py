"""The native path of the VWAP agent: drives the kernel over runs of plain trades, and mends what it
stops at. The arrays are in `processors.agents.vwap.slots`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from processors.agents.vwap import native_state as stored
from processors.agents.vwap.general import General, session_to_open
from processors.agents.vwap.slots import SYMBOL_KEY, NoFit, Slots, symbol_key
from processors.agents.vwap.state import SESSIONS_KEPT
from processors.agents.vwap.windows import SESSION
from processors.kernels.columns import HEADER, Array, EncodedRows, Tables, TradeRun
from processors.kernels.numbered_pairs import NumberedPairs
from processors.kernels.observed import Observed
from processors.kernels.vwap import arrays
from processors.kernels.vwap.fold import fold
from processors.model.event_time import EventTime
from processors.model.intervals import MINUTE
from processors.model.observation import BEGINNING
from processors.model.records import Row, Trade
from processors.model.sessions import exchange_of, market_of
from processors.model.trading_days import LONGEST_SESSION_MS

if TYPE_CHECKING:
    from processors.agents.vwap.state import VwapState

RETRY_TRADES = 1_000
"""Trades of a general symbol after which it is looked at again whether its numbers fit."""

_ROWS_AT_ONCE = 8_192
_BYTES_A_ROW = 160
_KNOWN = ("complete", "partial", "gap")


@dataclass(frozen=True, slots=True)
class Shape:
    """What an agent was asked for: names and lengths (ms) of rolling windows, sessions, a grid."""

    windows: tuple[str, ...]
    spans: tuple[int, ...]
    has_session: bool
    emit_ms: int | None
    event_time: EventTime


Rows = list[Row | EncodedRows]


class Native:
    """The symbols of one partition that kernels have."""

    def __init__(
        self,
        state: "VwapState",
        shape: Shape,
        general: General,
        forget: Callable[["VwapState", str], None],
    ) -> None:
        self._state = state
        self._shape = shape
        self._general = general
        self._forget = forget
        self.slots = Slots(shape.spans, shape.has_session)
        self._observed = Observed(state.feeds, shape.event_time)
        last = (SESSION,) if shape.has_session else ()
        self._topics = [f"infoway.vwap.{window}" for window in (*shape.windows, *last)]
        self._plan: Array = np.zeros(1, arrays.PLAN)
        self._markets: dict[str, int] = {}
        self._outside: Array = np.full(16, BEGINNING, np.int64)
        """By market the minute whose trades lie outside of sessions."""
        self._tables = Tables()
        self._texts: Array = np.zeros(0, np.uint8)
        self._text_ends: Array = np.zeros(0, np.int64)
        self._source: str | None = None
        self._lanes_changed = False
        self._retry: dict[str, int] = {}
        """Trades of a general symbol until it is looked at again."""
        self.folded = 0
        """Trades that the kernel has taken."""
        self._values: Array = np.zeros(0, np.uint8)
        self._ends: Array = np.zeros(0, np.int64)
        self._topic: Array = np.zeros(0, np.int8)
        self._keys: Array = np.zeros(0, np.int32)

    # what the agent asks of symbols

    def restore(self, entries: Mapping[bytes, bytes]) -> None:
        """Take the state of the symbols that another instance had; raises StateFromTheFuture."""
        for name, symbol in stored.read(entries):
            slot = self._slot(name)
            self.slots.restore(slot, symbol)

    def give_up(self) -> None:
        """Hand every symbol over to the general path."""
        for name in list(self._observed.names):
            self._to_general(name)

    def known_at(self, name: str, ts_recv: int) -> bool:
        """Take when a symbol was last heard of; return False for one that kernels do not have."""
        slot = self._native_slot(name)
        if slot is None:
            return False
        row = self.slots.rows[slot]
        row["ts_recv"] = max(int(row["ts_recv"]), ts_recv)
        row["changed"] = 1
        return True

    def refresh(self, names: Sequence[str]) -> None:
        """Look again how these symbols are observed, and which connections are present."""
        self._observed.refresh(names)
        self._observed.refresh_lanes()
        for name in names:
            slot = self._observed.slots.get(name)
            if slot is not None:
                self.slots.covers[slot] = 0

    def forget_idle(self, feed: str, longest: int, horizon_ms: int) -> None:
        """Forget trades and sessions of the feed's symbols that no trade to come can reach."""
        for name in self._state.feeds.symbols_of(feed):
            slot = self._native_slot(name)
            if slot is None:
                continue
            oldest = self._state.feeds.watermark_of(name) - horizon_ms
            row = self.slots.rows[slot]
            if int(row["now"]) + longest <= oldest:
                self.slots.clear(slot, name)
            sessions = self.slots.sessions[slot]
            if (
                sessions["count"].any()
                and int(sessions["end"].max()) + LONGEST_SESSION_MS <= oldest
            ):
                sessions[:] = 0
                row["changed"] = 1

    def fold_one(self, trade: Trade, rows: Rows) -> bool:
        """Take a single trade; return False if its symbol is, or is now, in the general path."""
        if self._native_slot(trade.symbol) is None:
            self._lanes_changed = True
            return False
        run = TradeRun.of(self._tables, trade)
        if run is None:
            self._to_general(trade.symbol)
            self._lanes_changed = True
            return False
        self.fold(run, rows)
        return True

    def changes(self) -> Iterator[tuple[bytes, bytes | None] | NumberedPairs]:
        """Yield what changed since the last call, and forget it."""
        return stored.write(self.slots, self._observed.names, self._number_of)

    def _number_of(self, key: bytes) -> int:
        return self._observed.slots[key.removeprefix(SYMBOL_KEY).decode()]

    # a run

    def fold(self, run: TradeRun, rows: Rows) -> None:
        """Take a run of trades, and append its rows. Raises SourcesMixed."""
        if run.tables is not self._tables:
            self._tables = run.tables
            self.slots.rows["lane"] = -1
        observed = self._observed
        observed.follow(run.tables)
        if self._lanes_changed:
            observed.refresh_lanes()
            self._lanes_changed = False
        observed.before()
        self._set_due()
        self._set_texts(run.tables.lanes[int(run.trades["lane"][0])].source)
        self.slots.make_room_for_chunks(len(run))
        self._new_outputs(len(run))
        index, until = 0, len(run)
        undo: list[Callable[[], None]] = []
        try:
            while True:
                index, reason = self._call(run.trades[:until], index)
                if reason == arrays.DUE:
                    self._forget_due(run.trade(index - 1).feed)
                elif reason == arrays.OUTPUT_FULL:
                    self._flush(rows)
                    self._new_outputs(len(run) - index)
                elif reason == arrays.GENERAL:
                    if self._general_trade(run.trade(index), rows):
                        index += 1
                elif reason != arrays.DONE:
                    undone = self._mend(reason, run, index)
                    if undone is not None:
                        undo.append(undone)
                        until = index + 1
                if index == until:
                    while undo:
                        undo.pop()()
                    if until == len(run):
                        break
                    until = len(run)
        finally:
            observed.after()
        self.folded += len(run)
        self._flush(rows)

    def _call(self, trades: Array, index: int) -> tuple[int, int]:
        observed, slots = self._observed, self.slots
        return fold(
            trades, index, observed.feeds, observed.symbols, observed.slot_of,
            observed.feed_of_lane, observed.limits, self._plan, slots.spans, slots.rows,
            slots.windows, slots.sessions, slots.covers, slots.arena, slots.opened, slots.closed,
            slots.closings, self._outside, slots.names, self._texts, self._text_ends,
            self._values, self._ends, self._topic, self._keys, self.slots.written, slots.powers,
            slots.scratch,
        )  # fmt: skip

    def _mend(self, reason: int, run: TradeRun, index: int) -> Callable[[], None] | None:
        """Make the kernel able to take a trade; return what must be undone after this trade."""
        trade = run.trade(index)
        if reason == arrays.UNKNOWN_LANE:
            return self._meet(trade, int(run.trades["lane"][index]))
        if reason == arrays.UNKNOWN_SYMBOL:
            return self._begin(trade, run.trades[index])
        slot = self._observed.slots[trade.symbol]
        try:
            if reason == arrays.SCALES:
                self.slots.fit(slot, run.trades[index])
            elif reason == arrays.PRICE:
                self.slots.raise_most_price(slot, run.trades[index])
            elif reason == arrays.VOLUME:
                self._to_general(trade.symbol)
            elif reason == arrays.RING_FULL:
                self.slots.grow_ring(slot)
            elif reason == arrays.NO_SESSION:
                return self._open_session(slot, trade, int(run.trades["lane"][index]))
            elif reason == arrays.NOT_COVERED:
                self._cover(slot, trade)
            else:
                raise AssertionError(f"the kernel stopped for {reason}")
        except NoFit:
            self._to_general(trade.symbol)
        return None

    def _begin(self, trade: Trade, row: Array) -> Callable[[], None] | None:
        """Take a symbol with its first trade; at once what the kernel would stop for one by one."""
        accepted = self._accept(trade)
        slot = self._slot(trade.symbol)
        if not self._to_native(trade.symbol) or not accepted or not self.slots.is_new(slot):
            return None
        self.slots.begin(slot, row)
        undone = None
        if self._shape.has_session:
            undone = self._open_session(slot, trade, int(row["lane"]))
        if self._shape.emit_ms is None:
            self._cover(slot, trade)
        return undone

    def _meet(self, trade: Trade, lane: int) -> Callable[[], None] | None:
        self._accept(trade)
        observed = self._observed
        if observed.feed_of_lane[lane] >= 0:
            return None
        # a stray of an older connection: it counts, and its connection does not become the feed's
        observed.feed_of_lane[lane] = observed.feed(trade.feed)
        self._set_due()

        def forget() -> None:
            observed.feed_of_lane[lane] = -1

        return forget

    def _accept(self, trade: Trade) -> bool:
        """Let the authority judge a trade that the kernel then judges again, to the same end."""
        observed = self._observed
        observed.after()
        try:
            accepted = self._state.feeds.accept(trade)
        finally:
            observed.before()
        observed.refresh_lanes()
        self._set_due()
        return accepted

    def _general_trade(self, trade: Trade, rows: Rows) -> bool:
        """Take a trade of a general symbol; return False if the kernels have the symbol now."""
        left = self._retry.get(trade.symbol, 0)
        if left <= 0 and self._to_native(trade.symbol):
            return False
        self._retry[trade.symbol] = left - 1 if left > 0 else RETRY_TRADES
        self._flush(rows)
        state = self._state
        self._observed.after()
        try:
            if state.feeds.accept(trade):
                self._general.trade(state, trade, rows)
                if trade.ts_event >= state.sweep_at.get(trade.feed, BEGINNING):
                    self._forget(state, trade.feed)
        finally:
            self._observed.before()
            self._set_due()
        return True

    def _forget_due(self, feed: str) -> None:
        self._observed.after()
        self._forget(self._state, feed)
        self._set_due()

    def _open_session(self, slot: int, trade: Trade, lane: int) -> Callable[[], None] | None:
        """Begin the session of a trade, or let it pass as one outside of sessions."""
        sessions = self.slots.sessions[slot]
        oldest = int(sessions["start"][0]) if sessions["count"].all() else BEGINNING
        found = session_to_open(self._state.sessions, trade, oldest)
        if found is not None:
            kept = sessions.copy()
            self.slots.open_session(slot, found.trade_date, found.start, found.end)
            if found.start >= oldest:
                return None

            # older than all that are kept, of another business: it has but this row
            def restore() -> None:
                self.slots.sessions[slot] = kept

            return restore
        market = self._market_of(trade)
        row = self.slots.rows[slot]
        row["market"], row["lane"] = market, lane
        minute = trade.ts_event // MINUTE
        known = minute
        exchange = exchange_of(trade.business, trade.symbol)
        if exchange is not None:
            known = self._state.sessions.outside_minute(exchange)
        elif oldest != BEGINNING:
            known = int(self._outside[market])
        self._outside[market] = minute

        def remember() -> None:
            self._outside[market] = known

        return remember

    def _market_of(self, trade: Trade) -> int:
        # sessions of what has no known market may be those of its business
        name = market_of(trade.business, trade.symbol) or f"?{trade.business}"
        found = self._markets.setdefault(name, len(self._markets))
        if found == len(self._outside):
            self._outside = np.append(self._outside, np.full_like(self._outside, BEGINNING))
        return found

    def _cover(self, slot: int, trade: Trade) -> None:
        """Set how the windows are observed that the next row shows."""
        row, feeds, name = self.slots.rows[slot], self._state.feeds, trade.symbol
        now, emit_ms = int(row["now"]), self._shape.emit_ms
        if emit_ms is None:
            now = max(now, trade.ts_event)
        covers = self.slots.covers[slot]
        for index, span in enumerate(self._shape.spans):
            covers[index] = _cover_of(feeds.cover(name, now - span + 1, now + 1))
        if not self._shape.has_session:
            return
        for session in self.slots.sessions[slot][::-1]:
            if emit_ms is not None:
                if session["count"] > 0:
                    end = int(session["latest"]) + 1
                    covers[-1] = _cover_of(feeds.cover(name, int(session["start"]), end))
                    break
            elif session["start"] <= trade.ts_event < session["end"]:
                end = max(int(session["latest"]), trade.ts_event) + 1
                covers[-1] = _cover_of(feeds.cover(name, int(session["start"]), end))
                break

    # between the paths

    def _native_slot(self, name: str) -> int | None:
        slot = self._observed.slots.get(name)
        return None if slot is None or self.slots.rows["general"][slot] else slot

    def _slot(self, name: str) -> int:
        slot = self._observed.slot(name)
        self.slots.make(slot, name)
        return slot

    def _to_general(self, name: str) -> None:
        slot = self._native_slot(name)
        if slot is None:
            return
        known = self._state.symbol(name)
        self.slots.export(slot, known)
        self._state.gone.add(symbol_key(name))
        self.slots.drop(slot, name)
        self._retry[name] = RETRY_TRADES

    def _to_native(self, name: str) -> bool:
        """Take a symbol over from the general path; return whether its numbers fit."""
        slot = self._observed.slots[name]
        known = self._state.symbols.get(name)
        if known is not None:
            try:
                self.slots.take_over(slot, known)
            except NoFit:
                self.slots.drop(slot, name)
                return False
            self._state.remove(name)
        self.slots.rows["general"][slot] = 0
        self.slots.rows["changed"][slot] = 1
        self._retry.pop(name, None)
        return True

    # outputs

    def _set_due(self) -> None:
        for name in self._state.feeds.names():
            at = self._observed.feed(name)  # before `feeds`, which it may replace
            self._observed.feeds["due"][at] = self._state.sweep_at.get(name, BEGINNING)

    def _set_texts(self, source: str) -> None:
        if source == self._source:
            return
        texts = [*_KNOWN, source, *self._shape.windows, SESSION]
        packed = [text.encode() for text in texts]
        self._texts = np.frombuffer(b"".join(packed), np.uint8).copy()
        self._text_ends = np.cumsum([len(text) for text in packed])
        self._source = source
        longest = max(range(len(self._shape.spans)), key=self._shape.spans.__getitem__, default=0)
        # of seven longs, five lengths, four decimals, three unions and three texts
        most = HEADER + 12 * 10 + 4 * 18 + 3 + 3 * max(map(len, packed))
        self._plan[0] = (
            longest,
            self._shape.emit_ms or 0,
            self._state.partition,
            SESSIONS_KEPT if self._shape.has_session else 0,
            most,
        )

    def _new_outputs(self, trades: int) -> None:
        rows = (
            min((len(self._shape.spans) + 1) * trades, _ROWS_AT_ONCE) + len(self._shape.windows) + 1
        )
        most = (len(self._shape.windows) + 2) * (
            int(self._plan[0]["most_row"]) + self.slots.longest_name
        )
        self._values = np.empty(rows * _BYTES_A_ROW + 2 * most, np.uint8)
        self._ends = np.empty(rows, np.int64)
        self._topic = np.empty(rows, np.int8)
        self._keys = np.empty(rows, np.int32)
        self.slots.written["rows"] = self.slots.written["bytes"] = 0

    def _flush(self, rows: Rows) -> None:
        count = int(self.slots.written["rows"][0])
        if count == 0:
            return
        size = int(self.slots.written["bytes"][0])
        rows.append(
            EncodedRows(
                self._topics,
                self._topic[:count],
                self._tables.symbols,
                self._tables.keys,
                self._keys[:count],
                self._ends[:count],
                self._values[:size],
            )
        )
        self._values, self._ends = self._values[size:], self._ends[count:]
        self._topic, self._keys = self._topic[count:], self._keys[count:]
        self.slots.written["rows"] = self.slots.written["bytes"] = 0


def _cover_of(cover: tuple[str, int, int, int, int]) -> tuple[int, int, int, int, int]:
    known, *bounds = cover
    return (_KNOWN.index(known), *bounds)  # type: ignore[return-value]
