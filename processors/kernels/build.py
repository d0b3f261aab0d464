"""Compiles every kernel ahead: `python -m processors.kernels.build`, which `make install` and the
image's build run, and each worker whose kernels are missing."""

import fcntl
import gc
import importlib
import logging
import os
import pkgutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from processors import kernels
from processors.kernels import compiled

log = logging.getLogger(__name__)

LONGEST_S = 600.0
"""Seconds that the compiling may take."""


def make_ready() -> None:
    """Have every kernel in this process: those that are missing are compiled in another one first,
    whose memory is free afterwards. None is compiled later."""
    if not compiled.AVAILABLE:
        log.warning("numba has no wheel for this machine: kernels are not used, figures are slower")
        return
    from processors.kernels.cache import COMPLETE, FOLDER

    if FOLDER is not None and not (FOLDER / COMPLETE).is_file():
        log.info("kernels are compiled into %s, once for this version", FOLDER)
        began = time.monotonic()
        if why := _fill_in_another_process():
            log.warning("kernels are compiled in this process, as another one failed: %s", why)
        else:
            log.info("kernels were compiled in %.0f s", time.monotonic() - began)
    load_all()
    # numba has made some 100,000 objects that stay: no collection has to look at them again
    gc.collect()
    gc.freeze()


def _fill_in_another_process() -> str:
    """Return why that failed; empty if it did not."""
    try:
        ended = subprocess.run(
            [sys.executable, "-m", __name__], timeout=LONGEST_S, stderr=subprocess.PIPE, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return ended.stderr.strip().rpartition("\n")[2] if ended.returncode else ""


def load_all() -> None:
    """Import, and load or compile, every kernel."""
    for module in pkgutil.walk_packages(kernels.__path__, f"{kernels.__name__}."):
        if not module.name.endswith(".build"):
            importlib.import_module(module.name)
    for kernel in compiled.KERNELS:
        if kernel.takes is not None and hasattr(kernel.function, "compile"):
            _load(kernel.function, compiled.types_of(kernel.takes))


def _load(function: Any, types: tuple[Any, ...]) -> None:
    if not function._can_compile:
        return  # it was loaded before
    try:
        function.compile(types)
    except OSError as error:
        # the folder is read-only, and what is in it is of another processor's kind after all
        log.warning("kernel %s is compiled in this process: %s", function.__name__, error)
        function._cache.disable()
        function.compile(types)
    function.disable_compile()


def fill() -> Path | None:
    """Compile what is missing in the folder of this version, and return that; None if there is no
    folder to write to. Of several processes one compiles, and the others wait for it."""
    if not compiled.AVAILABLE:
        return None
    from processors.kernels.cache import COMPLETE, FOLDER, clear, finish
    from processors.kernels.exact_types import check

    if FOLDER is None or (FOLDER / COMPLETE).is_file():
        return FOLDER
    lock = os.open(FOLDER.parent / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (FOLDER / COMPLETE).is_file():
            print(f"compiling kernels into {FOLDER}", flush=True)
            # what an earlier try left would come without its types
            clear(FOLDER)
            load_all()
            check([*(kernel.function for kernel in compiled.KERNELS), *compiled.PARTS])
            finish(FOLDER)
    finally:
        os.close(lock)
    return FOLDER


if __name__ == "__main__":
    fill()
