"""A peer of `make bench`: closed bars of one minute by quixstreams, exactly once; run in an
environment of its own.

`quix.py BOOTSTRAP SOURCE BARS GROUP COUNT STATE_FOLDER RAW_SCHEMA` prints one line of JSON.
"""

import io
import json
import os
import sys
import time
from decimal import Decimal
from pathlib import Path

import fastavro
from quixstreams import Application

MINUTE_MS = 60_000


def main() -> None:
    bootstrap, source, bars, group, count, folder, schema_path = sys.argv[1:]
    schema = fastavro.parse_schema(json.loads(Path(schema_path).read_text()))
    expected, seen, half = int(count), 0, None
    began = None
    app = Application(
        broker_address=bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        state_dir=folder,
        auto_create_topics=True,
        loglevel="ERROR",
    )

    def read(value: bytes) -> dict[str, object]:
        nonlocal seen, half, began
        if began is None:
            began = now()
        seen += 1
        if seen == expected // 2:
            half = now()
        elif seen == expected:
            app.stop()
        record = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema)
        return {
            "ts": int(record["ts_event"].timestamp() * 1000),
            "price": record["price"],
            "volume": record["volume"],
        }

    def first(trade: dict[str, str]) -> dict[str, object]:
        turnover = Decimal(trade["price"]) * Decimal(trade["volume"])
        price = trade["price"]
        return {
            "open": price, "high": price, "low": price, "close": price,
            "volume": trade["volume"], "turnover": str(turnover), "count": 1,
        }  # fmt: skip

    def fold(bar: dict[str, object], trade: dict[str, str]) -> dict[str, object]:
        price, volume = Decimal(trade["price"]), Decimal(trade["volume"])
        bar["high"] = max(bar["high"], trade["price"], key=Decimal)
        bar["low"] = min(bar["low"], trade["price"], key=Decimal)
        bar["close"] = trade["price"]
        bar["volume"] = str(Decimal(bar["volume"]) + volume)
        bar["turnover"] = str(Decimal(bar["turnover"]) + price * volume)
        bar["count"] += 1
        return bar

    raw = app.topic(
        source,
        key_deserializer="str",
        value_deserializer="bytes",
    )
    out = app.topic(bars, key_serializer="str", value_serializer="json")
    frame = app.dataframe(raw).apply(read)
    frame = frame.set_timestamp(lambda trade, key, timestamp, headers: trade["ts"])
    frame = frame.tumbling_window(MINUTE_MS).reduce(reducer=fold, initializer=first).final()
    frame.to_topic(out)
    app.run()
    end = now()
    print(
        json.dumps(
            {
                "records": seen,
                "wall": end[0] - began[0],
                "cpu": end[1] - began[1],
                "warm_wall": end[0] - half[0],
                "warm_cpu": end[1] - half[1],
            }
        )
    )


def now() -> tuple[float, float]:
    times = os.times()
    return time.monotonic(), times.user + times.system


main()
