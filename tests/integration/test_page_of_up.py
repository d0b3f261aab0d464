"""`up` starts the live page, says where it is in the last line of its start, keeps it running, and
ends it."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from infra.embedded.ports import free_ports


def answers(url):
    try:
        return httpx.get(url, timeout=10).status_code == 200
    except httpx.HTTPError:
        return False


def until(is_true, seconds=120.0):
    give_up = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < give_up
        time.sleep(0.1)


def page_of(running):
    """The page's process among those of `up`."""
    for each in psutil.Process(running.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if each.cmdline()[:1] == [sys.executable] and "dashboard" in each.cmdline():
                return each
    return None


@pytest.fixture
def up(tmp_path):
    """`up` as a process, the lines of its start, and the page's address."""
    (port,) = free_ports(0)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("INFOWAY_")
    }
    running = subprocess.Popen(
        [
            *(sys.executable, "-m", "infra", "up", "--symbols", "BTCUSDT"),
            *("--data", str(tmp_path / "data"), "--page-port", str(port)),
        ],
        env=environment | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = []
    for line in running.stdout:
        lines.append(line.strip())
        if line.startswith(("page ", "no live page")):
            break
    yield running, lines, f"http://127.0.0.1:{port}/"
    if running.poll() is None:
        running.kill()
        running.wait()
    running.stdout.close()


@pytest.mark.heavy
def test_up_serves_the_page_from_its_start_to_its_end(up):
    running, lines, url = up
    assert lines[-1] == f"page {url}"
    assert any(line.startswith("broker ") for line in lines)
    until(lambda: answers(url))
    page_of(running).kill()
    until(lambda: not answers(url))
    until(lambda: answers(url))
    running.send_signal(signal.SIGTERM)
    rest, _ = running.communicate(timeout=120)
    assert running.returncode == 0, rest
    assert not answers(url)
    assert "the live page ended, and starts again" in rest
