"""A server process: it ends with us however we end, and says why it did not start."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.embedded.process import Server, ServerFailed


def group_members(group):
    return subprocess.run(
        ["pgrep", "-g", str(group)], capture_output=True, text=True, check=False
    ).stdout.split()


def gone(group, within=60):
    deadline = time.monotonic() + within
    while group_members(group):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_stopped_server_leaves_no_process(tmp_path):
    server = Server("sleeper", ["sleep", "1000"], tmp_path)
    assert server.running
    server.stop()
    assert not server.running
    assert gone(server.process_group)
    server.stop()  # once more is no error


def test_a_server_ends_with_a_parent_that_is_killed(tmp_path):
    code = (
        "import sys, pathlib\nfrom infra.embedded.process import Server\n"
        "print(Server('sleeper', ['sleep', '1000'], pathlib.Path(sys.argv[1])).process_group, "
        "flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        group = int(parent.stdout.readline())
        assert group_members(group)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert gone(group)


def test_a_server_that_is_frozen_ends_with_a_parent_that_is_killed(tmp_path):
    code = (
        "import sys, pathlib, psutil\n"
        "from broker import frozen\n"
        "from infra.embedded.process import Server\n"
        "server = Server('sleeper', ['sleep', '1000'], pathlib.Path(sys.argv[1]))\n"
        "children = psutil.Process(server.process_group).children\n"
        "server.wait_ready(lambda: 'sleep' in [each.name() for each in children()], 60)\n"
        "with frozen(server):\n"
        "    print(server.process_group, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    tests = str(Path(__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((tests, str(Path(tests).parent)))},
    ) as parent:
        group = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    # it cannot end by itself: the guard kills it 5 s later
    assert gone(group)


def test_a_server_that_ends_at_its_start_is_quoted_without_stack_frames(tmp_path):
    said = (
        "echo 'Fatal error: port taken'; printf '\\tat "
        "io.netty.Bootstrap.run(Bootstrap.java:1)\\n\\t... 12 more\\n'"
    )
    server = Server("failing", ["sh", "-c", said], tmp_path)
    with pytest.raises(ServerFailed) as raised:
        server.wait_ready(lambda: False, 30)
    assert (
        str(raised.value)
        == f"failing ended at its start; the end of {tmp_path}/logs/failing.log:\nFatal error: "
        "port taken"
    )
    server.stop()


def test_only_what_was_logged_since_the_start_is_quoted(tmp_path):
    for word in ("first", "second"):
        server = Server("echo", ["echo", word], tmp_path)
        with pytest.raises(ServerFailed):
            server.wait_ready(lambda: False, 30)
        server.stop()
    assert server.tail() == "second"
    assert server.log.read_text() == "first\nsecond\n"


def test_a_server_that_is_not_ready_in_time_is_named(tmp_path):
    server = Server("slow", ["sleep", "1000"], tmp_path)
    with pytest.raises(ServerFailed, match="slow was not ready within 0 s"):
        server.wait_ready(lambda: False, 0)
    server.stop()
