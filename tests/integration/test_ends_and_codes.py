"""How the commands end, and what does not end them, on the real stack: codes, views and faults of
broker and disk."""

import os
import re
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import drill
import pytest
from broker import away

from infra import topology
from infra.dashboard.board import Board
from infra.ingest.spooling import open_backlog
from infra.kafka import offsets
from infra.runtime.deployment import Deployment
from infra.runtime.exit_codes import Code
from infra.simulator import running_simulator
from schemas.clients.registry import Registry
from schemas.control import read_control
from schemas.topics import Topology

BASE = {name: value for name, value in os.environ.items() if not name.startswith("INFOWAY_")} | {
    "PYTHONUNBUFFERED": "1"
}


@pytest.fixture
def deployment(stack, namespace):
    names = Topology(namespace, intervals=("1m",), windows=("1m",), partitions=1)
    ids = topology.apply(stack.bootstrap, Registry(stack.registry_url), names)
    return Deployment(stack.bootstrap, stack.registry_url, names, ids, embedded=True)


@pytest.fixture
def started(tmp_path):
    """Starts commands, with what they say in a file each, and ends what is left of them."""
    running = []

    def start(name, *arguments, **environment):
        with (tmp_path / f"{name}.log").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "infra", *map(str, arguments)],
                env=BASE | environment, cwd=tmp_path, stdout=output, stderr=output,
            )  # fmt: skip
        running.append(process)
        return process, lambda: (tmp_path / f"{name}.log").read_text(errors="replace")

    yield start
    for each in running:
        if each.poll() is None:
            each.terminate()
            try:
                each.wait(30)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()


@pytest.mark.timeout(400)
def test_a_refused_key_ends_a_producer_with_its_code_and_is_held_if_asked(deployment, started):
    with running_simulator() as simulator:
        arguments = (
            "produce",
            "--symbols",
            "BTCUSDT",
            "--url",
            simulator.url,
            "--prefix",
            deployment.topology.prefix,
        )
        settings = deployment.environment | {"INFOWAY_API_KEY": "bad-key"}
        process, said = started("plain", *arguments, **settings)
        assert process.wait(120) == Code.VENDOR_REFUSED, said()
        assert "the API key was refused" in said()
        process, said = started("held", *arguments, "--hold", **settings)
        assert drill.wait_until(lambda: "held, exit code 3" in said(), 120), said()
        assert "bad-key" not in said()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == Code.VENDOR_REFUSED, said()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("absent", ["INFOWAY_BOOTSTRAP", "INFOWAY_REGISTRY"])
def test_a_cluster_that_is_away_is_a_code_that_may_be_restarted(deployment, started, absent):
    nowhere = {"INFOWAY_BOOTSTRAP": "127.0.0.1:1", "INFOWAY_REGISTRY": "http://127.0.0.1:1"}[absent]
    settings = deployment.environment | {absent: nowhere}
    producer, said = started(
        "produce",
        "produce",
        "--hold",
        "--symbols",
        "BTCUSDT",
        "--url",
        "ws://127.0.0.1:1/ws",
        **settings,
    )
    assert producer.wait(120) == Code.CLUSTER_AWAY, said()
    assert "no answer from" in said()


@pytest.mark.timeout(400)
def test_records_that_an_end_loses_are_its_code_and_a_gap_of_the_next_start(
    stack, deployment, started, tmp_path
):
    spool = tmp_path / "spool"
    with running_simulator(rate=50) as simulator:
        process, said = started(
            "produce",
            "produce",
            "--symbols",
            "BTCUSDT",
            "--url",
            simulator.url,
            **deployment.environment,
            INFOWAY_SPOOL=str(spool),
        )
        assert drill.wait_until(lambda: "publishing simulated data" in said(), 120), said()
        # no file takes more: as on a disk that is full
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
        with away(stack):
            assert drill.wait_until(lambda: "cannot be written" in said(), 120), said()
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == Code.RECORDS_LOST, said()
    assert "records are lost with this process" in said()
    backlog = open_backlog(deployment, "simulated", spool, {})
    entries = []
    while (found := backlog.next()) is not None:
        entries.append(found[1])
    kinds = [read_control(each.headers).kind for each in entries if each.headers]
    assert "gap" in kinds


@pytest.mark.timeout(300)
def test_the_live_view_outlives_a_broker_that_does_not_answer(stack, deployment, monkeypatch):
    monkeypatch.setattr(offsets, "TIMEOUT", 1.0)
    with Board(deployment, ("BTCUSDT",)) as board:
        assert drill.wait_until(lambda: board.lag == 0, 60)
        with away(stack):
            assert drill.wait_until(lambda: board.trouble() is not None, 60)
            assert board.trouble().startswith("no answer from the broker for")
            # its question has failed by now, which once ended everything
            assert drill.wait_until(lambda: "(" in board.trouble(), 60)
        assert drill.wait_until(lambda: board.trouble() is None and board.lag == 0, 60)
    # a thread whose question the broker has not answered yet ends with it
    assert drill.wait_until(
        lambda: not [each for each in threading.enumerate() if each.name == "board"], 30
    )


@pytest.mark.heavy
@pytest.mark.timeout(700)
def test_up_outlives_a_broker_that_is_frozen(tmp_path, started):
    process, said = started(
        "up",
        "up",
        "--data",
        tmp_path / "data",
        "--symbols",
        "BTCUSDT",
        "--intervals",
        "1m",
        "--partitions",
        1,
    )
    assert drill.wait_until(lambda: "lag 0" in said() or process.poll() is not None, 180), said()
    group = kafka_of(process.pid)
    os.killpg(group, signal.SIGSTOP)
    try:
        # 30 s and more: the view's question has timed out
        waits = lambda: re.search(r"no answer from the broker for ([4-9]\d|1\d\d) s", said())  # noqa: E731
        assert drill.wait_until(lambda: waits() or process.poll() is not None, 180), said()
    finally:
        os.killpg(group, signal.SIGCONT)
    assert process.poll() is None, said()
    seen = len(said())
    assert drill.wait_until(lambda: "lag 0" in said()[seen:] or process.poll() is not None, 180), (
        said()
    )
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == Code.DONE, said()
    assert "Traceback" not in said()


def kafka_of(pid):
    """Return the process group of the embedded broker of a process."""
    found, todo = [], [pid]
    while todo:
        children = subprocess.run(
            ["pgrep", "-P", str(todo.pop())], capture_output=True, text=True, check=False
        ).stdout.split()
        found += children
        todo += children
    return next(
        os.getpgid(int(each))
        for each in found
        if b"kafka.Kafka" in Path(f"/proc/{each}/cmdline").read_bytes()
    )


@pytest.mark.timeout(300)
def test_up_says_which_broker_it_uses(deployment, started, tmp_path):
    process, said = started(
        "up", "up", "--data", tmp_path / "data", "--symbols", "BTCUSDT", "--seconds", 1,
        **deployment.environment,
    )  # fmt: skip
    assert process.wait(200) == 0, said()
    assert f"using the broker {deployment.bootstrap}" in said()
    assert "starting broker" not in said()
    assert "ending: feed, processors\n" in said()
