"""Reads raw trades for the agents, and counts what is taken and yet odd; no bytes, no Kafka."""

import logging
from collections import Counter
from datetime import date, timedelta

from processors.decode.raw_records import trade_of, turnover_mismatch
from processors.model.records import Trade
from processors.model.sessions import Calendars, market_of
from processors.model.trading_days import Session
from schemas.records import RawTradeRecord

_MOST_REMEMBERED = 20_000
"""Assumed sessions whose first trade is remembered: beyond them each is counted and logged once
more."""

_log = logging.getLogger(__name__)


class TradeReader:
    """From a decoded raw trade to a Trade. What is read again, after a rebalance for instance, is
    counted again."""

    def __init__(self, calendars: Calendars, uses_sessions: bool = True) -> None:
        """Without `uses_sessions` nothing that is computed depends on sessions, and no calendar is
        asked."""
        self.outside_sessions = 0
        """Trades outside of their market's sessions: in no session VWAP and no bar of a day."""
        self.turnover_mismatches = 0
        """Trades whose turnover by the vendor is not price x volume; the vendor's is in the raw
        topic alone."""
        self.sessions_assumed: Counter[str] = Counter()
        """By market the sessions of trades on dates that no calendar knows: regular hours, each
        counted once."""
        self.calendars = calendars
        self.uses_sessions = uses_sessions
        self._assumed: set[tuple[str, int]] = set()

    def __call__(self, offset: int, raw: RawTradeRecord) -> Trade:
        """Return the trade of a raw record; raises Undecodable, which is a dead letter."""
        trade = trade_of(offset, raw)
        if not trade.repeat:
            if self.uses_sessions:
                self.count_session(trade.business, trade.symbol, trade.ts_event)
            self.count_turnover(raw, trade)
        return trade

    def count_session(self, business: str, symbol: str, ts_event: int) -> Session | None:
        """Count a trade by its session, and return that."""
        session = self.calendars.session_of(business, symbol, ts_event)
        if session is None:
            self.outside_sessions += 1
        elif session.assumed:
            self._count_assumed(market_of(business, symbol), session.trade_date)
        return session

    def count_turnover(self, raw: RawTradeRecord, trade: Trade) -> None:
        """Count a trade if the vendor's turnover is another than its own."""
        self.turnover_mismatches += turnover_mismatch(raw, trade)

    def _count_assumed(self, market: str | None, trade_date: int) -> None:
        if market is None or (market, trade_date) in self._assumed:
            return
        if len(self._assumed) >= _MOST_REMEMBERED:
            self._assumed.clear()
        self._assumed.add((market, trade_date))
        self.sessions_assumed[market] += 1
        _log.warning(
            "%s: no calendar knows the session of %s (they end on %s): regular hours are assumed; "
            "update exchange_calendars, or name the sessions in a file by INFOWAY_SESSIONS",
            market,
            date(1970, 1, 1) + timedelta(days=trade_date),
            self.calendars.known_until(market),
        )
