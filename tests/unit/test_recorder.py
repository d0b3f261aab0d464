"""The recorder's files: what is written is read again byte for byte, torn files give what is whole,
and no key is in them."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import drill
import pytest

from infra.simulator import running_simulator
from infra.simulator.playback import addressed
from producers.delivery.sink import Unpublished
from producers.feed.metrics import FeedCounters
from producers.feed.outputs import ControlPublication
from producers.feed.settings import FeedSettings
from producers.feed.states import State
from producers.recording.player import Player
from producers.recording.reader import BrokenLine, RecordedEvent, RecordedFrame, read_recordings
from producers.recording.writer import FLUSH_PERIOD, RecordedFeed, Recorder, RecordingFailed
from producers.transport.endpoint import Endpoint
from producers.transport.feed_group import RunningFeeds
from producers.vendor.symbols import Feed

TOPICS = {"infoway.raw.trade": 6, "infoway.raw.depth": 6, "infoway.raw.kline": 6}
CRYPTO = Feed("crypto-1", "crypto", ("BTCUSDT", "ETHUSDT"))
STOCK = Feed("stock-1", "stock", ("00700.HK",))
NOON = 1_752_840_000_000_000  # 2025-07-18 12:00 UTC
SECOND = 1_000_000

ODD = [
    b'{"code":10002, "data":{"s":"A","p":98.150,"v":1E+2,"t":123456789012345678901234567890,'
    b'"n":-0}}',
    b' {"leading":"space"} ',
    b'{"carriage":1}\r',
    '{"text":"\\u80a1 股 \U0001f600","feed":"x","frame":{"recv_us":1}}'.encode(),
    b'{"a":1},"frame":{"b":2}',
    b'{"twice":1,"twice":2}',
    b'{"two":"lines",\n"of":"one"}',
    b"{}",
    b"[1,2]",
    b"null",
    b"",
    b"\n",
    b"You have permission to subscribe to all market data",
    b'Subscribe fail: {"code":516,"msg":"quota"}',
    b"\xff\xfe\x00 no text",
    b'{"broken":"utf-8 \xff"}',
    b"\xed\xa0\x80",
    b'{"nul":"\x00"}',
    b'{"deep":' + b"[" * 2000 + b"]" * 2000 + b"}",
]


def recorded(folder):
    return read_recordings(sorted(folder.glob("*.jsonl.gz")))


def trade(number):
    data = {
        "s": "BTCUSDT",
        "t": NOON // 1000 + number,
        "p": f"{100 + number % 7}.10",
        "v": "1",
        "vw": "1",
        "td": 1,
    }
    return json.dumps({"code": 10002, "data": data}).encode()


def test_frames_keep_their_bytes_whatever_they_are(tmp_path):
    with Recorder(tmp_path) as recorder:
        for number, frame in enumerate(ODD):
            recorder.frame(CRYPTO, frame, NOON + number)
    recording = recorded(tmp_path)
    assert recording.broken == []
    assert [frame.frame for frame in recording.frames] == ODD
    assert recording.frames[3] == RecordedFrame(NOON + 3, ODD[3], "crypto-1")


def test_events_keep_their_times_symbols_and_reasons(tmp_path):
    with Recorder(tmp_path) as recorder:
        recorder.event(CRYPTO, "connected", NOON)
        recorder.event(CRYPTO, "subscribed", NOON + 1)
        recorder.pong(CRYPTO, NOON + 2)
        recorder.event(CRYPTO, "disconnected", NOON + 3, 'closed by the server 1006 "\n股\ud800"')
        recorder.event(CRYPTO, "ended", NOON + 4)
    described = ("crypto", CRYPTO.symbols)
    assert recorded(tmp_path).entries == [
        RecordedEvent(NOON, "crypto-1", "connected", *described),
        RecordedEvent(NOON + 1, "crypto-1", "subscribed", *described),
        RecordedEvent(NOON + 2, "crypto-1", "pong"),
        RecordedEvent(
            NOON + 3, "crypto-1", "disconnected", *described, 'closed by the server 1006 "\n股?"'
        ),
        RecordedEvent(NOON + 4, "crypto-1", "ended", *described),
    ]


def test_a_feed_keeps_its_order_though_the_clock_is_set_back(tmp_path):
    with Recorder(tmp_path) as recorder:
        recorder.event(CRYPTO, "connected", NOON)
        recorder.event(STOCK, "connected", NOON - 7)
        recorder.frame(CRYPTO, b"{}", NOON + 10)
        recorder.event(CRYPTO, "disconnected", NOON - 50, "lost")
        recorder.frame(STOCK, b"{}", NOON + 5)
    places = [(entry.feed, entry.recv_us - NOON) for entry in recorded(tmp_path).entries]
    assert places == [
        ("crypto-1", 0),
        ("stock-1", -7),
        ("stock-1", 5),
        ("crypto-1", 10),
        ("crypto-1", -50),
    ]


@pytest.mark.parametrize(
    "line",
    [
        '{"recv_us":1,"frame":{}}',
        '{"recv_us":0,"feed":"a-1","frame":{}}',
        '{"recv_us":1.5,"feed":"a-1","frame":{}}',
        '{"recv_us":1,"feed":"a-1"}',
        '{"recv_us":1,"feed":"a-1","frame":[]}',
        '{"recv_us":1,"feed":"a-1","bytes":"%"}',
        '{"recv_us":1,"feed":"a-1","event":"nonsense"}',
        '{"recv_us":1,"feed":"a-1","event":["ended"]}',
        '{"recv_us":1,"feed":"a-1","event":"connected","symbols":[1]}',
        '{"recv_us":1,"feed":"a-1","event":"connected","since":"x"}',
        '{"recv_us":1,"feed":"a-1","event":"changed","from":["a-2"]}',
        '{"recv_us":1,"feed":"a-1","event":"changed","from":{"A":2}}',
        '{"recv_us":1,"feed":"a-1","frame":{"a":1}',
        '{"recv_ms":1,"feed":"a-1"}',
    ],
)
def test_a_line_that_is_neither_frame_nor_event_is_counted(line, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{line}\n{{"recv_us": 2, "feed": "a-1", "frame": {{}}, "more": 1}}\n')
    recording = read_recordings([path])
    assert [(each.path, each.line) for each in recording.broken] == [(path, 1)]
    assert recording.entries == [RecordedFrame(2, b"{}", "a-1")]


def test_files_rotate_by_size_and_each_names_the_open_connections(tmp_path):
    with Recorder(tmp_path, rotate_mib=0.01) as recorder:
        recorder.event(CRYPTO, "connected", NOON)
        recorder.event(STOCK, "connected", NOON + 1)
        recorder.event(STOCK, "ended", NOON + 2)
        for number in range(300):
            recorder.frame(CRYPTO, trade(number), NOON + 10 + number)
    assert len(recorder.files) > 2
    assert recorder.files == sorted(tmp_path.iterdir())
    assert recorder.files[0].name == "infoway-20250718T120000.000000Z.jsonl.gz"
    assert all(
        len(gzip.decompress(path.read_bytes())) < 0.011 * 1024 * 1024 for path in recorder.files
    )
    assert len(recorded(tmp_path).frames) == recorder.frames == 300
    for path in recorder.files[1:]:
        first, *rest = read_recordings([path]).entries
        assert first == RecordedEvent(
            first.recv_us, "crypto-1", "connected", "crypto", CRYPTO.symbols, since=NOON
        )
        assert all(isinstance(entry, RecordedFrame) for entry in rest)


def test_a_file_after_a_change_names_the_symbols_of_then_and_the_change_is_read_again(tmp_path):
    with Recorder(tmp_path, rotate_mib=0.001) as recorder:
        recorder.change(STOCK, {}, NOON - 1)
        recorder.event(CRYPTO, "connected", NOON)
        recorder.change(Feed("crypto-1", "crypto", ("SOLUSDT",)), {"SOLUSDT": "crypto-2"}, NOON + 1)
        for number in range(20):
            recorder.frame(CRYPTO, trade(number), NOON + 10 + number)
    entries = [read_recordings([path]).entries for path in recorder.files]
    assert entries[0][0] == RecordedEvent(NOON - 1, "stock-1", "changed", "stock", STOCK.symbols)
    assert entries[0][2] == RecordedEvent(
        NOON + 1, "crypto-1", "changed", "crypto", ("SOLUSDT",), taken_from={"SOLUSDT": "crypto-2"}
    )
    assert len(entries) > 1
    for first, *_ in entries[1:]:
        assert first == RecordedEvent(
            first.recv_us, "crypto-1", "connected", "crypto", ("SOLUSDT",), since=NOON
        )


def test_a_new_file_begins_with_the_utc_day_and_never_goes_back(tmp_path):
    midnight = 1_752_883_200_000_000
    with Recorder(tmp_path) as recorder:
        for now in (midnight - 1, midnight, midnight - 5, midnight + SECOND):
            recorder.frame(CRYPTO, b"{}", now)
    assert [path.name[8:24] for path in recorder.files] == ["20250718T235959.", "20250719T000000."]
    assert [len(read_recordings([path]).frames) for path in recorder.files] == [1, 3]


def test_two_recorders_in_one_folder_do_not_meet(tmp_path):
    with Recorder(tmp_path) as one, Recorder(tmp_path) as other:
        one.frame(CRYPTO, b"{}", NOON)
        other.frame(CRYPTO, b"{}", NOON)
    assert one.files != other.files
    assert len(recorded(tmp_path).frames) == 2


def test_a_file_torn_at_any_byte_gives_the_lines_before_and_one_broken_one(tmp_path):
    frames = [trade(number) for number in range(8)] + ODD[:5]
    with Recorder(tmp_path / "whole") as recorder:
        for number, frame in enumerate(frames):
            recorder.frame(CRYPTO, frame, NOON + number)
    whole = recorder.files[0].read_bytes()
    path = tmp_path / "torn.jsonl.gz"
    counts = []
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        recording = read_recordings([path])
        assert [frame.frame for frame in recording.frames] == frames[: len(recording.frames)]
        (broken,) = recording.broken
        assert isinstance(broken, BrokenLine)
        assert broken.reason
        counts.append(len(recording.frames))
    assert counts == sorted(counts)
    assert counts[-1] == len(frames)
    path.write_bytes(b"")
    assert read_recordings([path]).broken == []


WRITER = """
import sys, time
from pathlib import Path
from producers.recording.writer import Recorder
from producers.vendor.symbols import Feed

