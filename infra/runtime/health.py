"""Liveness, readiness and metrics over HTTP for whoever runs this program; it knows neither feeds
nor workers.

`/livez` answers 200, or 503 where only a new start helps; `/readyz` 200 where the work is being
done, else 503; both say why in a line. `/metrics` is the text format of Prometheus.
"""

import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Protocol

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily, Metric

from schemas.errors import SettingsWrong
from schemas.numbers import whole_number
from schemas.printable import printable

VARIABLE = "INFOWAY_HTTP"


class HttpUnusable(SettingsWrong):
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


def http_address(environment: Mapping[str, str]) -> tuple[str, int] | None:
    """Return the host and port that INFOWAY_HTTP names, None without it; raises HttpUnusable."""
    address = environment.get(VARIABLE, "")
    if not address:
        return None
    host, _, text = address.rpartition(":")
    port = whole_number(text, 0, 65_535)
    if not host or port is None:
        raise HttpUnusable(
            f"{VARIABLE}={address!r}: expected host:port, 127.0.0.1:8080 for instance"
        )
    return host.strip("[]"), port


@contextmanager
def serving(environment: Mapping[str, str], health: Health) -> Iterator[str | None]:
    """Serve at the host:port that INFOWAY_HTTP names, and yield the address; without it serve
    nothing. Raises HttpUnusable."""
    address = http_address(environment)
    if address is None:
        yield None
        return
    host, _ = address
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(health))

    class Request(_Request):
        asked = health
        metrics = registry

    try:
        server = _Server(address, Request)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise HttpUnusable(
            f"{VARIABLE}={environment[VARIABLE]!r}: {reason}: name another address"
        ) from error
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


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        # whoever asked has hung up: nobody is left to be told
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


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
                f"{printable(why_not or 'ok')}\n".encode(),
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
