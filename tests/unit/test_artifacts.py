"""Downloads of the embedded servers: whole and verified or not kept, once for all processes, and
none from a warm cache."""

import hashlib
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from jgo.maven import MavenContext

from infra.embedded import artifacts, maven
from infra.embedded.artifacts import (
    KAFKA_VERSION,
    REGISTRY_VERSION,
    DownloadFailed,
    kafka_classpath,
    registry_home,
)

JAR = "/org/example/thing/1.0/thing-1.0.jar"


class Central(BaseHTTPRequestHandler):
    """A Maven repository: its files, and faults at some of them."""

    def do_GET(self):  # the name that http.server calls
        self.server.asked[self.path] += 1
        name, _, checksum = (
            self.path.partition(".sha1") if self.path.endswith(".sha1") else (self.path, "", None)
        )
        if name not in self.server.files:
            self.send_error(404)
            return
        body = self.server.files[name]
        if checksum is not None:
            body = hashlib.sha1(body).hexdigest().encode()
        elif name in self.server.damaged:
            body = body[::-1]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = checksum is None and self.server.cuts[name] > 0
        self.server.cuts[name] -= cut
        self.wfile.write(body[: len(body) // 2] if cut else body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def central(monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), Central) as server:
        server.files, server.damaged, server.cuts, server.asked = {}, set(), Counter(), Counter()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(
            maven, "MavenContext", partial(MavenContext, remote_repos={"test": url})
        )
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INFOWAY_CACHE", str(tmp_path))
    return tmp_path


def pom(name, *needs):
    needed = "".join(
        f"<dependency><groupId>org.example</groupId><artifactId>{need}</artifactId><version>1.0</version></dependency>"
        for need in needs
    )
    return (
        "<project "
        'xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>org.example</groupId>'
        f"<artifactId>{name}</artifactId><version>1.0</version><dependencies>{needed}</dependencies></project>"
    ).encode()


def publish(central, name, *needs):
    central.files[f"/org/example/{name}/1.0/{name}-1.0.pom"] = pom(name, *needs)
    central.files[f"/org/example/{name}/1.0/{name}-1.0.jar"] = name.encode() * 1000


def test_a_file_is_fetched_once(central, tmp_path):
    publish(central, "thing")
    for _ in range(2):
        assert maven.fetch(tmp_path, "org.example:thing:1.0").read_bytes() == b"thing" * 1000
    assert central.asked[JAR] == 1


def test_a_jar_comes_with_all_that_it_needs(central, tmp_path):
    publish(central, "thing", "part")
    publish(central, "part", "piece")
    publish(central, "piece")
    assert [jar.name for jar in maven.resolve(tmp_path, "org.example:thing:1.0")] == [
        "part-1.0.jar",
        "piece-1.0.jar",
        "thing-1.0.jar",
    ]


def test_a_file_with_another_checksum_is_never_kept(central, tmp_path):
    publish(central, "thing")
    central.damaged.add(JAR)
    with pytest.raises(maven.Unfetched, match=r"thing-1\.0\.jar: its sha1 is \w+, not \w+"):
        maven.fetch(tmp_path, "org.example:thing:1.0")
    assert not list(tmp_path.rglob("*.jar"))
    central.damaged.clear()
    assert maven.fetch(tmp_path, "org.example:thing:1.0").read_bytes() == b"thing" * 1000


def test_an_interrupted_download_is_made_anew(central, tmp_path):
    publish(central, "thing")
    central.cuts[JAR] = maven.ATTEMPTS - 1
    assert maven.fetch(tmp_path, "org.example:thing:1.0").read_bytes() == b"thing" * 1000


def test_a_download_that_is_always_interrupted_leaves_nothing_that_looks_whole(central, tmp_path):
    publish(central, "thing")
    central.cuts[JAR] = maven.ATTEMPTS
    with pytest.raises(maven.Unfetched, match=r"thing-1\.0\.jar"):
        maven.fetch(tmp_path, "org.example:thing:1.0")
    assert not list(tmp_path.rglob("*.jar"))


@pytest.mark.parametrize("fault", ["missing", "interrupted"])
def test_a_pom_that_does_not_come_is_an_error_and_not_a_shorter_classpath(central, tmp_path, fault):
    publish(central, "thing", "part")
    publish(central, "part", "piece")
    publish(central, "piece")
    if fault == "missing":
        del central.files["/org/example/part/1.0/part-1.0.pom"]
    else:
        central.cuts["/org/example/part/1.0/part-1.0.pom"] = maven.ATTEMPTS
    with pytest.raises(maven.Unfetched, match=r"part-1\.0\.pom"):
        maven.resolve(tmp_path, "org.example:thing:1.0")


def test_a_failed_download_says_what_to_do(central, cache):
    with pytest.raises(
        DownloadFailed,
        match=r"a download from Maven Central failed \(.* answered 404\): check the network and "
        r"try again",
    ):
        registry_home()


def test_a_warm_cache_asks_the_network_nothing(cache, monkeypatch):
    jars = [cache / "maven" / "a.jar", cache / "maven" / "b.jar"]
    home = cache / f"apicurio-{REGISTRY_VERSION}"
    for file in (*jars, home / artifacts.REGISTRY_MAIN):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    (cache / f"kafka-{KAFKA_VERSION}.classpath").write_text("maven/a.jar\nmaven/b.jar\n")
    monkeypatch.setitem(sys.modules, "infra.embedded.maven", None)  # an import of it would fail
    monkeypatch.delattr("infra.embedded.maven")
    assert kafka_classpath() == jars
    assert registry_home() == home


def test_a_jar_that_was_removed_from_the_cache_is_fetched_again(cache, monkeypatch):
    def fetched(repository, name):
        jar = repository / name
        jar.parent.mkdir(parents=True, exist_ok=True)
        jar.touch()
        return jar

    monkeypatch.setattr(maven, "resolve", lambda repository, _: [fetched(repository, "broker.jar")])
    monkeypatch.setattr(maven, "fetch", lambda repository, _: fetched(repository, "logging.jar"))
    jars = kafka_classpath()
    jars[0].unlink()
    assert kafka_classpath() == jars
    assert all(jar.exists() for jar in jars)


def test_two_starts_at_once_download_once(cache, monkeypatch, capfd):
    waiting, calls = threading.Event(), []

    def resolve(repository, _):
        calls.append(repository)
        assert waiting.wait(60)
        jar = repository / "broker.jar"
        jar.parent.mkdir(parents=True)
        jar.touch()
        return [jar]

    def told(*words, **_):
        assert "another process is downloading" in words[0]
        waiting.set()

    monkeypatch.setattr(maven, "resolve", resolve)
    monkeypatch.setattr(maven, "fetch", lambda repository, _: repository / "broker.jar")
    monkeypatch.setattr(artifacts, "print", told, raising=False)
    with ThreadPoolExecutor(2) as both:
        one, other = both.map(lambda _: kafka_classpath(), range(2))
    assert one == other
    assert len(calls) == 1
