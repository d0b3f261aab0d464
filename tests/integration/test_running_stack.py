"""A stack in the background, and the commands of another terminal that find it by its folder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import drill
import pytest
from unit.terminal import Terminal

from infra.embedded.running import find, read

BASE = {name: value for name, value in os.environ.items() if not name.startswith("INFOWAY_")} | {
    "PYTHONUNBUFFERED": "1"
}
UP = ("up", "--detach", "--symbols", "BTCUSDT,00700.HK", "--intervals", "5s,1m",
      "--windows", "1m", "--partitions", "2", "--rate", "20")  # fmt: skip


RUNNING = [{"slot": "0", "state": "running", "well": True}]


def command(*arguments):
    return [sys.executable, "-m", "infra", *arguments]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as a user's, in whose `data` a stack runs."""
    made = tmp_path_factory.mktemp("user")
    done = run(made, *UP, timeout=280)
    assert done.returncode == 0, done.stderr + done.stdout
    *_, page, last = done.stdout.splitlines()
    assert page == f"page {find(made / 'data').run.page_url}"
    assert "runs over data/simulated in the background" in last
    try:
        yield made
    finally:
        assert run(made, "down", timeout=100).returncode == 0


def run(folder, *arguments, timeout=240, **environment):
    return subprocess.run(
        command(*arguments), cwd=folder, env=BASE | environment, capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip


def said(folder, *arguments, **environment):
    done = run(folder, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(400)
def test_tail_finds_the_stack_and_follows_several_topics(folder):
    # the first rows of VWAP come once the processors run: trades alone could be 800 before
    said(folder, "tail", "infoway.vwap.1m", "--max", "1")
    lines = said(
        folder, "tail", "infoway.vwap.1m", "infoway.raw.trade", "--max", "800"
    ).splitlines()
    found = [json.loads(line) for line in lines]
    assert len(found) == 800
    assert {each["topic"] for each in found} == {"infoway.vwap.1m", "infoway.raw.trade"}
    [line] = said(
        folder, "tail", "infoway.raw.trade", "--symbol", "00700.HK", "--max", "1"
    ).splitlines()
    assert json.loads(line)["symbol"] == "00700.HK"
    done = run(folder, "tail", "infoway.nothing")
    assert done.returncode == 2
    assert "there are infoway.bars.1m, infoway.bars.5s" in done.stderr


@pytest.mark.timeout(400)
def test_since_begins_with_what_was_written_then(folder):
    trades = ("tail", "infoway.raw.trade", "--symbol", "BTCUSDT")
    first = json.loads(said(folder, *trades, "--from-beginning", "--max", "1"))
    until = first["ts_recv"] + 3_000_000
    assert drill.wait_until(lambda: time.time_ns() // 1000 > until + 2_000_000, 30)
    since = f"{until // 1_000_000}"
    moment = subprocess.run(
        ["date", "-u", "-d", f"@{since}", "+%Y-%m-%dT%H:%M:%SZ"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    later = json.loads(said(folder, *trades, "--since", moment, "--max", "1"))
    assert later["sequence"] > first["sequence"]
    assert later["ts_recv"] >= int(since) * 1_000_000 - 100_000
    again = json.loads(said(folder, *trades, "--since", "1h", "--max", "1"))
    assert again == first


@pytest.mark.timeout(400)
def test_a_terminal_gets_a_table_and_a_pipe_json(folder):
    with Terminal(
        command("tail", "infoway.vwap.1m", "--max", "3"), 24, 80, cwd=folder, env=BASE
    ) as shown:
        assert shown.ended(100) == 0
        text = shown.everything()
    assert "-- infoway.vwap.1m (UTC)" in text
    assert "{" not in text
    assert any("BTCUSDT" in line or "00700.HK" in line for line in text.splitlines())


@pytest.mark.timeout(400)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_tail_ends_at_once_with_the_broker_away_too(folder, number):
    with frozen_broker(folder):
        for follows in (True, False):
            # while it asks for the topic's partitions, and before, for what the cluster has
            environment = {"INFOWAY_INTERVALS": "1m", "INFOWAY_WINDOWS": "1m",
                           "INFOWAY_PARTITIONS": "1", "INFOWAY_ACTIVITY": "tick-9"}  # fmt: skip
            tail = subprocess.Popen(
                command("tail", "infoway.vwap.1m"), cwd=folder,
                env=BASE | (environment if follows else {}),
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            try:
                assert drill.wait_until(lambda: calls_kafka(tail.pid), 90)  # noqa: B023
                tail.send_signal(number)
                assert seconds_to_its_end(tail) < 8, "a call of the client takes 10 s"
                assert "Traceback" not in tail.stderr.read()
            finally:
                tail.kill()
                tail.wait()
                tail.stdout.close()
                tail.stderr.close()


def seconds_to_its_end(process):
    """How long a process goes on; a machine that stands still for a while adds nothing to it."""
    seconds, before = 0.0, time.monotonic()
    while process.poll() is None and seconds < 20:
        time.sleep(0.02)
        now = time.monotonic()
        seconds += min(now - before, 0.1)
        before = now
    return seconds


def calls_kafka(pid):
    """Whether a process has a client of Kafka: threads of librdkafka's."""
    names = [path.read_text().strip() for path in Path(f"/proc/{pid}/task").glob("*/comm")]
    return any(name.startswith("rdk:") for name in names)


class frozen_broker:  # noqa: N801 - read as a sentence
    """The stack's broker answers nothing within the block."""

    def __init__(self, folder):
        here = str((folder / "data" / "simulated").resolve())
        self.pids = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if b"kafka.Kafka" in read_bytes(path) and cwd_of(path.parent) == here
        ]
        assert self.pids

    def __enter__(self):
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)

    def __exit__(self, *_):
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)


def read_bytes(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def cwd_of(path):
    try:
        return str((path / "cwd").readlink())
    except OSError:
        return ""


@pytest.mark.timeout(400)
def test_env_status_group_and_logs_show_the_stack(folder):
    run_found = find(folder / "data").run
    assert said(folder, "env").splitlines() == [
        f"export INFOWAY_BOOTSTRAP={run_found.bootstrap}",
        f"export INFOWAY_REGISTRY={run_found.registry_url}",
    ]
    found = {}

    def complete():
        found.update(json.loads(said(folder, "status", "--json")))
        workers = found["stack"]["workers"]
        return len(found["bars"]) == 2 and len(found["feeds"]) == 2 and workers == RUNNING

    assert drill.wait_until(complete, 240), found
    assert found["interval"] == "5s", "the shortest that the cluster has"
    assert found["stack"]["pid"] == run_found.pid
    assert {each["symbol"] for each in found["bars"]} == {"BTCUSDT", "00700.HK"}
    assert all(each["state"] == "healthy" for each in found["feeds"])
    text = said(folder, "status")
    assert f"broker {run_found.bootstrap}" in text
    assert "processors: 1 worker, stable; lag " in text
    assert "\n  worker 0 running\n" in text
    group = json.loads(said(folder, "group", "--json"))
    assert len(group["members"]) == 1
    rows = {(each["topic"], each["partition"]): each for each in group["partitions"]}
    assert len(rows) == 6, "three raw topics of two partitions: read back, not the default of six"
    assert all(each["stable"] <= each["high"] for each in rows.values())
    assert "infoway.raw.trade" in said(folder, "group")
    logs = said(folder, "logs", "--lines", "1000")
    assert {line.split(" | ")[0] for line in logs.splitlines()} >= {
        "registry",
        "processors-0",
        "up",
    }
    assert run(folder, "logs", "../../etc/passwd").returncode == 2


@pytest.mark.timeout(400)
def test_a_worker_finds_the_stack_and_leaves_its_worker_alone(folder, tmp_path):
    def members():
        return len(json.loads(said(folder, "group", "--json"))["members"])

    with (tmp_path / "log").open("w") as log:
        beside = subprocess.Popen(command("worker"), cwd=folder, env=BASE, stdout=log, stderr=log)
    try:
        both = drill.wait_until(lambda: members() == 2 or beside.poll() is not None, 200)
        assert both, (tmp_path / "log").read_text()
        assert beside.poll() is None, (tmp_path / "log").read_text()
        beside.send_signal(signal.SIGTERM)
        assert beside.wait(60) == 0
    finally:
        beside.kill()
        beside.wait()
    assert drill.wait_until(lambda: members() == 1, 120)

    def workers():
        return json.loads(said(folder, "status", "--json"))["stack"]["workers"]

    # the partitions come back to it, and it loads their states
    assert drill.wait_until(lambda: workers() == RUNNING, 120), workers()


@pytest.mark.timeout(400)
def test_topology_apply_is_not_repeated_at_each_command(folder):
    out = folder / "out"
    done = said(folder, "export", "--out", str(out))
    assert "infoway.bars.5s: " in done
    assert "infoway.bars.15m" not in done
    done = said(folder, "dead-letter", "list")
    assert done == ""


@pytest.mark.heavy
@pytest.mark.timeout(500)
def test_the_addresses_stay_over_a_restart_and_down_ends_the_run_alone(tmp_path):
    first_up = run(tmp_path, *UP, timeout=280)
    assert first_up.returncode == 0, first_up.stderr + first_up.stdout
    first = find(tmp_path / "data").run
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    try:
        assert "has ended" in said(tmp_path, "down")
        assert read(tmp_path / "data" / "simulated") is None
        assert "nothing runs over data" in said(tmp_path, "down")
        done = run(tmp_path, "tail", "infoway.bars.1m")
        assert done.returncode == 2
        assert "start a stack by `infoway-streams up`" in done.stderr
        again = run(tmp_path, *UP, timeout=280)
        assert again.returncode == 0, again.stderr
        second = find(tmp_path / "data").run
        assert (second.kafka_port, second.registry_port) == (first.kafka_port, first.registry_port)
        assert second.pid != first.pid
        refused = run(tmp_path, *UP)
        assert refused.returncode == 1
        assert "another embedded stack runs over" in refused.stdout
        assert (found := find(tmp_path / "data").run).pid == second.pid
        assert (found.kafka_port, found.page_port) == (second.kafka_port, second.page_port)
    finally:
        done = run(tmp_path, "down")
        other_lives = other.poll() is None
        other.kill()
        other.wait()
    assert done.returncode == 0
    assert other_lives


@pytest.mark.heavy
@pytest.mark.timeout(500)
def test_up_in_a_terminal_shows_prices_and_ctrl_c_ends_it_in_silence(tmp_path):
    """Its view at three sizes; what it says at its end is no error."""
    up = command("up", "--symbols", "BTCUSDT,00700.HK", "--intervals", "5s", "--partitions", "1")
    with Terminal(up, 24, 80, cwd=tmp_path, env=BASE) as shown:
        frame = shown.wait_for(has_prices, 280)
        for rows, columns in ((30, 100), (50, 200), (24, 80)):
            shown.resize(rows, columns)
            shown.process.send_signal(signal.SIGWINCH)
            frame = shown.wait_for(
                lambda lines: len(lines) == rows and has_prices(lines),  # noqa: B023
                60,
            )
            assert all(len(line) <= columns for line in frame)
            text = " ".join(" ".join(frame).split())
            run_found = find(tmp_path / "data").run
            assert f"broker {run_found.bootstrap} registry {run_found.registry_url}" in text
            assert "crypto-1 healthy" in text
        shown.press("\x03")
        assert shown.ended(120) == 0
        end = shown.everything()[-300:]
    assert "ending: feed, processors, registry, broker" in end
    assert "Traceback" not in end


def has_prices(frame):
    text = " ".join(frame)
    rows = [line.split() for line in frame if line.startswith(("BTCUSDT", "00700.HK"))]
    return "worker 0 running" in text and len(rows) == 2 and all("." in row[1] for row in rows)


@pytest.mark.timeout(400)
def test_a_ctrl_c_while_the_servers_start_is_an_orderly_end(tmp_path):
    up = subprocess.Popen(
        command("up", "--symbols", "BTCUSDT"), cwd=tmp_path, env=BASE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert drill.wait_until((tmp_path / "data/simulated/logs/registry.log").exists, 200)
        up.send_signal(signal.SIGINT)
        said_by_up, _ = up.communicate(timeout=120)
    finally:
        up.kill()
        up.wait()
    assert up.returncode == 0, said_by_up
    assert "ended before it ran" in said_by_up
    assert "Traceback" not in said_by_up
    assert drill.wait_until(lambda: not still_there(tmp_path), 60)


def still_there(folder):
    here = str((folder / "data" / "simulated").resolve())
    return [path for path in Path("/proc").glob("[0-9]*") if cwd_of(path) == here]
