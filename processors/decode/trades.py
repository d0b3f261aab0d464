"""Reads raw trades for the agents, within the sessions that are known, and counts what is taken and yet odd; no bytes, no Kafka."""

from typing import Any

from processors.decode import trade_of, turnover_mismatch
from processors.records import Trade
from processors.sessions import Calendars


class TradeReader:
    """From a decoded raw trade to a Trade. What is read again, after a rebalance for instance, is counted again."""

    def __init__(self, calendars: Calendars) -> None:
        self.outside_sessions = 0
        """Trades outside of their market's sessions: in no session VWAP and no bar of a day."""
        self.turnover_mismatches = 0
        """Trades whose turnover by the vendor is not price x volume; the vendor's is in the raw topic alone."""
        self.calendars = calendars

    def __call__(self, offset: int, raw: dict[str, Any]) -> Trade:
        """Return the trade of a raw record; raises Undecodable, and BeyondCalendar where no session is known of its time.

        Both are dead letters: an agent could only end the worker over them, again and again.
        """
        trade = trade_of(offset, raw)
        session = self.calendars.session_of(trade.business, trade.symbol, trade.ts_event)
        if not trade.repeat:
            self.outside_sessions += session is None
            self.turnover_mismatches += turnover_mismatch(raw, trade)
        return trade
