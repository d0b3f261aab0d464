"""Where compiled kernels are kept: a folder named by the digest of everything that they are made
of, so that what was compiled of other sources is never loaded.

numba's own cache looks at a kernel's own file alone: a change in what it calls, in another file,
would leave it stale. And it takes no folder that it cannot write to, as in a container.
"""

import hashlib
import importlib.util
import os
import platform
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core.caching import _CacheLocator

KERNELS = Path(__file__).parent
COMPLETE = "complete"
"""The name of a file that says that every kernel is in the folder."""
FOLDER_VARIABLE = "INFOWAY_KERNELS"
"""Names the only folder that may hold the folders of digests."""
_INSTALLED = ".compiled"
_SOURCES = ("processors/kernels", "processors/model", "schemas")
_KEPT = 3
_FLAGS = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_BOUNDSCHECK", "NUMBA_OPT")


def digest(environment: Mapping[str, str]) -> str:
    """Return the digest of the sources, the versions and what else decides on the machine code."""
    found = hashlib.sha256()
    facts = [numba.__version__, llvmlite.__version__, np.__version__]
    facts += [sys.version, str(importlib.util.MAGIC_NUMBER), platform.machine(), sys.platform]
    facts += [f"{name}={environment.get(name, '')}" for name in _FLAGS]
    found.update(repr(facts).encode())
    root = KERNELS.parent.parent
    for folder in _SOURCES:
        for path in sorted((root / folder).rglob("*.py")):
            found.update(repr(str(path.relative_to(root))).encode())
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:24]


def parents(environment: Mapping[str, str]) -> Iterator[Path]:
    """Yield the folders that may hold compiled kernels, the best first: beside the sources, where
    an installation puts them, then the user's cache, then one for temporary files."""
    if named := environment.get(FOLDER_VARIABLE):
        yield Path(named)
        return
    yield KERNELS / _INSTALLED
    if named := environment.get("XDG_CACHE_HOME"):
        yield Path(named) / "infoway-streams" / "kernels"
    elif named := environment.get("HOME"):
        yield Path(named) / ".cache" / "infoway-streams" / "kernels"
    yield Path(tempfile.gettempdir()) / f"infoway-streams-{os.geteuid()}" / "kernels"


def find(environment: Mapping[str, str]) -> Path | None:
    """Return the folder with this version's kernels, complete if there is one; else one that can be
    filled, made here; None if there is none."""
    name = digest(environment)
    candidates = [parent / name for parent in parents(environment)]
    for folder in candidates:
        if (folder / COMPLETE).is_file() and trusted(folder):
            return folder
    return next((folder for folder in candidates if _made(folder)), None)


def trusted(folder: Path) -> bool:
    """Return whether nobody but this user and root can write into the folder: what is in it is
    run."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid in (0, os.geteuid())
        and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def clear(folder: Path) -> None:
    """Remove what is in a folder."""
    for file in folder.iterdir():
        file.unlink(missing_ok=True)


def finish(folder: Path) -> None:
    """Note that every kernel is in the folder, and remove those of old versions beside it."""
    (folder / COMPLETE).touch()
    others = sorted(
        (each for each in folder.parent.iterdir() if each.is_dir() and each != folder),
        key=lambda each: each.stat().st_mtime,
    )
    for old in others[: -_KEPT + 1]:
        clear(old)
        old.rmdir()


def _made(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        return False
    return trusted(folder)


FOLDER: Path | None = find(os.environ)
"""Of this process."""


class FolderLocator(_CacheLocator):  # type: ignore[misc]
    """Tells numba where a kernel is kept, and that it is never stale."""

    def __init__(self, function: Any) -> None:
        self._line = function.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        """Return the folder."""
        return str(FOLDER)

    def ensure_cache_path(self) -> None:
        """Do nothing: it was made, or is complete."""

    def get_source_stamp(self) -> str:
        """Return what is the same for all that is in the folder."""
        return str(FOLDER and FOLDER.name)

    def get_disambiguator(self) -> str:
        """Return what tells functions of one name apart."""
        return str(self._line)

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> "FolderLocator":
        """Return the locator of a function."""
        return cls(py_func)
