"""The live page as a process of its own beside a running pipeline: the feed and the page do not
wait for each other. It ends nothing if it fails, and is started again."""

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from infra.embedded.ports import LOOPBACK, PortInUse, free_ports
from infra.embedded.process import Server, ServerFailed
from infra.page.running import DEFAULT_PORT, READY
from infra.runtime.inherited import inherited

START_S = 30.0
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 60.0
STEADY_S = 60.0
"""Seconds after which the process counts as having run well, and the backoff starts over."""

_log = logging.getLogger(__name__)


class PageProcess:
    """The page of one deployment, on loopback."""

    def __init__(self, environment: Mapping[str, str], folder: Path, port: int | None) -> None:
        """`environment` names the cluster and its topology; the log is in `folder`. Without a port
        it is the default one, or any that is free. Raises PortInUse for a named port that is
        taken."""
        if port is None:
            try:
                (port,) = free_ports(DEFAULT_PORT)
            except PortInUse:
                port = 0
        (self.port,) = free_ports(port)
        self.url = f"http://{LOOPBACK}:{self.port}/"
        self._environment, self._folder = inherited(environment), folder
        self._backoff = FIRST_BACKOFF_S
        self._start_at = 0.0
        self._server: Server | None = None

    def __enter__(self) -> "PageProcess":
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.stop()

    def wait_ready(self) -> str | None:
        """Wait until the page answers; return None, or why it does not."""
        try:
            if self._server is not None:
                server = self._server
                server.wait_ready(lambda: READY in server.tail(), START_S)
        except ServerFailed as error:
            return str(error)
        return None

    def look_after(self) -> None:
        """Start the process anew if it has ended, with a growing pause."""
        now = time.monotonic()
        if self._server is not None and not self._server.running:
            if now - self._start_at > STEADY_S:
                self._backoff = FIRST_BACKOFF_S
            _log.warning(
                "the live page ended, and starts again in %.0f s: %s",
                self._backoff,
                self._server.tail(1),
            )
            self._server.stop()
            self._server = None
            self._start_at = now + self._backoff
            self._backoff = min(LONGEST_BACKOFF_S, self._backoff * 2)
        elif self._server is None and now >= self._start_at:
            self._start()

    def _start(self) -> None:
        self._start_at = time.monotonic()
        self._server = Server(
            "page",
            [sys.executable, "-m", "infra", "dashboard", "--port", str(self.port)],
            self._folder,
            environment=self._environment,
            cwd=Path.cwd(),
        )
