"""What a worker keeps in memory: heaps of threads, and states."""

import ctypes
import os
import re
import subprocess
import sys
import tracemalloc

import orjson
import pytest

from processors.engine.journal import Journal

PROGRAM = """
import ctypes, os, sys, threading
from pathlib import Path
from processors.memory import bound_heaps

if "bound" in sys.argv:
    bound_heaps(os.environ)
together = threading.Barrier(12)

def allocate():
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    for _ in range(100):
        together.wait()
        libc.malloc(20_000)

threads = [threading.Thread(target=allocate) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype, libc.fopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_char_p)
told = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, told)
libc.fclose(told)
"""


def heaps(path, *arguments, **settings):
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), *arguments],
        env=environment | settings,
        check=True,
    )
    return len(re.findall("<heap nr=", path.read_text()))


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_info"), reason="not glibc: no heap of each thread"
)
def test_threads_share_two_heaps_unless_the_environment_says_otherwise(tmp_path):
    assert heaps(tmp_path / "unbound") > 4
    assert heaps(tmp_path / "bound", "bound") == 2
    assert heaps(tmp_path / "told", "bound", MALLOC_ARENA_MAX="4") == 4


def test_a_journal_keeps_of_a_value_what_it_has_and_not_what_it_was_written_into():
    journal = Journal.restored({})
    tracemalloc.start()
    try:
        list(
            journal.written(
                (b"%d" % number, orjson.dumps(["crypto-1", False, number]))
                for number in range(2_000)
            )
        )
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2_000 * 1_000, f"{kept:,} bytes for 2,000 small values"
