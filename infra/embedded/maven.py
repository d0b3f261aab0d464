"""Fetches from Maven Central by jgo, each file whole and verified or not at all; not the place of
what is fetched."""

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from jgo.maven import MavenContext, PythonResolver
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from producers.private_folder import private_folder

ATTEMPTS = 3


class Unfetched(Exception):
    """A file did not come, or came damaged.

    No RuntimeError, OSError or ValueError: jgo passes over those in a POM and leaves out what it
    depends on.
    """


def resolve(repository: Path, coordinate: str) -> list[Path]:
    """Return the jar of `group:artifact:version` and those of all that it needs to run, in the
    local `repository`; raises Unfetched.

    One at a time: of several, jgo lets the version rules of each govern all (log4j's replace
    kafka-clients 4.3.1 by 3.9.1).
    """
    with _maven(repository, coordinate) as maven:
        direct, transitive = maven.resolver.resolve([maven.create_dependency(coordinate)])
        wanted = {
            dependency.artifact
            for dependency in (*direct, *transitive)
            if dependency.scope in ("compile", "runtime", None)
        }
        return sorted(artifact.resolve() for artifact in wanted if artifact.packaging == "jar")


def fetch(repository: Path, coordinate: str, classifier: str = "", packaging: str = "jar") -> Path:
    """Return the one file of `group:artifact:version`, in the local `repository`; raises
    Unfetched."""
    group, name, version = coordinate.split(":")
    with _maven(repository, coordinate) as maven:
        path: Path = (
            maven.project(group, name)
            .at_version(version)
            .artifact(classifier=classifier, packaging=packaging)
            .resolve()
        )
        return path


# jgo's own download writes in place and only warns of a wrong checksum: an interrupted file would
# be taken for whole for ever
class _VerifyingResolver(PythonResolver):  # type: ignore[misc]  # jgo has no types that mypy follows
    def __init__(self, http: httpx.Client, progress: Progress) -> None:
        super().__init__()
        self._http = http
        self._progress = progress

    def download(self, artifact: Any) -> Path:
        path: Path = artifact.cached_path
        [repository] = artifact.context.remote_repos.values()
        url = f"{repository}/{artifact.component.path_prefix.as_posix()}/{artifact.filename}"
        private_folder(path.parent)
        partial = path.with_name(path.name + ".partial")
        failure = ""
        for _ in range(ATTEMPTS):
            try:
                checksum = self._http.get(f"{url}.sha1").raise_for_status().text.split()[0]
                received = self._receive(url, partial, shown=artifact.packaging != "pom")
            except httpx.HTTPStatusError as error:
                raise Unfetched(f"{url} answered {error.response.status_code}") from error
            except (httpx.TransportError, OSError) as error:
                failure = repr(error)
                continue
            if received == checksum:
                return partial.rename(path)
            failure = f"its sha1 is {received}, not {checksum}"
        raise Unfetched(f"{artifact.filename}: {failure}")

    def _receive(self, url: str, partial: Path, shown: bool) -> str:
        digest = hashlib.sha1(usedforsecurity=False)
        with self._http.stream("GET", url) as response, partial.open("wb") as file:
            size = int(response.raise_for_status().headers.get("content-length", 0))
            name = url.rpartition("/")[2]
            if shown and self._progress.disable:
                print(f"downloading {name} ({size / 1e6:.1f} MB)", file=sys.stderr, flush=True)
            task = self._progress.add_task(name, total=size or None, visible=shown)
            for chunk in response.iter_bytes():
                file.write(chunk)
                digest.update(chunk)
                self._progress.advance(task, len(chunk))
            self._progress.remove_task(task)
        return digest.hexdigest()


@contextmanager
def _maven(repository: Path, wanted: str) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    terminal = sys.stderr.isatty()
    print(f"fetching {wanted} from Maven Central", file=sys.stderr, flush=True)
    with Progress(*columns, console=Console(stderr=True), disable=not terminal) as progress:
        with httpx.Client(follow_redirects=True, timeout=60) as http:
            yield MavenContext(repo_cache=repository, resolver=_VerifyingResolver(http, progress))
