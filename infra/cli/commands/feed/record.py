"""`infoway-streams record`: connects as `produce` does, and writes what comes into files; no Kafka."""

import math
import random
import time
from collections.abc import Sequence
from pathlib import Path

from infra.feeding import api_key, endpoint_of
from infra.planning import feeds_to_run
from infra.signals import stop_on_signals
from infra.symbols_file import read_symbols, watch
from producers.counters import FeedCounters
from producers.publish import Unpublished
from producers.recorder import RecordedFeed, Recorder
from producers.running import RunningFeeds
from producers.settings import FeedSettings
from producers.symbols import Feed
from schemas.topics import Topology


def record(
    symbols: str | None,
    out: Path,
    url: str | None,
    rest_url: str | None,
    rotate_mib: float,
    seconds: float | None,
    symbols_file: Path | None = None,
) -> int:
    """Record the vendor's feed into files in `out` until Ctrl-C, SIGTERM or `seconds` have passed; with `url` a simulator's."""
    key = api_key()
    endpoint = endpoint_of(key, url)
    source = "simulated" if url else "live"

    def planned(chosen: str | None, running: Sequence[Feed] = ()) -> list[Feed]:
        return feeds_to_run(chosen, url is None, key, url, rest_url, running)

    feeds = planned(read_symbols(symbols_file) if symbols_file else symbols)
    partitions = {topic.name: topic.partitions for topic in Topology().topics()}
    stop, chance = stop_on_signals(), random.Random()
    with Recorder(out, rotate_mib) as recorder:

        def make(feed: Feed, counters: FeedCounters) -> RecordedFeed:
            return RecordedFeed(recorder, feed, FeedSettings(source), partitions, counters, chance)

        print(
            f"recording {source} data of {', '.join(feed.name for feed in feeds)} into {out}",
            flush=True,
        )
        ends_at = time.monotonic() + seconds if seconds is not None else math.inf
        with RunningFeeds(feeds, make, endpoint, Unpublished(), stop, chance) as running:
            take_up = watch(
                symbols_file, lambda chosen: planned(chosen, running.feeds), running.change
            )
            while (
                not stop.wait(min(0.5, max(0.0, ends_at - time.monotonic())))
                and time.monotonic() < ends_at
            ):
                take_up()
        running.check()
    print(f"{recorder.frames} frames in {', '.join(map(str, recorder.files))}")
    return 0
