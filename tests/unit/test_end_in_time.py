"""A command that is told to end and does not come to its end is ended."""

import signal
import subprocess
import sys

import pytest

from infra.runtime.exit_codes import Code

PROGRAM = """
import sys, threading
from infra.runtime.signals import stop_on_signals
stop = stop_on_signals(0.3)
print("up", flush=True)
stop.wait()
if sys.argv[1] == "hangs":
    threading.Event().wait()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("how", "code"), [("hangs", Code.CLUSTER_AWAY), ("ends", Code.DONE)])
def test_a_command_ends_in_time(number, how, code):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert ("told to end, and still here" in said) == (how == "hangs")
