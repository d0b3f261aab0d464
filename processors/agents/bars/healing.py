"""Where the feed was not healthy, the vendor's kline takes a bar's place; the coarser bars are
corrected by what that changes."""

from processors.agents.bars.figures import TimeBar
from processors.agents.bars.finding import BarFinder
from processors.agents.bars.forgotten import ForgottenBars
from processors.agents.bars.state import NO_BAR, BarsState, SymbolBars
from processors.model.intervals import DAY, Ladder
from processors.model.records import Heal, Rows
from schemas.decimals import UNIT

HEALABLE_MS = 2 * DAY
"""How long after its end a bar that is not complete can still be healed, in event time."""


class Healing:
    """Takes heals for the bars of an agent."""

    def __init__(
        self,
        ladder: Ladder,
        folds: bool,
        finder: BarFinder,
        forgotten: ForgottenBars,
        revision_horizon_ms: int,
    ) -> None:
        """`ladder` says which bars are coarser, also where each takes every trade (not `folds`);
        heals of forgotten bars are counted in `forgotten`."""
        self._intervals, self._above = ladder.intervals, ladder.coarser
        self._levels = {interval.name: level for level, interval in enumerate(self._intervals)}
        self._folds = folds
        self._finder = finder
        self._forgotten = forgotten
        self._horizon_ms = revision_horizon_ms

    def heal(self, state: BarsState, rows: Rows, heal: Heal) -> None:
        """Take a heal: revise its bar, and the coarser ones by what that changes."""
        level, feeds = self._levels.get(heal.interval), state.feeds
        if level is None or not feeds.knows(heal.symbol):
            return
        oldest = feeds.watermark_of(heal.symbol) - self._horizon_ms - HEALABLE_MS
        traded = heal.volume or heal.turnover or min(heal.prices) != max(heal.prices)
        # the trades are the better truth where all were seen; older than that is not remembered
        if (
            not traded
            or heal.ts_end <= oldest
            or feeds.completeness(heal.symbol, heal.ts_start, heal.ts_end) == "complete"
        ):
            return
        symbol_bars = state.of(heal.symbol)
        bar = self._finder.bar_at(state, symbol_bars, heal.symbol, level, heal.ts_start)
        if bar is None:
            # what the kline adds to the coarser bars is not known either
            self._forgotten.heal(heal.symbol, heal.interval, heal.ts_start, heal.offset)
            return
        figures = (*heal.prices, heal.volume, heal.turnover * UNIT)
        if bar.provenance == "klines" and figures == (
            bar.open,
            bar.high,
            bar.low,
            bar.close,
            bar.volume,
            bar.turnover,
        ):
            return
        grown = bar.replace(heal)
        self._show_healed(state, rows, symbol_bars, bar)
        if bar.folded or not self._folds:
            self._correct(state, rows, symbol_bars, bar, bar.level, *grown)

    def _correct(
        self,
        state: BarsState,
        rows: Rows,
        symbol_bars: SymbolBars,
        healed: TimeBar,
        level: int,
        volume: int,
        turnover: int,
    ) -> None:
        for coarser in self._above[level]:
            bounds = self._finder.bounds(state, symbol_bars, healed.symbol, coarser, healed.start)
            if bounds is None:
                continue
            bar = self._finder.bar_within(
                state, symbol_bars, healed.symbol, coarser, bounds, healed.start
            )
            if bar is None:
                interval = self._intervals[coarser].name
                self._forgotten.heal(healed.symbol, interval, bounds[0], rows.offset)
            elif bar.provenance == "klines":
                continue
            else:
                bar.correct(healed, volume, turnover)
                self._show_healed(state, rows, symbol_bars, bar)
            # one that is forgotten was folded into the coarser bars when it closed
            if bar is None or bar.folded or not self._folds:
                self._correct(state, rows, symbol_bars, healed, coarser, volume, turnover)

    def _show_healed(
        self, state: BarsState, rows: Rows, symbol_bars: SymbolBars, bar: TimeBar
    ) -> None:
        if symbol_bars.current.get(bar.level) is bar:
            symbol_bars.current[bar.level] = NO_BAR
        if bar.closed:
            state.publish(rows, bar, "healed")
        else:
            state.touch(bar)

    def is_in_kline(self, symbol_bars: SymbolBars, bar: TimeBar, event: int) -> bool:
        """Return whether a kline stands in this bar for the time of a trade: it has the trade
        already."""
        if bar.provenance != "mixed":
            return bar.provenance == "klines"
        finer = (level for level, coarser in enumerate(self._above) if bar.level in coarser)
        pieces = (
            symbol_bars.bars.get((level, event - event % self._intervals[level].length_ms))
            for level in finer
        )
        return any(
            piece is not None and self.is_in_kline(symbol_bars, piece, event) for piece in pieces
        )
