"""`--hold`: keeps a process that must not be restarted alive and unready, for container runtimes
that restart after any code.

The command runs as a child. This process imports little: it lives as long as the child, beside it.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from infra.runtime.exit_codes import Code, may_restart
from infra.runtime.health import HttpUnusable, Sample, serving

PERIOD = 60.0
"""Seconds between two lines of the log while a process is held."""
COMMANDS = ("produce", "worker")
HOLD = "--hold"

_log = logging.getLogger(__name__)


class HeldProcess:
    """The health of a process that has ended and must not be restarted."""

    def __init__(self, why: str) -> None:
        self._why = why

    def stuck(self) -> str | None:
        """A restart would not help."""
        return None

    def unready(self) -> str | None:
        """Return why the process has ended."""
        return self._why

    def samples(self) -> Iterable[Sample]:
        """Yield the one metric that there is."""
        yield Sample(
            "infoway_held", "gauge", "1 while a process that must not be restarted is held", 1.0
        )


def asked_to_hold(arguments: Sequence[str]) -> bool:
    """Return whether a command line asks to be held."""
    return bool(arguments) and arguments[0] in COMMANDS and HOLD in arguments


def hold(arguments: Sequence[str]) -> int:
    """Run the command without --hold; return its exit code at once if a restart may help, else
    after SIGTERM or Ctrl-C."""
    ended = threading.Event()
    # argparse takes an option that is cut short
    command = [
        sys.executable,
        "-m",
        "infra",
        *(each for each in arguments if not (len(each) > 3 and HOLD.startswith(each))),
    ]
    child: subprocess.Popen[bytes] | None = None

    def forward(number: int, _: object) -> None:
        if number != signal.SIGHUP:
            ended.set()
        if child is not None and child.poll() is None:
            child.send_signal(number)

    # before the child is there: a signal that came between would end this process alone
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, forward)
    # a session of its own: signals reach it through us alone, once
    child = subprocess.Popen(
        command, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=_end_with_parent
    )
    if ended.is_set():
        child.terminate()
    last = _passed_on(child)
    code = child.wait()
    if ended.is_set() or code == Code.DONE or may_restart(code):
        return code if code >= 0 else 128 - code
    _stay(f"held, exit code {code}: a restart would not help: {last}", ended)
    return code


def _passed_on(child: "subprocess.Popen[bytes]") -> str:
    """Copy the child's stderr to ours until it ends; return its last line."""
    assert child.stderr is not None
    last = "no output"
    for line in child.stderr:
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
        last = line.decode(errors="replace").strip() or last
    return last


def _stay(why: str, ended: threading.Event) -> None:
    with ExitStack() as running:
        try:
            running.enter_context(serving(os.environ, HeldProcess(why)))
        except HttpUnusable as error:
            _log.error("%s", error)
        while True:
            _log.error("%s", why)
            if ended.wait(PERIOD):
                return


def _end_with_parent() -> None:
    if sys.platform == "linux":
        import ctypes

        set_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_signal, signal.SIGTERM)
