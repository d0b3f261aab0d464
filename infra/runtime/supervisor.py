"""Keeps the processors' workers running: one process a slot, started anew with backoff where that can help."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from processors.engine.exits import Exit
from schemas.security import without

log = logging.getLogger(__name__)

FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 30.0
STEADY = 60.0
"""Seconds after which a worker counts as having run well, and the backoff starts over."""
STOP_TIMEOUT = 6.0


class WorkerFailed(RuntimeError):
    """A worker ended with an exit code that starting anew cannot mend; the message has the end of its log."""


class Supervisor:
    """Workers of one namespace."""

    def __init__(self, environment: Mapping[str, str], slots: int, logs: Path) -> None:
        # the processors have no business with the vendor's key, and the address of INFOWAY_HTTP is the producer's
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("INFOWAY_API_KEY", "INFOWAY_HTTP"))
        }
        if environment.get("INFOWAY_BOOTSTRAP") != os.environ.get("INFOWAY_BOOTSTRAP"):
            inherited = without(inherited)  # they are another cluster's, not the embedded one's
        self._environment = inherited | dict(environment)
        self._logs = logs
        self._slots = [_Slot(str(number)) for number in range(slots)]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self.failure: WorkerFailed | None = None
        """Why supervision ended, where it did."""
        self.restarts = 0

    def __enter__(self) -> "Supervisor":
        self._logs.mkdir(parents=True, exist_ok=True)
        for slot in self._slots:
            self._start(slot)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        running = [slot.process for slot in self._slots if slot.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning(
                    "worker %d did not stop within %.0f s: killed", process.pid, STOP_TIMEOUT
                )
                process.kill()
                process.wait()

    def check(self) -> None:
        """Raise WorkerFailed where a worker has ended for good."""
        if self.failure is not None:
            raise self.failure

    def _watch(self) -> None:
        while not self._stopping.wait(0.1):
            for slot in self._slots:
                if slot.process is None:
                    if time.monotonic() >= slot.start_at:
                        self._start(slot)
                elif (code := slot.process.poll()) is not None:
                    self._ended(slot, code)

    def _ended(self, slot: "_Slot", code: int) -> None:
        slot.process = None
        # a negative code is a signal from outside (the OOM killer, an operator): starting anew can help
        if code > 0 and not (code in Exit._value2member_map_ and Exit(code).restart):
            self.failure = WorkerFailed(
                f"processor worker {slot.name} ended with exit code {code}: {self._last_line(slot)}"
            )
            self._stopping.set()
            return
        ran = time.monotonic() - slot.started_at
        slot.backoff = FIRST_BACKOFF if ran > STEADY else min(LONGEST_BACKOFF, slot.backoff * 2)
        slot.start_at = time.monotonic() + slot.backoff
        self.restarts += 1
        log.warning(
            "processor worker %s ended (%d), starts anew in %.1f s: %s",
            slot.name,
            code,
            slot.backoff,
            self._last_line(slot),
        )

    def _start(self, slot: "_Slot") -> None:
        with self._log_of(slot).open("ab") as output:
            slot.process = subprocess.Popen(
                # a session of its own: the terminal's Ctrl-C reaches us alone, and we end the workers in order
                [sys.executable, "-m", "infra.worker"],
                env={**self._environment, "INFOWAY_SLOT": slot.name},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        slot.started_at = time.monotonic()

    def _log_of(self, slot: "_Slot") -> Path:
        return self._logs / f"processors-{slot.name}.log"

    def _last_line(self, slot: "_Slot") -> str:
        lines = [
            line
            for line in self._log_of(slot).read_text(errors="replace").splitlines()
            if line.strip()
        ]
        telling = [
            line for line in lines if "worker ends" in line or line.startswith("processors:")
        ]
        return (telling or lines or ["no output"])[-1]


class _Slot:
    def __init__(self, name: str) -> None:
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self.backoff = FIRST_BACKOFF / 2
        self.started_at = 0.0
        self.start_at = 0.0
