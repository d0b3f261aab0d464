"""Writes the parts of docs/ that are made from the code, for `make docs`:
`python -m infra.docs FOLDER`."""

import sys
from pathlib import Path

from infra.docs import metrics, settings
from infra.runtime import exit_tables


def write(folder: Path) -> None:
    """Write the page of settings, and the tables within docs/operations.md."""
    (folder / "configuration.md").write_text(settings.page(), encoding="utf-8")
    operations = folder / "operations.md"
    text = operations.read_text(encoding="utf-8")
    operations.write_text(metrics.updated(exit_tables.updated(text)), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
