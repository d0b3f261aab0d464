"""Liveness, readiness and metrics over HTTP for whoever runs this program; it knows neither feeds nor workers.

`/livez` answers 200, or 503 where only a new start helps; `/readyz` 200 where the work is being done, else 503; both say why in a line.
`/metrics` is the text format of Prometheus.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Protocol

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily, Metric

VARIABLE = "INFOWAY_HTTP"


class HttpUnusable(ValueError):
    """INFOWAY_HTTP names no address, or one that cannot be had."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A metric's value; a counter's name is shown with `_total`."""

    name: str
    kind: Literal["counter", "gauge"]
    meaning: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


class Health(Protocol):
    """What is asked at every request, in a thread of the server's."""

    def stuck(self) -> str | None:
        """Return why only a new start can help, or None."""

    def unready(self) -> str | None:
        """Return why the work is not being done, or None."""

    def samples(self) -> Iterable[Sample]:
        """Return the metrics as they are now."""


@contextmanager
def serving(environment: Mapping[str, str], health: Health) -> Iterator[str | None]:
    """Serve at the host:port that INFOWAY_HTTP names, and yield the address; without it serve nothing. Raises HttpUnusable."""
    place = environment.get(VARIABLE, "")
    if not place:
        yield None
        return
    host, _, port = place.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise HttpUnusable(f"{VARIABLE}={place!r}: give host:port, 127.0.0.1:8080 for instance")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(health))

    class Request(_Request):
        asked = health
        metrics = registry

    try:
        server = ThreadingHTTPServer((host.strip("[]"), int(port)), Request)
    except OSError as error:
        raise HttpUnusable(f"{VARIABLE}={place}: {error.strerror}: name another address") from error
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="http", daemon=True)
    thread.start()
    try:
        yield f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Collector:
    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for sample in self._health.samples():
            family = families.get(sample.name)
            if family is None:
                make = CounterMetricFamily if sample.kind == "counter" else GaugeMetricFamily
                family = families[sample.name] = make(
                    sample.name, sample.meaning, labels=sorted(sample.labels)
                )
            family.add_metric(
                [sample.labels[label] for label in sorted(sample.labels)], sample.value
            )
        yield from families.values()


class _Request(BaseHTTPRequestHandler):
    asked: Health
    metrics: CollectorRegistry
    timeout = 5.0

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, generate_latest(self.metrics), CONTENT_TYPE_LATEST)
        elif path in ("/livez", "/readyz"):
            why_not = self.asked.stuck() if path == "/livez" else self.asked.unready()
            self._answer(
                200 if why_not is None else 503,
                f"{why_not or 'ok'}\n".encode(),
                "text/plain; charset=utf-8",
            )
        else:
            self._answer(
                404, b"/livez, /readyz and /metrics are here\n", "text/plain; charset=utf-8"
            )

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no line a request: a probe comes every few seconds."""
