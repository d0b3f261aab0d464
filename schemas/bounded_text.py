"""Reads small files that somebody else may have written: never more of them than they may have."""

import errno
from pathlib import Path


def read_text(path: Path, most: int) -> str:
    """Return the UTF-8 text of a file of up to `most` bytes; raises OSError where it has more, and
    UnicodeDecodeError."""
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"has more than {most} bytes", str(path))
    return data.decode()
