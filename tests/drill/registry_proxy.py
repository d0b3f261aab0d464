"""An HTTP proxy before the registry that refuses, hangs, answers 500 or what is no JSON."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        # a client that was killed or has hung up is what a drill is about
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class RegistryProxy:
    """A running proxy; `how` is what goes wrong just now, empty for nothing."""

    def __init__(self, registry_url: str) -> None:
        self.how = ""
        parts = urlsplit(registry_url)
        upstream, proxy = f"{parts.scheme}://{parts.netloc}", self
        client = httpx.Client(trust_env=False, verify=False, timeout=10)

        class Request(BaseHTTPRequestHandler):
            timeout = 30

            def _pass_on(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                until = time.monotonic() + 20
                while proxy.how == "hang" and time.monotonic() < until:
                    time.sleep(0.1)
                if proxy.how == "refuse":
                    self.close_connection = True
                    return
                if proxy.how == "500":
                    self._answer(500, b"out of order")
                elif proxy.how == "garbage":
                    self._answer(200, b"<html>maintenance</html>")
                else:
                    headers = {
                        name: value
                        for name, value in self.headers.items()
                        if name.lower() in ("content-type", "accept")
                    }
                    try:
                        found = client.request(
                            self.command, upstream + self.path, content=body, headers=headers
                        )
                    except httpx.HTTPError:
                        self.close_connection = True
                        return
                    self._answer(found.status_code, found.content)

            do_GET = do_POST = do_PUT = do_DELETE = _pass_on  # noqa: N815

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = _Server(("127.0.0.1", 0), Request)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}{parts.path}"


@contextmanager
def registry_proxy(registry_url: str) -> Iterator[RegistryProxy]:
    """Run a proxy in a thread of its own."""
    proxy = RegistryProxy(registry_url)
    thread = threading.Thread(target=proxy.server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        thread.join()
        proxy.server.server_close()
