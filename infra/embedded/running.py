"""The note of a run over a data folder: where it listens, and which process it is; commands in
another terminal find it by that.

Whoever may write into the folder may write the note too. So it holds numbers, a prefix and a few
words of each worker, each of which is checked, and an address is always on loopback.
"""

import json
import os
import re
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

from infra.embedded.ports import LOOPBACK
from producers.private_folder import private_folder
from schemas.errors import SettingsWrong

SOURCES = ("simulated", "live")
"""Folders of the data folder that a run may have: one a source."""
NAME = "running.json"
_LONGEST_NOTE = 1 << 20
_LONGEST_WORDS = 500
_MOST_WORKERS = 1_000
_PREFIX = re.compile(r"[A-Za-z0-9._-]{0,249}", re.ASCII)
_STARTED = re.compile(r"[A-Za-z0-9 :.-]{1,120}", re.ASCII)


class NoRun(SettingsWrong):
    """Nothing runs over a data folder, or more than one run does."""

    def __init__(self, message: str, several: bool = False) -> None:
        super().__init__(message)
        self.several = several


class WorkerState(NamedTuple):
    """What a processors' worker does, for people."""

    slot: str
    text: str
    well: bool
    """Whether it computes, and has not just come back from a failure."""


@dataclass(frozen=True, slots=True)
class StackRun:
    """What runs over a folder. The ports are None if the run uses a named cluster."""

    pid: int
    started: str
    """When the process began, by the kernel: with its number it names one process for good."""
    kafka_port: int | None
    registry_port: int | None
    prefix: str = ""
    page_port: int | None = None
    """Where the live page is served; None if it is not."""
    workers: tuple[WorkerState, ...] = ()
    """What the run's workers do; empty until it has some."""

    @property
    def bootstrap(self) -> str | None:
        """The broker's address."""
        return None if self.kafka_port is None else f"{LOOPBACK}:{self.kafka_port}"

    @property
    def registry_url(self) -> str | None:
        """The registry's address."""
        if self.registry_port is None:
            return None
        return f"http://{LOOPBACK}:{self.registry_port}/apis/ccompat/v7"

    @property
    def page_url(self) -> str | None:
        """The live page's address."""
        return None if self.page_port is None else f"http://{LOOPBACK}:{self.page_port}/"

    @property
    def alive(self) -> bool:
        """Whether the process that wrote the note still runs."""
        return started_at(self.pid) == self.started


@dataclass(frozen=True, slots=True)
class Found:
    """A run and the folder that it runs over."""

    folder: Path
    run: StackRun

    @property
    def source(self) -> str:
        """Where the records come from: the folder's name."""
        return self.folder.name


class Note:
    """This run's note in a folder, which says what the run has now."""

    def __init__(self, folder: Path, run: StackRun) -> None:
        self._folder, self.run = folder, run
        write(folder, run)

    def change(
        self, page_port: int | None = None, workers: Sequence[WorkerState] | None = None
    ) -> None:
        """Write the note anew if it says something else now. A disk that is full ends no run: it is
        tried again at the next call."""
        run = replace(
            self.run,
            page_port=page_port or self.run.page_port,
            workers=self.run.workers if workers is None else tuple(workers),
        )
        if run != self.run:
            with suppress(OSError):
                write(self._folder, run)
                self.run = run


@contextmanager
def noted(folder: Path, run: StackRun) -> Iterator[Note]:
    """Keep a note of this run in `folder` until the block ends."""
    note = Note(folder, run)
    try:
        yield note
    finally:
        # a later run may have written its own
        left = read(folder)
        if left is not None and (left.pid, left.started) == (run.pid, run.started):
            (folder / NAME).unlink(missing_ok=True)


def write(folder: Path, run: StackRun) -> None:
    """Write the note in one step; nobody else on the machine can read it."""
    private_folder(folder)  # with a named cluster nothing else has made it
    # the file's mode is 0600 from the start
    with NamedTemporaryFile("w", dir=folder, prefix=f".{NAME}-", delete=False) as file:
        try:
            json.dump(asdict(run), file)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(folder / NAME)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def read(folder: Path) -> StackRun | None:
    """Return the run that a folder's note names, alive or not; None without a note of ours."""
    try:
        # no link is followed, and a pipe is not waited for
        opened = os.open(folder / NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(opened, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
            return None
        text = file.read(_LONGEST_NOTE + 1)
    if len(text) > _LONGEST_NOTE:
        return None
    try:
        return _checked(json.loads(text))
    except (ValueError, RecursionError):
        return None


def find(data: Path) -> Found:
    """Return the one run over a data folder, or over its folder of one source; raises NoRun."""
    folders = [data, *(data / source for source in SOURCES)]
    notes = [Found(folder, run) for folder in folders if (run := read(folder)) is not None]
    running = [found for found in notes if found.run.alive]
    if len(running) == 1:
        return running[0]
    if running:
        names = " or ".join(f"--data {found.folder}" for found in running)
        raise NoRun(f"more than one run over {data}: name one by {names}", several=True)
    ended = f" (the last one, process {notes[0].run.pid}, has ended)" if notes else ""
    raise NoRun(f"nothing runs over {data}{ended}")


def started_at(pid: int) -> str | None:
    """Return when a process began, as text that no other process of its number has; None if there
    is none."""
    if not Path("/proc/self/stat").exists():
        return _started_by_ps(pid)
    try:
        # the name, in parentheses, may have spaces and parentheses itself
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{_boot()} {ticks}"


def _started_by_ps(pid: int) -> str | None:
    done = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    return " ".join(done.stdout.split()) or None


@cache
def _boot() -> str:
    # ticks count from the boot
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return "boot"


def _checked(value: object) -> StackRun | None:
    if not isinstance(value, dict):
        return None
    pid, started, prefix = value.get("pid"), value.get("started"), value.get("prefix")
    ports = [value.get(name) for name in ("kafka_port", "registry_port", "page_port")]
    if not (type(pid) is int and 1 <= pid < 2**31):
        return None
    if not (isinstance(started, str) and isinstance(prefix, str)):
        return None
    if not (_STARTED.fullmatch(started) and _PREFIX.fullmatch(prefix)):
        return None
    if not all(port is None or (type(port) is int and 1 <= port <= 65_535) for port in ports):
        return None
    workers = _workers(value.get("workers", []))
    if workers is None:
        return None
    kafka_port, registry_port, page_port = ports
    return StackRun(pid, started, kafka_port, registry_port, prefix, page_port, workers)


def _workers(value: object) -> tuple[WorkerState, ...] | None:
    if not isinstance(value, list) or len(value) > _MOST_WORKERS:
        return None
    found: list[WorkerState] = []
    for each in value:
        if not (isinstance(each, list) and len(each) == 3):
            return None
        slot, text, well = each
        if not (isinstance(slot, str) and isinstance(text, str) and isinstance(well, bool)):
            return None
        if max(len(slot), len(text)) > _LONGEST_WORDS:
            return None
        found.append(WorkerState(slot, text, well))
    return tuple(found)
