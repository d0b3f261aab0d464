"""`infoway-streams record`: connects as `produce` does, and writes what comes into files; no Kafka."""

import random
import threading
from pathlib import Path

from infra.feeding import api_key, endpoint_of
from infra.planning import feeds_to_run
from infra.signals import stop_on_signals
from producers.counters import FeedCounters
from producers.protocol import FeedSettings
from producers.publish import Unpublished
from producers.recorder import RecordedFeed, Recorder
from producers.websocket import run_feeds
from schemas.topics import Topology


def record(symbols: str | None, out: Path, url: str | None, rest_url: str | None, rotate_mib: float, seconds: float | None) -> int:
    """Record the vendor's feed into files in `out` until Ctrl-C, SIGTERM or `seconds` have passed; with `url` a simulator's."""
    key = api_key()
    endpoint = endpoint_of(key, url)
    source = "simulated" if url else "live"
    feeds = feeds_to_run(symbols, url is None, key, url, rest_url)
    partitions = {topic.name: topic.partitions for topic in Topology().topics()}
    stop, chance = stop_on_signals(), random.Random()
    with Recorder(out, rotate_mib) as recorder:
        protocols = [RecordedFeed(recorder, feed, FeedSettings(source), partitions, FeedCounters(feed.name), chance) for feed in feeds]
        print(f"recording {source} data of {', '.join(feed.name for feed in feeds)} into {out}", flush=True)
        if seconds is not None:
            timer = threading.Timer(seconds, stop.set)
            timer.daemon = True
            timer.start()
        run_feeds(protocols, endpoint, Unpublished(), stop, chance)
    print(f"{recorder.frames} frames in {', '.join(map(str, recorder.files))}")
    return 0