def say(what, number):
    # in one piece: two threads say something
    sys.stdout.write(f"{what} {number}\\n")
    sys.stdout.flush()

class Telling(Recorder):
    def _flush(self):
        super()._flush()
        say("flushed", self.frames)

recorder, feed = Telling(Path(sys.argv[1])), Feed("crypto-1", "crypto", ())
for number in range(10**9):
    recorder.frame(feed, b'{"number":%d}' % number, time.time_ns() // 1000)
    say("recorded", number + 1)
    time.sleep(0.002)
"""


def test_a_killed_recorder_leaves_all_but_the_last_second(tmp_path):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    said = ""
    while said.count("flushed") < 3:
        said += writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    said += writer.communicate()[0]
    told = [line.split() for line in said.splitlines(keepends=True) if line.endswith("\n")]
    counts = {what: int(number) for what, number in told}
    recording = recorded(tmp_path)
    assert len(recording.broken) == 1
    numbers = [json.loads(frame.frame)["number"] for frame in recording.frames]
    assert numbers == list(range(len(numbers)))
    assert 0 < counts["flushed"] <= len(numbers) <= counts["recorded"] + 1
    # what was recorded since then is of the last second, or of more on a busy machine
    assert FLUSH_PERIOD <= 1.0


def test_a_full_disk_ends_the_feed_and_is_no_lost_connection(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.frame(CRYPTO, b"{}", NOON)
    with Path("/dev/full").open("wb") as full:
        # a descriptor closed under its file would be closed again with the file, by then another's
        os.dup2(full.fileno(), recorder._file.plain.fileno())
    deadline = time.monotonic() + 60
    with pytest.raises(RecordingFailed, match="cannot write the recording") as raised:
        while time.monotonic() < deadline:
            recorder.frame(CRYPTO, b"{}", NOON)
            time.sleep(0.1)
    assert not isinstance(raised.value, OSError)
    with pytest.raises(RecordingFailed):
        recorder.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingFailed, match="name another folder"):
        Recorder(tmp_path / "file")


class Kept(Unpublished):
    """Keeps what is published."""

    def __init__(self):
        self.outputs = {}

    def publish(self, outputs, counters):
        self.outputs.setdefault(counters.feed, []).extend(outputs)


def played(recording):
    kept = Kept()
    player = Player(recording, TOPICS, kept)
    for entry in recording.entries:
        player.play(entry)
    player.end()
    return kept.outputs


class Session:
    """Feeds with a recorder, driven by hand; `outputs` is what they published, by feed."""

    def __init__(self, recorder, *feeds):
        self.recorder = recorder
        self.outputs = {}
        self.feeds = feeds
        self.start()

    def start(self):
        settings = FeedSettings("replay", has_acks=True)
        self.cores = {
            feed.name: RecordedFeed(
                self.recorder, feed, settings, TOPICS, FeedCounters(feed.name), random.Random(1)
            )
            for feed in self.feeds
        }

    def do(self, feed, method, *arguments):
        done = getattr(self.cores[feed.name], method)(*arguments)
        self.outputs.setdefault(feed.name, []).extend(done[0] if method == "ended" else done)

    def subscribe(self, feed, now):
        self.do(feed, "connected", now)
        self.do(feed, "receive", b"You have permission to subscribe to all market data", now + 1)
        for code in (10001, 10004, 10007):
            self.do(feed, "receive", b'{"code":%d,"msg":"ok"}' % code, now + 2)


def test_connections_outages_and_restarts_are_played_as_they_were(tmp_path):
    with Recorder(tmp_path, rotate_mib=0.005) as recorder:
        session = Session(recorder, CRYPTO, STOCK)
        session.do(STOCK, "disconnected", NOON - SECOND, "no connection")
        session.subscribe(CRYPTO, NOON)
        session.subscribe(STOCK, NOON + 5)
        for number in range(40):
            session.do(CRYPTO, "receive", trade(number), NOON + 100 + number * 300_000)
        session.do(STOCK, "pong", NOON + 20 * SECOND)
        session.do(STOCK, "receive", b"\xffno frame", NOON + 21 * SECOND)
        session.do(CRYPTO, "disconnected", NOON + 22 * SECOND, "reset")
        session.do(CRYPTO, "disconnected", NOON + 23 * SECOND, "refused")
        session.subscribe(CRYPTO, NOON + 24 * SECOND)
        for number in range(38, 60):
            session.do(CRYPTO, "receive", trade(number), NOON + 25 * SECOND + number)
        session.do(CRYPTO, "pong", NOON + 40 * SECOND)
        for feed in (CRYPTO, STOCK):
            session.do(feed, "ended", NOON + 50 * SECOND)
        # another process, which is killed, and one after that
        session.start()
        session.subscribe(CRYPTO, NOON + 60 * SECOND)
        session.do(CRYPTO, "receive", trade(60), NOON + 61 * SECOND)
        session.start()
        session.subscribe(CRYPTO, NOON + 70 * SECOND)
        session.do(CRYPTO, "receive", trade(61), NOON + 71 * SECOND)
        session.do(CRYPTO, "ended", NOON + 72 * SECOND)
    assert len(recorder.files) > 1
    recording = read_recordings(reversed(recorder.files))
    assert recording.broken == []
    assert played(recording) == session.outputs


def test_a_file_from_the_middle_plays_by_itself(tmp_path):
    with Recorder(tmp_path, rotate_mib=0.005) as recorder:
        session = Session(recorder, CRYPTO)
        session.subscribe(CRYPTO, NOON)
        for number in range(100):
            session.do(CRYPTO, "receive", trade(number), NOON + SECOND + number)
    outputs = played(read_recordings(recorder.files[1:2]))["crypto-1"]
    kinds = [output.control.kind for output in outputs if isinstance(output, ControlPublication)]
    assert kinds == ["begin"] * 4 + ["end"] * 4
    assert {output.key for output in outputs if isinstance(output, ControlPublication)} == set(
        CRYPTO.symbols
    )
    headless = tmp_path / "headless.jsonl"
    headless.write_bytes(
        b"".join(gzip.decompress(recorder.files[1].read_bytes()).splitlines(keepends=True)[1:])
    )
    assert [
        output
        for output in played(read_recordings([headless]))["crypto-1"]
        if isinstance(output, ControlPublication)
    ]


@pytest.mark.parametrize("order", [sorted, lambda files: sorted(files, reverse=True)])
def test_a_clock_set_back_between_files_changes_no_order_and_other_recorders_are_merged_by_time(
    order, tmp_path
):
    set_back = NOON - 1800 * SECOND
    with Recorder(tmp_path, rotate_mib=0.003) as recorder:
        session = Session(recorder, CRYPTO)
        session.subscribe(CRYPTO, NOON - 3600 * SECOND)
        for number in range(20):
            session.do(CRYPTO, "receive", trade(number), NOON + SECOND + number)
        session.do(CRYPTO, "disconnected", NOON + 10 * SECOND, "reset")
        session.subscribe(CRYPTO, set_back)
        for number in range(20, 90):
            session.do(CRYPTO, "receive", trade(number), set_back + SECOND + number)
        session.do(CRYPTO, "ended", set_back + 90 * SECOND)
    with Recorder(tmp_path) as other:
        for minutes in (-40, -20, 1):
            other.frame(STOCK, b"{}", NOON + minutes * 60 * SECOND)
    assert recorder.files == sorted(recorder.files)
    assert len(recorder.files) > 3
    recording = read_recordings(order([*recorder.files, *other.files]))
    assert played(recording)["crypto-1"] == session.outputs["crypto-1"]
    others = [place for place, entry in enumerate(recording.entries) if entry.feed == "stock-1"]
    trades = [
        place
        for place, entry in enumerate(recording.entries)
        if isinstance(entry, RecordedFrame) and entry.frame == trade(0)
    ]
    assert others[1] < trades[0] < others[2] == len(recording.entries) - 1


def test_a_reconnect_in_a_file_from_the_middle_begins_its_symbols_with_the_acks_as_live(tmp_path):
    with Recorder(tmp_path, rotate_mib=0.004) as recorder:
        session = Session(recorder, CRYPTO)
        session.subscribe(CRYPTO, NOON)
        for number in range(60):
            session.do(CRYPTO, "receive", trade(number), NOON + SECOND + number)
        session.do(CRYPTO, "disconnected", NOON + 10 * SECOND, "reset")
        before = len(session.outputs["crypto-1"])
        session.do(CRYPTO, "connected", NOON + 20 * SECOND)
        session.do(CRYPTO, "receive", b'{"code":516,"msg":"quota"}', NOON + 20 * SECOND + 5)
        for code in (10001, 10004, 10007):
            session.do(CRYPTO, "receive", b'{"code":%d,"msg":"ok"}' % code, NOON + 80 * SECOND)
        session.do(CRYPTO, "receive", trade(60), NOON + 81 * SECOND)
        session.do(CRYPTO, "ended", NOON + 90 * SECOND)
    assert len(recorder.files) > 1
    live = session.outputs["crypto-1"][before:]
    alone = played(read_recordings(recorder.files[-1:]))["crypto-1"][-len(live) :]
    begins = [
        output.control.ts
        for output in alone
        if isinstance(output, ControlPublication) and output.control.kind == "begin"
    ]
    assert begins == [NOON // 1000 + 80_000] * 6
    # a file without the acks of its first connection, and without klines, does not say that these
    # were subscribed
    assert [output for output in alone if output.topic != "infoway.raw.kline"] == [
        output for output in live if output.topic != "infoway.raw.kline"
    ]


def test_a_killed_recording_is_ended_by_the_player_and_a_refused_one_is_not(tmp_path):
    with Recorder(tmp_path / "killed") as recorder:
        session = Session(recorder, CRYPTO)
        session.subscribe(CRYPTO, NOON)
    assert [
        output.control.kind
        for output in played(recorded(tmp_path / "killed"))["crypto-1"]
        if isinstance(output, ControlPublication)
    ] == [
        *["begin"] * 6,
        *["end"] * 6,
    ]
    with Recorder(tmp_path / "refused") as recorder:
        session = Session(recorder, CRYPTO)
        session.subscribe(CRYPTO, NOON)
        session.do(CRYPTO, "receive", b'{"code":509,"msg":"invalid key"}', NOON + 5)
        session.do(CRYPTO, "disconnected", NOON + 6, "invalid key")
    assert session.cores["crypto-1"].state is State.REFUSED
    assert played(recorded(tmp_path / "refused")) == session.outputs


def test_old_and_new_lines_are_played_side_by_side(tmp_path):
    with Recorder(tmp_path) as recorder:
        session = Session(recorder, CRYPTO)
        session.subscribe(CRYPTO, NOON)
        session.do(CRYPTO, "ended", NOON + 9)
    old = tmp_path / "old.jsonl"
    old.write_bytes(b'{"recv_ms":%d,"frame":%s}\n' % (NOON // 1000, trade(1)))
    outputs = played(read_recordings([old, *recorder.files]))
    assert outputs["crypto-1"] == session.outputs["crypto-1"]
    assert "crypto-2" in outputs


def test_the_simulator_plays_the_pushes_of_a_recorder_and_answers_the_rest_itself(tmp_path):
    with Recorder(tmp_path) as recorder:
        for frame in (b"welcome", b'{"code":10001,"msg":"ok"}', trade(1), b"[]"):
            recorder.frame(CRYPTO, frame, NOON)
    assert [each.frame for each in addressed(recorded(tmp_path).frames)] == [trade(1)]


def until_both(running, holds):
    assert drill.wait_until(lambda: all(map(holds, running.counters)), 60), running.counters


def new_trades(running):
    before = {each.feed: each.trades for each in running.counters}
    return lambda each: each.trades > before[each.feed] + 50


def test_a_real_connection_is_recorded_without_its_key_and_played_alike(tmp_path):
    key, kept, stop = "s3cret/key+1", Kept(), threading.Event()
    with running_simulator(rate=200) as simulator, Recorder(tmp_path) as recorder:
        settings = FeedSettings("replay", mark_period_ms=1000, has_acks=True)

        def make(feed, counters):
            return RecordedFeed(recorder, feed, settings, TOPICS, counters, random.Random(1))

        with RunningFeeds(
            [CRYPTO, STOCK], make, Endpoint(simulator.url, key), kept, stop, random.Random(1)
        ) as running:
            until_both(running, lambda each: each.trades)
            simulator.send_raw(f'{{"code":500,"msg":"the key {key} of ?apikey=s3cret%2Fkey%2B1"}}')
            until_both(running, lambda each: each.losses == 1 and each.connections == 2)
            until_both(running, new_trades(running))
            simulator.drop_connections()
            until_both(running, lambda each: each.losses == 2 and each.connections == 3)
            until_both(running, new_trades(running))
        running.check()
    assert [counters.losses for counters in running.counters] == [2, 2]
    assert not any(b"s3cret" in gzip.decompress(path.read_bytes()) for path in recorder.files)
    recording = recorded(tmp_path)
    assert recording.broken == []
    assert {entry.event for entry in recording.entries if isinstance(entry, RecordedEvent)} >= {
        "subscribed",
        "disconnected",
        "ended",
    }
    assert played(recording) == kept.outputs
