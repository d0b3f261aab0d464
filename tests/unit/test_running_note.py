"""The note of a run: found while its process lives, by number and start; what somebody else writes
into it is no address, path or code."""

import json
import os
import stat
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from infra.cli.commands.running.down import StillRunning, end
from infra.cli.commands.running.status import Status, as_json, lines
from infra.embedded import running
from infra.embedded.running import (
    NAME,
    Found,
    NoRun,
    StackRun,
    WorkerState,
    find,
    noted,
    read,
    started_at,
    write,
)
from infra.kafka.group import GroupFound
from schemas.decimals import to_units
from schemas.topics import load_example


def ours(**changed):
    run = StackRun(os.getpid(), started_at(os.getpid()), 21001, 22002, "a.", None)
    return replace(run, **changed)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "simulated"
    made.mkdir()
    return made


def test_a_note_is_found_by_the_data_folder_and_gone_at_the_end(folder):
    with noted(folder, ours()) as note:
        assert find(folder.parent) == find(folder) == Found(folder, ours())
        assert find(folder).run.bootstrap == "127.0.0.1:21001"
        assert find(folder).run.registry_url == "http://127.0.0.1:22002/apis/ccompat/v7"
        assert stat.S_IMODE((folder / NAME).stat().st_mode) == 0o600
        # a page that is served since
        note.change(page_port=8080)
        assert read(folder) == ours(page_port=8080)
    assert list(folder.iterdir()) == []
    with pytest.raises(NoRun, match="nothing runs over"):
        find(folder.parent)


