"""`infoway-streams record`: connects as `produce` does, and writes what comes into files; no
Kafka."""

import argparse
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

from infra.cli.checks import feed_mistakes, folder
from infra.cli.command import Command
from infra.cli.options import add_rest_url, add_seconds, add_symbols, add_url, whole
from infra.ingest.choice import FeedChoice
from infra.ingest.producer_process import api_key, endpoint_of
from infra.runtime.signals import stop_on_signals
from producers.delivery.sink import Unpublished
from producers.feed.metrics import FeedCounters
from producers.feed.settings import FeedSettings
from producers.recording.writer import ROTATE_MIB, RecordedFeed, Recorder
from producers.transport.feed_group import RunningFeeds
from producers.vendor.symbols import Feed
from schemas.topics import Topology

MOST_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """What `record` was given."""

    out: Path
    symbols: str | None = None
    symbols_file: Path | None = None
    url: str | None = None
    rest_url: str | None = None
    rotate_mib: int = ROTATE_MIB
    seconds: float | None = None


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_symbols(command)
    command.add_argument(
        "--out", type=Path, required=True, help="folder for infoway-<UTC time>.jsonl.gz"
    )
    add_url(command)
    command.add_argument(
        "--rotate-mib",
        type=whole(1, MOST_MIB),
        default=ROTATE_MIB,
        help=f"size of a file before compression (default: {ROTATE_MIB})",
    )
    add_seconds(command)
    add_rest_url(command)


def record(options: RecordOptions) -> int:
    """Record the vendor's feed into files until Ctrl-C, SIGTERM or `seconds` have passed; with
    `url` a simulator's."""
    key, url = api_key(), options.url
    endpoint = endpoint_of(key, url)
    source = "simulated" if url else "live"
    choice = FeedChoice(
        options.symbols, options.symbols_file, url, options.rest_url, key, live=url is None
    )
    feeds = choice.feeds()
    partitions = {topic.name: topic.partitions for topic in Topology().topics()}
    stop, chance = stop_on_signals(), random.Random()
    with Recorder(options.out, options.rotate_mib) as recorder:

        def make(feed: Feed, counters: FeedCounters) -> RecordedFeed:
            return RecordedFeed(recorder, feed, FeedSettings(source), partitions, counters, chance)

        names = ", ".join(feed.name for feed in feeds)
        print(f"recording {source} data of {names} into {options.out}", flush=True)
        ends_at = time.monotonic() + (math.inf if options.seconds is None else options.seconds)
        with RunningFeeds(feeds, make, endpoint, Unpublished(), stop, chance) as running:
            take_up = choice.watch(lambda: running.feeds, running.change)
            while (
                not stop.wait(min(0.5, max(0.0, ends_at - time.monotonic())))
                and time.monotonic() < ends_at
            ):
                take_up()
        running.check()
    print(f"{recorder.frames} frames in {', '.join(map(str, recorder.files))}")
    return 0


COMMAND = Command(
    "record",
    "connect to the vendor and write what comes into files, for replay",
    "record --symbols BTCUSDT --out recordings --seconds 60",
    add_options,
    RecordOptions,
    record,
    (feed_mistakes, folder("out")),
)
