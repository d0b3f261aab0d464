"""Makes folders that nobody else on the machine can look into: recordings, spools and logs are the
user's own."""

from pathlib import Path


def private_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, with mode 0700; one that is there stays
    as it is.

    Raises OSError as `mkdir` does.
    """
    try:
        folder.mkdir(0o700, exist_ok=True)
    except FileNotFoundError:
        # mkdir(parents=True) would give its mode to the last one only
        private_folder(folder.parent)
        folder.mkdir(0o700, exist_ok=True)
