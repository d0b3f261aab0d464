"""The examples beside the schemas are what the programs write: derived ones follow from the raw
ones, the dead letter from its frame."""

import orjson
import pytest
from unit.raw_records import raw_depth, raw_trade

from processors.agents.activity.agent import ActivityBars
from processors.agents.bars.agent import Bars
from processors.agents.depth.agent import Imbalance
from processors.agents.vwap.agent import Vwap
from processors.decode.raw_records import book_of, trade_of
from processors.model.event_time import EventTime
from processors.model.records import ControlRecord
from processors.model.sessions import Calendars
from producers.vendor.codes import Channel
from producers.vendor.exact_json import UnreadableFrame
from producers.vendor.pushes import read_push
from schemas.control import Control
from schemas.topics import load_example, load_schema
from schemas.wire import to_json

PARTITION, OFFSET = 3, 81234
FEED = ("stock-1", "stock", "stock-1-1752825600000000", "live")
CALENDARS = Calendars()


def log():
    """The raw trade of the example, the one before it, one that comes too late, and a mark after
    which the minute is over."""
    # numbers of raw records are text, times integers: an example is its own physical form
    trade = load_example("raw_trade")
    before = {
        "ts_event": 1752826100120,
        "ts_recv": 1752826100300000,
        "price": "98.100",
        "volume": "400",
        "sequence": 4710,
    }
    late = {"ts_event": 1752825400000, "price": "98.050", "volume": "400", "sequence": 4712}
    return [
        ControlRecord(81000, "00005.HK", Control("begin", *FEED, 1752825600412, 1752825600412000)),
        trade_of(OFFSET - 1, raw_trade({**trade, **before})),
        trade_of(OFFSET, raw_trade(trade)),
        trade_of(OFFSET + 1, raw_trade({**trade, **late})),
        ControlRecord(OFFSET + 5, None, Control("mark", *FEED, 1752826142500, 1752826142500000)),
    ]


def written(computation, records):
    """The records that an agent writes, as examples show them, by topic; of several the last."""
    schemas = {"bars.1m": "bar", "bars.volume-500000": "activity_bar", "vwap.1m": "vwap"}
    schemas |= {"late": "late_trade", "progress": "progress", "depth.imbalance": "depth_imbalance"}
    found = {}
    for topic, _, fields in computation.apply(computation.load(PARTITION, {}), records):
        schema = load_schema(name := schemas[topic.removeprefix("infoway.")])
        found[name] = to_json(
            schema,
            {field["name"]: value for field, value in zip(schema["fields"], fields, strict=True)},
        )
    return found


@pytest.mark.parametrize("name", ["bar", "late_trade", "progress"])
def test_bars_late_trades_and_progress_follow_from_the_raw_trade(name):
    assert written(Bars(["1m"], CALENDARS, EventTime()), log())[name] == load_example(name)


def test_a_vwap_follows_from_the_raw_trade():
    assert written(Vwap(["1m"], CALENDARS, EventTime()), log()) == {"vwap": load_example("vwap")}


def test_an_activity_bar_follows_from_the_raw_trade():
    # the forty before it that day are not played
    found = written(ActivityBars(["volume-500000"], CALENDARS, EventTime()), log())
    assert found == {"activity_bar": {**load_example("activity_bar"), "bar_index": 0}}


def test_an_imbalance_follows_from_the_raw_book():
    book = book_of(OFFSET, raw_depth(load_example("raw_depth")))
    assert written(Imbalance(EventTime()), [book]) == {
        "depth_imbalance": load_example("depth_imbalance")
    }


def test_a_dead_letter_says_what_is_wrong_with_its_frame():
    letter = load_example("dead_letter")
    with pytest.raises(UnreadableFrame) as raised:
        read_push(
            Channel.TRADE,
            orjson.loads(bytes.fromhex(letter["value"])),
            letter["ts_recv"],
            exact=False,
        )
    assert (letter["error_class"], letter["error_text"]) == (
        type(raised.value).__name__,
        str(raised.value),
    )


def test_a_reconciliation_compares_its_figures():
    record = load_example("reconciliation")
    assert record["bar_revision"] == load_example("bar")["revision"]
    assert {
        name: record[name] for name in ("open", "high", "low", "close", "volume", "turnover")
    } == {
        name: load_example("bar")[name]
        for name in ("open", "high", "low", "close", "volume", "turnover")
    }
