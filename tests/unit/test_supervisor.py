"""Workers are started anew, and a supervisor that can start none says so: its thread does not end
in silence."""

import subprocess
import time

import pytest

from infra.runtime import supervisor
from infra.runtime.supervisor import Supervisor, WorkerFailed


def wait_until(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def starts(monkeypatch):
    """Workers that end at once; what is put in the list is raised at the next start."""
    raised, started, popen = [], [], subprocess.Popen

    def start(command, **options):
        if raised and started:
            raise raised.pop(0)
        started.append(1)
        return popen(["/bin/sh", "-c", "exit 71"], **options)

    monkeypatch.setattr(supervisor.subprocess, "Popen", start)
    monkeypatch.setattr(supervisor, "FIRST_BACKOFF", 0.05)
    monkeypatch.setattr(supervisor, "LONGEST_BACKOFF", 0.1)
    return raised, started


def test_a_worker_that_cannot_be_started_for_now_is_started_later(starts, tmp_path):
    raised, started = starts
    raised += [OSError(11, "Resource temporarily unavailable")] * 2
    with Supervisor({}, 1, tmp_path) as supervised:
        wait_until(lambda: len(started) >= 3)
        supervised.check()
    assert not raised


def test_a_supervisor_that_fails_says_so(starts, tmp_path):
    raised, _ = starts
    raised.append(ValueError("embedded null byte"))
    with Supervisor({}, 1, tmp_path) as supervised:
        wait_until(lambda: supervised.failure)
        with pytest.raises(WorkerFailed, match="embedded null byte"):
            supervised.check()


def test_what_an_earlier_process_said_at_its_end_is_not_said_of_the_next(starts, tmp_path, caplog):
    _, started = starts
    (tmp_path / "processors-0.log").write_text("worker ends (stuck, exit code 75): long ago\n")
    with Supervisor({}, 1, tmp_path):
        wait_until(lambda: len(started) >= 2)
    assert "ended (71)" in caplog.text
    assert "no output" in caplog.text
    assert "long ago" not in caplog.text
