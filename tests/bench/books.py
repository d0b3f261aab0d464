"""Books of ten levels a side through the worker, held against the sum of their sizes."""

import io
import random
from fractions import Fraction
from pathlib import Path

import fastavro
from load import START_MS, committed
from others import Result
from ours import measured

from infra.runtime.deployment import Deployment
from schemas.topics import RAW_DEPTH, load_schema
from schemas.wire import compile_encoder

LEVELS = 10
_IMBALANCE = fastavro.parse_schema(load_schema("depth_imbalance"))


def books(count: int, symbols: int) -> tuple[list[tuple[str, bytes]], Fraction]:
    """Return raw books, one each 5 ms of event time, and the sum of all their sizes."""
    drawn, encode = random.Random(7), compile_encoder(load_schema("raw_depth"), 1)
    values: list[tuple[str, bytes]] = []
    total = 0
    for number in range(count):
        place = drawn.randrange(symbols)
        middle = 10_000 + 1000 * (place % 1000) + drawn.randrange(-50, 50)
        asks, bids = (
            [f"{(middle + way * level) / 100:.2f}" for level in range(1, LEVELS + 1)]
            for way in (1, -1)
        )
        sizes = [[drawn.randrange(1, 99_999) for _ in range(LEVELS)] for _ in range(2)]
        total += sum(map(sum, sizes))
        ask_sizes, bid_sizes = ([f"{size / 1000:.3f}" for size in side] for side in sizes)
        symbol, time_ms = f"C{place:04d}USDT", START_MS + number * 5
        envelope = (
            "crypto", "crypto-1", "crypto-1-1", number + 1, (time_ms + 40) * 1000, "simulated", None
        )  # fmt: skip
        values.append(
            (symbol, encode(symbol, time_ms, asks, ask_sizes, bids, bid_sizes, *envelope))
        )
    return values, Fraction(total, 1000)


def measured_books(folder: Path, deployment: Deployment, count: int, symbols: int) -> Result:
    """Return what our worker takes for the imbalance of each book."""
    values, total = books(count, symbols)
    result, names = measured(folder, deployment, RAW_DEPTH, values)
    rows = [
        fastavro.schemaless_reader(io.BytesIO(value[5:]), _IMBALANCE)
        for _, value in committed(deployment.bootstrap, names.name("infoway.depth.imbalance"))
    ]
    found = sum(Fraction(row["bid_volume_10"]) + Fraction(row["ask_volume_10"]) for row in rows)
    assert (len(rows), found) == (count, total), f"{len(rows)} rows of {count}, {found} of {total}"
    return result
