"""Keeps the processors' workers running: one process a slot, restarted with backoff if that can
help."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from infra.embedded.running import WorkerState
from infra.runtime.exit_codes import Code, may_restart
from infra.runtime.inherited import inherited
from infra.runtime.readiness import READY, Reports
from processors.engine.transactions.exits import Exit
from producers.private_folder import private_folder
from schemas.errors import InfowayError

log = logging.getLogger(__name__)

FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 30.0
STEADY = 60.0
"""Seconds after which a worker counts as having run well, and the backoff starts over."""
STOP_TIMEOUT = 6.0


class WorkerFailed(InfowayError):
    """A worker ended with an exit code after which no restart helps; the message has the end of its
    log."""

    def __init__(self, message: str, exit_code: int = Code.FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Supervisor:
    """Workers of one namespace."""

    def __init__(
        self, environment: Mapping[str, str], slots: int, logs: Path, advice: str = ""
    ) -> None:
        """`advice` is what helps, beside what a worker says, where its state or topics do not
        fit."""
        self._environment = inherited(environment)
        self._logs = logs
        self._advice = advice
        self._slots = [_Slot(str(number)) for number in range(slots)]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self.failure: WorkerFailed | None = None
        """Why supervision ended, if it did."""
        self.restarts = 0

    def __enter__(self) -> "Supervisor":
        private_folder(self._logs)
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
        for slot in self._slots:
            slot.close_reports()

    def check(self) -> None:
        """Raise WorkerFailed if a worker has ended for good."""
        if self.failure is not None:
            raise self.failure

    def states(self) -> list[WorkerState]:
        """Return what each worker does now."""
        return [slot.state(time.monotonic()) for slot in self._slots]

    def _watch(self) -> None:
        while not self._stopping.wait(0.1):
            for slot in self._slots:
                try:
                    self._look_after(slot)
                except OSError as error:
                    # no process, memory or file descriptor is left, for now
                    slot.backoff = min(LONGEST_BACKOFF, slot.backoff * 2)
                    slot.start_at = time.monotonic() + slot.backoff
                    log.warning(
                        "processor worker %s cannot be started: %s; again in %.1f s",
                        slot.name,
                        error,
                        slot.backoff,
                    )
                except Exception as error:
                    # this thread's end would leave workers that nobody looks after
                    log.exception("supervisor")
                    self.failure = WorkerFailed(
                        f"processor worker {slot.name} cannot be looked after: {error!r}"
                    )
                    self._stopping.set()
                    return

    def _look_after(self, slot: "_Slot") -> None:
        if slot.process is None:
            if time.monotonic() >= slot.start_at:
                self._start(slot)
        elif (code := slot.process.poll()) is not None:
            self._ended(slot, code)
        elif slot.reports is not None:
            slot.reports.look()

    def _ended(self, slot: "_Slot", code: int) -> None:
        slot.process, slot.last_code = None, code
        slot.close_reports()
        if not may_restart(code) and code != 0:
            advice = self._advice if code == Exit.SETUP_WRONG else ""
            ended = (
                f"processor worker {slot.name} ended with exit code {code}, which no restart mends"
            )
            self.failure = WorkerFailed(f"{ended}: {self._last_line(slot)}{advice}", code)
            self._stopping.set()
            return
        ran = time.monotonic() - slot.started_at
        slot.backoff = FIRST_BACKOFF if ran > STEADY else min(LONGEST_BACKOFF, slot.backoff * 2)
        slot.start_at = time.monotonic() + slot.backoff
        self.restarts += 1
        slot.restarts += 1
        log.warning(
            "processor worker %s ended (%d), restarts in %.1f s: %s",
            slot.name,
            code,
            slot.backoff,
            self._last_line(slot),
        )

    def _start(self, slot: "_Slot") -> None:
        with self._log_of(slot).open("ab") as output:
            slot.log_start = output.tell()
            slot.close_reports()
            reports = slot.reports = Reports()
            slot.process = subprocess.Popen(
                # a session of its own: the terminal's Ctrl-C reaches us alone, and we end the
                # workers in order
                [sys.executable, "-m", "infra.runtime.worker", str(reports.write)],
                env={**self._environment, "INFOWAY_SLOT": slot.name},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=(reports.write,),
            )
        reports.started()
        slot.started_at = time.monotonic()

    def _log_of(self, slot: "_Slot") -> Path:
        return self._logs / f"processors-{slot.name}.log"

    def _last_line(self, slot: "_Slot") -> str:
        try:
            with self._log_of(slot).open("rb") as log_file:
                log_file.seek(slot.log_start)
                said = log_file.read().decode(errors="replace")
            lines = [line for line in said.splitlines() if line.strip()]
        except OSError as error:
            return f"its log cannot be read: {error}"
        telling = [
            line for line in lines if "worker ends" in line or line.startswith("processors:")
        ]
        return (telling or lines or ["no output"])[-1]


class _Slot:
    def __init__(self, name: str) -> None:
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self.reports: Reports | None = None
        self.restarts = 0
        self.last_code = 0
        self.backoff = FIRST_BACKOFF / 2
        self.started_at = 0.0
        self.log_start = 0
        """Where the log of this process begins: before it is that of earlier ones."""
        self.start_at = 0.0

    def state(self, now: float) -> WorkerState:
        """Return what the worker does; one that has just come back counts as well after STEADY
        seconds."""
        # the supervisor's thread may change each of them meanwhile
        process, reports = self.process, self.reports
        if process is None or reports is None:
            return WorkerState(self.name, f"restarting ({self.last_code})", False)
        text = reports.last
        if self.restarts and now - self.started_at < STEADY:
            times = "once" if self.restarts == 1 else f"{self.restarts} times"
            return WorkerState(
                self.name, f"{text}, restarted {times}, last for {self.last_code}", False
            )
        return WorkerState(self.name, text, text == READY)

    def close_reports(self) -> None:
        """Free the pipe of a process that has ended."""
        reports, self.reports = self.reports, None
        if reports is not None:
            reports.close()
