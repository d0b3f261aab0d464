"""A server process of ours: its output in a file, ended with us however we end, and told apart from anyone else's."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

# The pipe on stdin ends with this process, SIGKILL included; the shell then ends the server.
_GUARD = """
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
(cat <&3 >/dev/null; kill -TERM $server 2>/dev/null; sleep 5; kill -KILL $server 2>/dev/null) >/dev/null 2>&1 &
wait $server
"""
STOP_TIMEOUT = 6.0


class ServerFailed(RuntimeError):
    """A server ended, or was not ready in time; the message has the end of its log."""


class Server:
    """One running server."""

    def __init__(self, name: str, command: Sequence[str | Path], log: Path, environment: dict[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            # a session of its own: the terminal's Ctrl-C reaches us alone, and we end the servers in order
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, name, *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )

    @property
    def process_group(self) -> int:
        """The process group of the server and its guard."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server has not ended."""
        return self._process.poll() is None

    def wait_ready(self, ready: Callable[[], bool], timeout: float) -> None:
        """Return once `ready()` is true; raises ServerFailed."""
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.running:
                raise ServerFailed(f"{self.name} ended at its start; the end of {self.log}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} was not ready within {timeout:.0f} s; the end of {self.log}:\n{self.tail()}")
            time.sleep(0.1)

    def tail(self, lines: int = 8) -> str:
        """Return the last lines of the server's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def ask_to_stop(self) -> None:
        """Send the server its SIGTERM, by way of the guard."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def stop(self) -> None:
        """End the server and its guard; returns within STOP_TIMEOUT seconds."""
        self.ask_to_stop()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT)
        self.kill()  # whatever is left, the guard's own processes too

    def kill(self) -> None:
        """End the server and its guard by SIGKILL."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
