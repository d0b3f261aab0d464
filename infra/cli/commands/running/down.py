"""`infoway-streams down`: ends what runs over a data folder, in order, and nothing else."""

import argparse
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from infra.cli.cluster import DATA
from infra.cli.command import Command
from infra.embedded.running import Found, NoRun, StackRun, find
from infra.runtime.exit_codes import Code
from schemas.errors import InfowayError

PATIENCE = 60.0
"""Seconds that a run has for its end: feed, workers and servers take some seconds each."""


class StillRunning(InfowayError):
    """A run does not end."""


@dataclass(frozen=True, slots=True)
class DownOptions:
    """What `down` was given."""

    data: Path


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument(
        "--data", type=Path, default=DATA, help="data folder of the run (default: data)"
    )


def down(options: DownOptions) -> int:
    """End the run and wait until it has ended; nothing to end is no failure. Raises StillRunning,
    and NoRun if more than one runs there."""
    try:
        found = find(options.data)
    except NoRun as error:
        if error.several:
            raise
        print(error)
        return Code.DONE
    end(found)
    print(f"process {found.run.pid} over {found.folder} has ended; the data stays there")
    return Code.DONE


def end(found: Found, patience: float = PATIENCE) -> None:
    """Tell a run to end, and return once it has; raises StillRunning."""
    _tell(found.run)
    deadline = time.monotonic() + patience
    while found.run.alive:
        if time.monotonic() > deadline:
            raise StillRunning(
                f"process {found.run.pid} has not ended within {patience:.0f} s: see what "
                f"`infoway-streams logs --data {found.folder}` says"
            )
        time.sleep(0.05)


def _tell(run: StackRun) -> None:
    with suppress(ProcessLookupError):
        if not hasattr(os, "pidfd_open"):
            if run.alive:
                os.kill(run.pid, signal.SIGTERM)
            return
        # the number may have gone to another process since: the handle stays with the one that is
        # looked at
        handle = os.pidfd_open(run.pid)
        try:
            if run.alive:
                signal.pidfd_send_signal(handle, signal.SIGTERM)
        finally:
            os.close(handle)


COMMAND = Command(
    "down",
    "end what runs over the data folder",
    "down",
    add_options,
    DownOptions,
    down,
)
