"""A server process of ours: its output in a file, ended with us however we end, and told apart from
anyone else's."""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from producers.private_folder import private_folder
from schemas.errors import InfowayError

# The pipe on stdin ends with this process, SIGKILL included; the shell then ends the server: TERM,
# and KILL after 5 s.
_GUARD = """
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
(
    cat <&3
    kill -TERM $server
    tenths=0
    while kill -0 $server && [ $tenths -lt 50 ]; do sleep 0.1; tenths=$((tenths + 1)); done
    kill -KILL $server
) >/dev/null 2>&1 &
wait $server
"""
STOP_TIMEOUT = 6.0


class ServerFailed(InfowayError):
    """A server ended, or was not ready in time; the message has the end of its log."""


class Server:
    """One running server."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        folder: Path,
        keeps: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Start `command` in `cwd`, by default `folder`, with its output in `logs/<name>.log` of
        `folder`; it holds the file descriptors `keeps` until it ends."""
        self.name, self.command = name, command
        self.log = folder / "logs" / f"{name}.log"
        private_folder(self.log.parent)
        # as 10 and above: the guard uses 3 itself
        held = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10) for descriptor in keeps]
        with self.log.open("ab") as output, ExitStack() as ours:
            for descriptor in held:
                ours.callback(os.close, descriptor)
            self._log_start = output.tell()
            # a session of its own: the terminal's Ctrl-C reaches us alone, and we end the servers
            # in order
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, name, *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=held,
                cwd=cwd or folder,
                env=environment,
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
                raise ServerFailed(
                    f"{self.name} ended at its start; the end of {self.log}:\n{self.tail()}"
                )
            if time.monotonic() > deadline:
                raise ServerFailed(
                    f"{self.name} was not ready within {timeout:.0f} s; the end of "
                    f"{self.log}:\n{self.tail()}"
                )
            time.sleep(0.1)

    def tail(self, lines: int = 8) -> str:
        """Return the last lines that the server has logged since its start, without Java's stack
        frames."""
        return "\n".join(
            [
                line
                for line in self.said().splitlines()
                if line.strip() and not line.lstrip().startswith(("at ", "... "))
            ][-lines:]
        )

    def said(self) -> str:
        """Return all that the server has logged since its start."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def stop(self) -> None:
        """End the server and its guard; returns within STOP_TIMEOUT seconds."""
        assert self._process.stdin is not None
        if self.running:
            self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT)
        with suppress(ProcessLookupError):
            os.killpg(
                self._process.pid, signal.SIGKILL
            )  # whatever is left, the guard's own processes too
        self._process.wait()
        self._process.stdin.close()