def test_the_note_says_what_the_workers_do_now(folder, monkeypatch):
    waits = WorkerState("0", "restarting (73)", False)
    with noted(folder, ours()) as note:
        note.change(page_port=8080)
        note.change(workers=[waits])
        assert find(folder).run == ours(page_port=8080, workers=(waits,))

        def full(*_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(running, "write", full)
            note.change(workers=[waits._replace(text="running", well=True)])
        assert find(folder).run.workers == (waits,)
        note.change(workers=[waits._replace(text="running", well=True)])
        assert find(folder).run.workers == (WorkerState("0", "running", True),)


def test_status_shows_what_each_worker_does(folder):
    states = (WorkerState("0", "running", True), WorkerState("1", "restarting (73)", False))
    with noted(folder, ours()) as note:
        note.change(workers=states)
        group = GroupFound("g", "stable", (), ())
        found = Status("b", "r", find(folder), group, (), "1m", ())
        text = list(lines(found))
        place = next(at for at, line in enumerate(text) if line.startswith("processors: "))
        assert text[place + 1 : place + 3] == ["  worker 0 running", "  worker 1 restarting (73)"]
        assert as_json(found)["stack"]["workers"] == [
            {"slot": "0", "state": "running", "well": True},
            {"slot": "1", "state": "restarting (73)", "well": False},
        ]
        # of another cluster nothing is known
        elsewhere = replace(found, stack=None)
        assert not any("worker 0" in line for line in lines(elsewhere))
        assert as_json(elsewhere)["stack"] is None


def test_status_has_its_bars_within_the_width_and_the_lines_of_a_terminal(folder):
    prices = ("118499.98", "118500.04", "118499.88", "118499.93")
    bars = [
        load_example("bar")
        | {
            "symbol": f"{number:06d}.SZ",
            "ts_start": time.time_ns() // 1_000_000,
            "revision": 36,
            "is_closed": False,
            "completeness": "partial",
            "volume": to_units("44.3935"),
        }
        | {
            name: to_units(price)
            for name, price in zip(("open", "high", "low", "close"), prices, strict=True)
        }
        for number in range(60)
    ]
    group = GroupFound("g", "stable", (), ())
    found = Status("b", "r", None, group, (), "1m", tuple(bars))
    for columns, shown in ((80, "close"), (120, "open")):
        text = list(lines(found, os.terminal_size((columns, 24))))
        assert len(text) <= 23, "the prompt needs one"
        assert max(map(len, text)) <= columns
        heading = next(line for line in text if line.startswith("  symbol"))
        assert shown in heading
        assert (
            text[-1]
            == f"  and {60 - sum('.SZ' in line for line in text)} more: --json has them all"
        )
        assert "118499.93" in text[-2]
        assert "open, partial" in text[-2]
    # of days ago the date is said
    old = replace(found, bars=tuple(bar | {"ts_start": 0} for bar in bars))
    assert any("1970-01-01 00:00:00" in line for line in lines(old, os.terminal_size((80, 24))))
    assert sum(".SZ" in line for line in lines(found)) == 60


def test_the_note_of_a_later_run_stays(folder):
    later = ours(pid=1, started=started_at(1) or "x")
    with noted(folder, ours()):
        write(folder, later)
    assert read(folder) == later


def test_a_process_that_ended_or_got_the_number_of_another_does_not_run(folder):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write(folder, ours(pid=ended.pid))
    with pytest.raises(NoRun, match=f"the last one, process {ended.pid}, has ended"):
        find(folder)
    # the number lives, of another start
    write(folder, ours(started=f"{started_at(os.getpid())}1"))
    with pytest.raises(NoRun, match="has ended"):
        find(folder)


def test_two_runs_over_one_folder_have_to_be_named(folder):
    other = folder.parent / "live"
    other.mkdir()
    write(folder, ours())
    write(other, ours())
    with pytest.raises(NoRun, match=rf"--data {folder} or --data {other}") as raised:
        find(folder.parent)
    assert raised.value.several
    assert find(other).folder == other


BAD = [
    {"kafka_port": "21001"},
    {"kafka_port": 0},
    {"kafka_port": 65_536},
    {"kafka_port": True},
    {"registry_port": 1.5},
    {"registry_port": "1@evil.example/"},
    {"page_port": "x"},
    {"pid": "1"},
    {"pid": -1},
    {"pid": 0},
    {"pid": 2**31},
    {"started": 7},
    {"started": "a\x1b[0m"},
    {"prefix": "../x"},
    {"prefix": "a b"},
    {"prefix": None},
    {"prefix": "x" * 250},
    {"workers": {}},
    {"workers": [["0", "running"]]},
    {"workers": [[0, "running", True]]},
    {"workers": [["0", None, True]]},
    {"workers": [["0", "running", 1]]},
    {"workers": [["0", "x" * 501, True]]},
    {"workers": [["0", "running", True]] * 1001},
]


@pytest.mark.parametrize("changed", BAD, ids=str)
def test_a_note_that_is_not_numbers_and_a_prefix_is_none(folder, changed):
    good = running.asdict(ours())
    (folder / NAME).write_text(json.dumps(good))
    assert read(folder) == ours()
    (folder / NAME).write_text(json.dumps(good | changed))
    assert read(folder) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", "[" * 100_000, json.dumps({"pid": 1}), "{}" + " " * (1 << 20)]
)
def test_a_file_that_is_no_note_is_none(folder, text):
    (folder / NAME).write_text(text)
    assert read(folder) is None


def test_a_link_and_a_pipe_are_no_notes(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write(elsewhere, ours())
    (folder / NAME).symlink_to(elsewhere / NAME)
    assert read(folder) is None
    (folder / NAME).unlink()
    os.mkfifo(folder / NAME)
    assert read(folder) is None


def test_down_ends_the_process_of_the_note_and_no_other_of_its_number(folder):
    sleeps = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        started = started_at(sleeps.pid)
        end(Found(folder, StackRun(sleeps.pid, f"{started}1", None, None)), 0.2)
        assert sleeps.poll() is None, "another process of that number was ended"
        end(Found(folder, StackRun(sleeps.pid, started, None, None)), 60)
        assert sleeps.wait(60) == -15
    finally:
        sleeps.kill()
        sleeps.wait()


def test_what_does_not_end_is_said(folder):
    stays = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); "
            "time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
    )
    try:
        stays.stdout.readline()
        with pytest.raises(StillRunning, match="has not ended within 0 s"):
            end(Found(folder, StackRun(stays.pid, started_at(stays.pid), None, None)), 0.2)
    finally:
        stays.kill()
        stays.wait()
        stays.stdout.close()


def test_a_note_of_another_user_is_none(folder, monkeypatch):
    write(folder, ours())
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    assert read(folder) is None
