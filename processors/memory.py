"""A worker's memory: how glibc's allocator keeps what is freed.

librdkafka's threads and the fetching one allocate and free in turns, blocks of columns up to some
megabytes between small ones. glibc gives each thread a heap of its own, and raises by itself the
size from which a block is returned to the system. Both leave holes (docs/performance.md has what a
worker takes).
"""

import ctypes
from collections.abc import Mapping

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
"""glibc's numbers of these parameters (malloc.h)."""
RETURNED_BYTES = 1 << 20
"""A block of so many bytes and more goes back to the system when it is freed."""
HEAPS = 2


def bound_heaps(environment: Mapping[str, str]) -> None:
    """Set both; what the environment sets of them stays. Nothing happens where the C library is
    another one."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    if "MALLOC_ARENA_MAX" not in environment:
        mallopt(_ARENA_MAX, HEAPS)
    if "MALLOC_MMAP_THRESHOLD_" not in environment:
        mallopt(_MMAP_THRESHOLD, RETURNED_BYTES)
