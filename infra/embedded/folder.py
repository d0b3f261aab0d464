"""The lock of a data folder: one stack at a time, its servers included."""

import fcntl
import os
import time
from pathlib import Path
from typing import IO

from infra.embedded.process import STOP_TIMEOUT
from schemas.errors import InfowayError


class FolderInUse(InfowayError):
    """Another stack runs over the same data folder."""


def lock_folder(folder: Path) -> IO[str]:
    """Return the lock of `folder`, held until it is closed here and in every process that it was
    passed on to.

    Waits for the servers of a process that was killed; raises FolderInUse where another process
    holds the folder.
    """
    lock = (folder / ".lock").open("a+")
    deadline = time.monotonic() + STOP_TIMEOUT
    while not _taken(lock):
        lock.seek(0)
        holder = lock.read()
        # where the holder was killed, its servers are ending: worth waiting for
        if _is_running(holder) or time.monotonic() > deadline:
            lock.close()
            raise FolderInUse(
                f"another embedded stack runs over {folder} (process {holder}): stop it, or "
                "name another folder by --data"
            )
        time.sleep(0.1)
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _taken(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass  # it runs, as another user
    return True
