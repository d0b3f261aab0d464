"""A partition's log for tests of bars: written record by record, each row checked against its
schema."""

from functools import cache
from typing import NamedTuple

import pytest
from unit.encoded_rows import plain

from processors.agents.activity.agent import ActivityBars
from processors.agents.bars.agent import Bars
from processors.model.event_time import EventTime
from processors.model.records import ControlRecord, Trade
from schemas.control import Control
from schemas.decimals import UNIT
from schemas.topics import load_schema
from schemas.wire import compile_encoder

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
T = 19_676 * DAY
SCHEMAS = {"infoway.progress": "progress", "infoway.late": "late_trade"}


@cache
def written_by(schema):
    """The names of a schema's fields, and what encodes them."""
    found = load_schema(schema)
    return [field["name"] for field in found["fields"]], compile_encoder(found, 1)


class Session(NamedTuple):
    trade_date: int
    start: int
    end: int


class Market:
    """A market whose sessions run from 09:30 to 16:00 UTC."""

    def session_of(self, business, symbol, ts_ms):
        day = ts_ms // DAY
        session = Session(day, day * DAY + 570 * MINUTE, day * DAY + 960 * MINUTE)
        return session if session.start <= ts_ms < session.end else None


class Path:
    """Whether the bars of a Run are the kernels'."""

    native = False


@pytest.fixture(scope="module", params=["general", "native"], autouse=True)
def path(request):
    """Run the tests of a module that imports this over both paths."""
    Path.native = request.param == "native"
    yield
    Path.native = False


class Run:
    """A partition's log as it is written, and the rows that it gave so far."""

    def __init__(
        self,
        names=("1m",),
        update_ms=None,
        computation=Bars,
        schema="bar",
        native=None,
        **event_time,
    ):
        has_paths = computation in (Bars, ActivityBars)
        more = {"native": Path.native if native is None else native} if has_paths else {}
        self.bars = computation(names, Market(), EventTime(**event_time), update_ms, **more)
        self.schema = schema
        self.state = self.bars.load(3, {})
        self.entries = {}
        self.offset = 0
        self.rows = []

    def kept(self, symbol="A"):
        """The level and start of each bar of a symbol that the state has, TimeBars first."""
        known, native = self.state.symbols.get(symbol), self.state.native
        found = [(bar.level, bar.start) for bar in known.bars.values()] if known else []
        if native is not None:
            arrays = native._native
            slot = arrays.observed.slots.get(symbol, -1)
            rows = arrays.bars[(arrays.bars["slot"] == slot) & (arrays.bars["level"] >= 0)]
            found += rows[["level", "start"]].tolist()
        return found

    def restart(self):
        """Go on from what the state topic has."""
        self.write()
        self.state = self.bars.load(3, self.entries)
        return self

    def write(self):
        changes = list(self.bars.dirty(self.state))
        assert len({key for key, _ in changes}) == len(changes)
        for key, value in changes:
            self.entries.pop(key, None)
            if value is not None:
                self.entries[key] = value
        return changes

    def feed(self, record):
        self.offset += 1
        found = []
        for topic, key, fields in plain(self.bars.apply(self.state, [record])):
            names, encode = written_by(SCHEMAS.get(topic, self.schema))
            encode(*fields)
            row = dict(zip(names, fields, strict=True))
            assert key == row.get("symbol", row.get("feed"))
            found.append((topic.removeprefix("infoway."), row))
        self.rows += found
        return found

    def trade(
        self,
        ts,
        price=10,
        volume=1,
        direction=0,
        symbol="A",
        feed="f",
        connection="c1",
        repeat=False,
        recv=None,
    ):
        recv_us = (T + self.offset if recv is None else recv) * 1000
        units = (price * UNIT, volume * UNIT)
        return self.feed(
            Trade(
                self.offset,
                symbol,
                T + ts,
                *units,
                direction,
                None,
                repeat,
                "stock",
                feed,
                connection,
                recv_us,
                "live",
            )
        )

    def control(self, kind, ts, symbol="A", feed="f", connection="c1", ts_from=None):
        since = None if ts_from is None else T + ts_from
        return self.feed(
            ControlRecord(
                self.offset,
                symbol,
                Control(kind, feed, "stock", connection, "live", T + ts, (T + ts) * 1000, since),
            )
        )

    def mark(self, ts, feed="f"):
        return self.control("mark", ts, symbol=None, feed=feed)


def bars_of(rows, interval=None):
    return [
        row
        for topic, row in rows
        if topic.startswith("bars.") and interval in (None, row["interval"])
    ]


def shown(rows):
    """Return (interval, start in minutes, revision, cause, trades) of each bar."""
    return [
        (
            row["interval"],
            (row["ts_start"] - T) // MINUTE,
            row["revision"],
            row["cause"],
            row["trade_count"],
        )
        for row in bars_of(rows)
    ]
