"""Powers of ten in words of 64 bits; no arithmetic."""

from typing import Any

import numpy as np

MOST_POWER = 36


def _powers() -> Any:
    mask = (1 << 64) - 1
    words = [[(10**k) & mask, (10**k) >> 64] for k in range(MOST_POWER + 1)]
    return np.array(words, np.uint64)


POWERS = _powers()
"""10^k by k, the low word and the high one."""
