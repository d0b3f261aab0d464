"""What was published live and recorded at the same time gives, replayed, the same records: bars,
VWAPs, depth, with every gap."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict

import drill
import pytest
from rich.console import Console

from infra.cli.commands.feed.replay import SOURCES, ReplayOptions, replay
from infra.ingest.producer_process import Feeding
from infra.kafka.lag import Lag
from infra.kafka.reader import ValueReader, read_to_end
from infra.runtime.deployment import deployed
from infra.runtime.supervisor import Supervisor
from infra.simulator import running_simulator
from producers.recording.reader import RecordedEvent, read_recordings
from producers.recording.writer import Recorder
from producers.transport.endpoint import Endpoint
from producers.vendor.symbols import Feed, plan_feeds
from schemas.clients.registry import Registry
from schemas.topics import Topology
from schemas.wire import to_json

DAY = "sh600519_20230201_fullday.jsonl.gz"
COMPARED = ("infoway.bars.", "infoway.vwap.", "infoway.depth.", "infoway.late")
# the name of the source, and places in a log that bears the other namespace's records too
OF_THE_WAY = {"source", "source_offset"}


@pytest.fixture
def on_stack(stack, monkeypatch):
    monkeypatch.setenv("INFOWAY_BOOTSTRAP", stack.bootstrap)
    monkeypatch.setenv("INFOWAY_REGISTRY", stack.registry_url)
    return stack


def live_and_replayed(stack, names, feeds, simulator, folder, drive):
    """Publish and record what `drive` lets happen, replay the recording; return (topic, live rows,
    replayed rows) by symbol."""
    with (
        deployed(names, folder) as deployment,
        Supervisor(deployment.environment, 1, folder / "logs"),
    ):
        with Recorder(folder / "recorded", rotate_mib=1) as recorder:
            with Feeding(
                deployment, feeds, Endpoint(simulator.url, "s3cret"), "simulated", recorder
            ) as feeding:
                drive(feeding)
                feeding.check()
        lag = Lag(
            stack.bootstrap,
            f"{names.prefix}infoway-processors",
            [names.name(source) for source in SOURCES],
        )
        assert drill.wait_until(lambda: lag() == 0, 180)
    settings = Topology(intervals=names.intervals, windows=names.windows)
    summary = replay(ReplayOptions(recorder.files, folder / "out", settings), Console(stderr=True))
    assert (summary.frames, summary.broken_lines) == (recorder.frames, 0)
    read = ValueReader(Registry(stack.registry_url))
    for topic in names.derived():
        name = names.contract_name(topic.name)
        if name.startswith(COMPARED):
            ours = [
                to_json(*read(message.value()))
                for message in read_to_end(stack.bootstrap, topic.name)
            ]
            theirs = [
                json.loads(line)
                for line in (folder / "out" / f"{name}.jsonl").read_text().splitlines()
            ]
            yield name, by_symbol(ours), by_symbol(theirs)


def by_symbol(rows):
    found = defaultdict(list)
    for row in rows:
        found[row["symbol"]].append(
            {name: value for name, value in row.items() if name not in OF_THE_WAY}
        )
    return dict(found)


@pytest.mark.timeout(400)
def test_feeds_with_an_outage_and_a_change_of_symbols_give_the_same_records(
    on_stack, namespace, tmp_path
):
    names = Topology(namespace, intervals=("1s", "1m"), windows=("5s", "session"))
    feeds = [*plan_feeds(["BTCUSDT", "ETHUSDT"], limit=1), *plan_feeds(["00700.HK"])]
    with running_simulator(rate=30) as simulator:

        def drive(feeding):
            def all_received(more):
                before = [each.received for each in feeding.counters]
                return lambda: (
                    feeding.failure
                    or all(
                        each.received > was + more
                        for each, was in zip(feeding.counters, before, strict=True)
                    )
                )

            assert drill.wait_until(all_received(150), 60)
            simulator.drop_connections()
            assert drill.wait_until(
                lambda: feeding.failure or all(each.losses for each in feeding.counters), 60
            )
            time.sleep(1.5)
            assert drill.wait_until(all_received(150), 60)
            # ETHUSDT moves to another connection, 00700.HK's ends, USDJPY comes with a new one
            feeding.change(
                [
                    Feed("crypto-1", "crypto", ("BTCUSDT", "ETHUSDT")),
                    Feed("common-1", "common", ("USDJPY",)),
                ]
            )
            assert drill.wait_until(
                lambda: (
                    feeding.failure
                    or (len(feeding.counters) == 4 and feeding.counters[3].received > 50)
                ),
                60,
            )

        compared = list(live_and_replayed(on_stack, names, feeds, simulator, tmp_path, drive))
    for name, ours, theirs in compared:
        assert ours == theirs, name
        if name in ("infoway.bars.1s", "infoway.vwap.5s", "infoway.depth.imbalance"):
            assert set(ours) == {"BTCUSDT", "ETHUSDT", "00700.HK", "USDJPY"}
        if name == "infoway.bars.1s":
            assert all(
                {bar["completeness"] for bar in bars} >= {"complete", "gap"}
                for symbol, bars in ours.items()
                if symbol != "USDJPY"
            )
            assert "gap" not in {bar["completeness"] for bar in ours["USDJPY"]}
            assert all(bar["is_closed"] for bars in ours.values() for bar in bars)


@pytest.mark.timeout(400)
def test_a_day_gives_the_same_records(on_stack, recordings, namespace, tmp_path):
    names = Topology(namespace)
    with running_simulator([recordings / DAY], speed=0) as simulator:
        total = len(simulator.recording.frames)

        def drive(feeding):
            assert drill.wait_until(
                lambda: feeding.failure or feeding.counters[0].acknowledged == total, 180
            ), feeding.counters

        compared = list(
            live_and_replayed(
                on_stack, names, plan_feeds(["600519.SH"]), simulator, tmp_path, drive
            )
        )
    assert len(list((tmp_path / "recorded").iterdir())) > 1
    for name, ours, theirs in compared:
        assert ours == theirs, name
        assert ours or name == "infoway.late"


def test_the_command_records_without_kafka_and_a_kill_leaves_what_was_flushed(tmp_path):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("INFOWAY_")
    }

    def recording(url, out, *more):
        command = [
            sys.executable,
            "-m",
            "infra.cli.main",
            "record",
            "--symbols",
            "BTCUSDT,USDJPY",
            "--out",
            str(out),
            "--url",
            url,
            *more,
        ]
        return subprocess.Popen(
            command,
            env={**environment, "INFOWAY_API_KEY": "s3cret"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def well_under_way(folder):
        if not folder.exists():
            return False
        found = read_recordings(sorted(folder.iterdir())).frames
        return len(found) > 100 and {each.feed for each in found} == {"crypto-1", "common-1"}

    with running_simulator(rate=50) as simulator:
        timed, told, killed = (
            recording(simulator.url, tmp_path / "timed", "--seconds", "8"),
            recording(simulator.url, tmp_path / "told"),
            recording(simulator.url, tmp_path / "killed"),
        )
        said, errors = timed.communicate(timeout=120)
        assert (timed.returncode, errors) == (0, "")
        assert said.startswith("recording simulated data of crypto-1, common-1 into ")
        # each starts in its own time, and what was flushed is what a kill leaves
        for name in ("told", "killed"):
            assert drill.wait_until(lambda name=name: well_under_way(tmp_path / name), 60), name
        told.send_signal(signal.SIGINT)
        killed.send_signal(signal.SIGKILL)
        assert told.wait(60) == 0
        for each in (told, killed):
            each.communicate()
    for name, broken in (("timed", 0), ("told", 0), ("killed", 1)):
        found = read_recordings(sorted((tmp_path / name).iterdir()))
        assert len(found.broken) == broken, name
        assert len(found.frames) > 50, name
        ends = {
            entry.feed
            for entry in found.entries
            if isinstance(entry, RecordedEvent) and entry.event == "ended"
        }
        assert ends == (set() if broken else {"crypto-1", "common-1"}), name


def test_a_refused_key_ends_the_command_in_one_line(tmp_path):
    with running_simulator() as simulator:
        command = [
            sys.executable,
            "-m",
            "infra.cli.main",
            "record",
            "--symbols",
            "BTCUSDT",
            "--out",
            str(tmp_path),
            "--url",
            simulator.url,
        ]
        done = subprocess.run(
            command,
            env={**os.environ, "INFOWAY_API_KEY": "bad-key"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 3
    (line,) = done.stderr.strip().splitlines()
    assert "the API key was refused" in line
    assert "bad-key" not in done.stdout + done.stderr
