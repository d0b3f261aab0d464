"""A run in the background: started as a process of its own, and found by its note."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from infra.embedded.running import StackRun, read, started_at
from infra.runtime.deployment import Deployment
from infra.runtime.exit_codes import Code
from producers.private_folder import private_folder
from schemas.printable import printable

DETACH, STATUS_ONLY = "--detach", "--status-only"
LOG = "up.log"


def this_run(deployment: Deployment) -> StackRun:
    """Return this process as what runs over a data folder; the ports of servers of its own."""
    ports: tuple[int | None, int | None] = None, None
    if deployment.embedded:
        ports = (
            int(deployment.bootstrap.rpartition(":")[2]),
            urlsplit(deployment.registry_url).port,
        )
    return StackRun(os.getpid(), started_at(os.getpid()) or "", *ports, deployment.topology.prefix)


def detached(folder: Path, arguments: Sequence[str], last: tuple[str, ...] = ()) -> int:
    """Start the command line without DETACH in the background, over `folder`; return once it runs
    and has said a line that begins with one of `last`, if there are any.

    What it says until then is printed here too. Returns its exit code if it ends before it runs.
    """
    logs = folder / "logs"
    private_folder(logs)
    # argparse takes an option that is cut short
    kept = [each for each in arguments if not (len(each) > 3 and DETACH.startswith(each))]
    with (logs / LOG).open("ab") as output:
        place = output.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "infra", *kept, STATUS_ONLY],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # the end of this terminal is not its end
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        with (logs / LOG).open("rb") as said:
            said.seek(place)
            is_last = not last
            while process.poll() is None and not (is_last and _runs(folder, process.pid)):
                for line in _relayed(said):
                    is_last = is_last or line.startswith(last)
                time.sleep(0.1)
            list(_relayed(said))
    except BaseException:
        # a Ctrl-C while it starts ends it too
        process.terminate()
        process.wait()
        raise
    if (code := process.poll()) is not None:
        if code == Code.DONE:
            # it was told to end while it started
            return Code.FAILED
        return code if code >= 0 else 128 - code
    print(
        f"process {process.pid} runs over {folder} in the background: `infoway-streams status` "
        "shows it, `down` ends it",
        flush=True,
    )
    return Code.DONE


def _runs(folder: Path, pid: int) -> bool:
    run = read(folder)
    return run is not None and run.pid == pid and run.alive


def _relayed(said: BinaryIO) -> Iterator[str]:
    """Print what was said since, and yield its lines."""
    for line in said.read().decode(errors="replace").splitlines():
        print(printable(line), flush=True)
        yield line
