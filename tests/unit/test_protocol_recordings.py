"""Recordings driven through the protocol in a socket's place: every frame becomes its record,
unchanged and in order."""

import gzip
import json
import random
from pathlib import Path

import pytest

from producers.feed.metrics import FeedCounters
from producers.feed.outputs import Publication
from producers.feed.protocol import FeedProtocol
from producers.feed.settings import FeedSettings
from producers.vendor.symbols import plan_feeds

RECORDINGS = Path(__file__).parents[3] / "shared" / "recordings"
TOPICS = {"infoway.raw.trade": 6, "infoway.raw.depth": 6, "infoway.raw.kline": 6}


@pytest.mark.parametrize(
    "name",
    ["glbx_esh4_20231225T2300", "sh600519_20230201_fullday", "binance_btcusdt_perp_20240808"],
)
def test_recording_becomes_records_with_the_vendors_strings_and_no_dead_letter(name):
    path = RECORDINGS / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"the recording {path.name} is not beside the checkout (shared/recordings)")
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()][:8000]
    lines.sort(key=lambda line: line["recv_ms"])
    (feed,) = plan_feeds({line["frame"]["data"]["s"] for line in lines})
    core = FeedProtocol(
        feed, FeedSettings("replay"), TOPICS, FeedCounters(feed.name), random.Random(1)
    )
    core.connected(lines[0]["recv_ms"] * 1000)
    for sequence, line in enumerate(lines, 1):
        data = line["frame"]["data"]
        outputs = core.receive(json.dumps(line["frame"]).encode(), line["recv_ms"] * 1000)
        (record,) = (output for output in outputs if isinstance(output, Publication))
        if line["frame"]["code"] == 10002:
            assert record.record[:7] == (
                data["s"],
                data["t"],
                data["p"],
                data["v"],
                data["vw"],
                data["td"],
                None,
            )
        else:
            assert record.record[:6] == (data["s"], data["t"], *data["a"], *data["b"])
        assert record.record[-4:-1] == (sequence, line["recv_ms"] * 1000, "replay")
    assert core.counters.received == core.counters.trades + core.counters.depth == len(lines)
