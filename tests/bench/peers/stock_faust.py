"""A peer of `make bench`: bars of one minute by stock Faust and its Tables, at least once; run in
an environment of its own.

`stock_faust.py BOOTSTRAP SOURCE BARS GROUP COUNT STATE_FOLDER RAW_SCHEMA` prints one line of JSON.
"""

import io
import json
import os
import sys
import time
from decimal import Decimal
from pathlib import Path

import fastavro
import faust

MINUTE_MS = 60_000
BOOTSTRAP, SOURCE, BARS, GROUP, COUNT, FOLDER, SCHEMA = sys.argv[1:]

schema = fastavro.parse_schema(json.loads(Path(SCHEMA).read_text()))
app = faust.App(
    GROUP,
    broker=f"kafka://{BOOTSTRAP}",
    datadir=FOLDER,
    store="memory://",
    topic_disable_leader=True,
    web_enabled=False,
    consumer_auto_offset_reset="earliest",
)
source = app.topic(SOURCE, key_type=str, value_type=bytes, value_serializer="raw")
bars = app.topic(BARS, key_type=str, value_serializer="json")
table = app.Table("bars", partitions=6)


def now() -> tuple[float, float]:
    times = os.times()
    return time.monotonic(), times.user + times.system


@app.agent(source)
async def fold(stream):
    seen, began, half = 0, None, None
    async for symbol, value in stream.items():
        if began is None:
            began = now()
        trade = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema)
        start = int(trade["ts_event"].timestamp() * 1000) // MINUTE_MS * MINUTE_MS
        price, volume = Decimal(trade["price"]), Decimal(trade["volume"])
        bar = table.get(symbol)
        if bar is not None and bar["start"] != start:
            await bars.send(key=symbol, value=bar)
            bar = None
        if bar is None:
            bar = {"start": start, "open": str(price), "high": str(price), "low": str(price)}
            bar |= {"volume": "0", "turnover": "0", "count": 0}
        bar["high"] = str(max(Decimal(bar["high"]), price))
        bar["low"] = str(min(Decimal(bar["low"]), price))
        bar["close"] = str(price)
        bar["volume"] = str(Decimal(bar["volume"]) + volume)
        bar["turnover"] = str(Decimal(bar["turnover"]) + price * volume)
        bar["count"] += 1
        table[symbol] = bar
        seen += 1
        if seen == int(COUNT) // 2:
            half = now()
        elif seen == int(COUNT):
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
                ),
                flush=True,
            )
            app.loop.call_later(3, os._exit, 0)  # the last commit's time


app.finalize()
worker = faust.Worker(app, loglevel="ERROR")
worker.execute_from_commandline()
