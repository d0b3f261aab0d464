"""Workers are restarted by their exit codes, and the page of operations has these."""

import subprocess
import threading
import time
from pathlib import Path

import pytest

from infra.runtime import exit_tables, supervisor
from infra.runtime.supervisor import Supervisor, WorkerFailed
from processors.engine.transactions.exits import Exit

START = subprocess.Popen


@pytest.fixture
def workers(monkeypatch, tmp_path):
    """Runs one worker that ends with each code in turn, and then runs on."""
    monkeypatch.setattr(supervisor, "FIRST_BACKOFF", 0.01)
    monkeypatch.setattr(supervisor, "LONGEST_BACKOFF", 0.02)

    def run(*codes, advice=""):
        left, done = list(codes), threading.Event()

        def start(_, **how):
            code = left.pop(0) if left else "stays"
            if code == "stays":
                done.set()
            script = (
                "echo 'worker ends'; sleep 60"
                if code == "stays"
                else f"echo 'worker ends: why'; {ending(code)}"
            )
            return START(["sh", "-c", f"exec 2>&1; {script}"], **how)

        monkeypatch.setattr(supervisor.subprocess, "Popen", start)
        return Supervisor({}, 1, tmp_path / "logs", advice), done

    return run


def ending(code):
    return f"kill -{-code} $$" if code < 0 else f"exit {code}"


def test_whatever_a_restart_may_mend_is_restarted(workers):
    codes = [0, 1, -9, 137, *(code for code in Exit if code.restart)]
    running, done = workers(*codes)
    with running:
        assert done.wait(60)
        running.check()
    assert running.restarts == len(codes)


@pytest.mark.parametrize("code", [code for code in Exit if not code.restart])
def test_what_no_restart_mends_is_said_with_its_code_and_advice(workers, code):
    running, done = workers(code, advice="; or name another folder by --data")
    with running:
        give_up = time.monotonic() + 60
        while running.failure is None:
            assert time.monotonic() < give_up
            time.sleep(0.01)
        with pytest.raises(
            WorkerFailed,
            match=f"worker 0 ended with exit code {code}, which no restart mends: worker ends: why",
        ) as raised:
            running.check()
    assert raised.value.exit_code == code
    assert ("--data" in str(raised.value)) == (code == Exit.SETUP_WRONG)
    assert not done.is_set()


def test_the_page_of_operations_has_the_codes_of_the_code():
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    assert page == exit_tables.updated(page), (
        "stale: run `python -m infra.runtime.exit_tables docs/operations.md`"
    )
    for codes in exit_tables.TABLES.values():
        assert all(f"| {code.value} | {code.name} | " in page for code in codes)
