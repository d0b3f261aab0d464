"""What an embedded stack's data folder was made with: states and topics in it fit no other
intervals and partitions."""

import json
from pathlib import Path

from schemas.topics import Topology


class MadeWith:
    """The settings of a namespace in a data folder."""

    def __init__(self, folder: Path, names: Topology) -> None:
        self._path = folder / "made-with.json"
        partitions = max(topic.partitions for topic in names.topics())
        self._prefix = names.prefix
        self._wanted = {"intervals": ",".join(names.intervals), "partitions": str(partitions)}
        # may be changed from run to run
        self._others = {"windows": ",".join(names.windows), "activity": ",".join(names.activity)}

    def mistakes(self) -> list[str]:
        """Return every setting that does not fit; a folder without a note passes."""
        try:
            found = self._read().get(self._prefix, {})
        except (OSError, ValueError) as error:
            return [f"{self._path} cannot be read ({error}): name another folder by --data"]
        return [
            f"--{name} {wanted}: the data in {self._path.parent} was made with {found[name]}: "
            f"give --{name} {found[name]}, or another folder by --data"
            for name, wanted in self._wanted.items()
            if found.get(name, wanted) != wanted
        ]

    def settings(self) -> dict[str, str]:
        """Return what the folder was made with, by setting; empty where nothing is known of the
        namespace."""
        try:
            found = self._read().get(self._prefix, {})
        except (OSError, ValueError):
            # `mistakes` says so
            return {}
        return {name: text for name, text in found.items() if isinstance(text, str)}

    def note(self) -> None:
        """Write down what the folder is made with."""
        noted = {**self._wanted, **self._others}
        self._path.write_text(json.dumps({**self._read(), self._prefix: noted}))

    def _read(self) -> dict[str, dict[str, str]]:
        if not self._path.exists():
            return {}
        noted = json.loads(self._path.read_text())
        if not (isinstance(noted, dict) and all(isinstance(each, dict) for each in noted.values())):
            raise ValueError("no note of ours")
        return noted
