"""Kafka and Apicurio from Maven Central, fetched once into a cache of the user's; a second start asks the network nothing."""

import fcntl
import json
import os
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

KAFKA = ("org.apache.kafka", "kafka_2.13", "4.3.1")
REGISTRY = ("io.apicurio", "apicurio-registry-app", "3.3.3")
REGISTRY_MAIN = "quarkus-run.jar"


class DownloadFailed(RuntimeError):
    """Maven Central is out of reach, or sent something else than was asked for."""


def cache_folder() -> Path:
    """Return the cache: INFOWAY_CACHE, else the user's cache folder."""
    named = os.environ.get("INFOWAY_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(named) if named else Path(base) / "infoway-streams"


def kafka_classpath() -> list[Path]:
    """Return the jars of the broker, downloading what is missing; raises DownloadFailed."""
    with _locked() as cache:
        listed = cache / f"kafka-{KAFKA[2]}.json"
        if not listed.exists():
            jars = _resolve(cache, KAFKA)
            _write(listed, json.dumps([str(jar.relative_to(cache)) for jar in jars]))
        return [cache / jar for jar in json.loads(listed.read_text())]


def registry_home() -> Path:
    """Return the folder of the unpacked registry, downloading it where it is missing; raises DownloadFailed."""
    with _locked() as cache:
        home = cache / f"apicurio-{REGISTRY[2]}"
        if not home.exists():
            archive = _download(cache, REGISTRY, classifier="all", packaging="tar.gz")
            unpacking = home.with_suffix(".unpacking")
            with tarfile.open(archive) as tar:
                tar.extractall(unpacking, filter="data")
            unpacking.rename(home)
        return next(home.rglob(REGISTRY_MAIN)).parent


def _resolve(cache: Path, coordinate: tuple[str, str, str]) -> list[Path]:
    with _maven(cache) as maven:
        direct, transitive = maven.resolver.resolve([maven.create_dependency(":".join(coordinate))])
        wanted = {dependency.artifact for dependency in (*direct, *transitive) if dependency.scope in ("compile", "runtime", None)}
        return sorted(artifact.resolve() for artifact in wanted if artifact.packaging == "jar")


def _download(cache: Path, coordinate: tuple[str, str, str], classifier: str, packaging: str) -> Path:
    with _maven(cache) as maven:
        component = maven.project(*coordinate[:2]).at_version(coordinate[2])
        path: Path = component.artifact(classifier=classifier, packaging=packaging).resolve()
        return path


@contextmanager
def _maven(cache: Path) -> Iterator[Any]:
    # imported here: a start from the cache does not pay for it
    from jgo.maven import MavenContext, PythonResolver

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:

        @contextmanager
        def report(name: str, size: int) -> Iterator[Any]:
            if not sys.stderr.isatty():
                print(f"downloading {name} ({size / 1e6:.1f} MB)", file=sys.stderr, flush=True)
            task = progress.add_task(name, total=size or None)
            yield lambda count: progress.advance(task, count)
            progress.remove_task(task)

        try:
            yield MavenContext(repo_cache=cache / "maven", resolver=PythonResolver(progress_callback=report), timeout=60)
        except (OSError, RuntimeError) as error:
            raise DownloadFailed(
                f"a download from Maven Central failed ({error}): check the network and try again, what has arrived is kept"
            ) from error


@contextmanager
def _locked() -> Iterator[Path]:
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield cache


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.rename(path)
