"""Kafka and Apicurio, fetched once into a cache of the user's; a second start asks the network
nothing."""

import fcntl
import os
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from producers.private_folder import private_folder
from schemas.errors import InfowayError

KAFKA_VERSION = "4.3.1"
REGISTRY_VERSION = "3.3.3"
REGISTRY_MAIN = "quarkus-run.jar"
_KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
# Kafka's jar brings log4j without its binding to slf4j, and is then silent, even about why it ends
_KAFKA_LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"
_REGISTRY = f"io.apicurio:apicurio-registry-app:{REGISTRY_VERSION}"

Kept = TypeVar("Kept")


class DownloadFailed(InfowayError):
    """Maven Central is out of reach, or sent something else than was asked for."""


def cache_folder() -> Path:
    """Return the cache: INFOWAY_CACHE, else the user's cache folder."""
    named = os.environ.get("INFOWAY_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(named).resolve() if named else Path(base) / "infoway-streams"


def kafka_classpath() -> list[Path]:
    """Return the jars of the broker, downloading what is missing; raises DownloadFailed."""
    return _cached(_kept_classpath, _fetch_classpath)


def registry_home() -> Path:
    """Return the folder of the unpacked registry, downloading it where it is missing; raises
    DownloadFailed."""
    return _cached(_kept_registry, _fetch_registry)


def _cached(kept: Callable[[Path], Kept | None], fetch: Callable[[Path], Kept]) -> Kept:
    cache = cache_folder()
    found = kept(cache)
    if found is not None:
        return found
    with _locked(cache):
        # another process may have fetched it while this one waited
        found = kept(cache)
        return fetch(cache) if found is None else found


def _kept_classpath(cache: Path) -> list[Path] | None:
    listed = _classpath_list(cache)
    jars = [cache / line for line in listed.read_text().splitlines()] if listed.exists() else []
    return jars if jars and all(jar.exists() for jar in jars) else None


def _fetch_classpath(cache: Path) -> list[Path]:
    # imported here: a start from the cache does not pay for jgo
    from infra.embedded import maven

    with _told(maven.Unfetched):
        jars = [
            *maven.resolve(cache / "maven", _KAFKA),
            maven.fetch(cache / "maven", _KAFKA_LOGGING),
        ]
    partial = _classpath_list(cache).with_suffix(".partial")
    partial.write_text("".join(f"{jar.relative_to(cache)}\n" for jar in jars))
    partial.rename(_classpath_list(cache))
    return jars


def _classpath_list(cache: Path) -> Path:
    return cache / f"kafka-{KAFKA_VERSION}.classpath"


def _kept_registry(cache: Path) -> Path | None:
    home = cache / f"apicurio-{REGISTRY_VERSION}"
    return home if (home / REGISTRY_MAIN).exists() else None


def _fetch_registry(cache: Path) -> Path:
    from infra.embedded import maven

    with _told(maven.Unfetched):
        archive = maven.fetch(cache / "maven", _REGISTRY, "all", "tar.gz")
    home = cache / f"apicurio-{REGISTRY_VERSION}"
    unpacking = home.with_name(f"{home.name}.unpacking")
    for leftover in (unpacking, home):
        shutil.rmtree(leftover, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(unpacking, filter="data")
    unpacking.rename(home)
    archive.unlink()
    return home


@contextmanager
def _told(unfetched: type[Exception]) -> Iterator[None]:
    try:
        yield
    except unfetched as error:
        raise DownloadFailed(
            f"a download from Maven Central failed ({error}): check the network and try again, "
            "what has arrived is kept"
        ) from error


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    private_folder(cache)
    with (cache / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                f"another process is downloading into {cache}: waiting for it",
                file=sys.stderr,
                flush=True,
            )
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
