"""Asks the vendor's REST for a key's package and for past klines, within its requests a second."""

import random
import socket
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx

from producers.vendor.answers import (
    BadKline,
    RestError,
    RestKline,
    one_line,
    read_envelope,
    read_klines,
    read_package,
)
from producers.vendor.codes import KLINE_TYPES
from producers.vendor.plan import FREE, Package
from producers.vendor.secret import Secret
from producers.vendor.symbols import BUSINESSES
from schemas.control import KLINE_LENGTHS

LIVE_REST = "https://data.infoway.io"
MAX_KLINES = 500
"""The most klines of a symbol that the vendor returns for one request."""
ATTEMPTS = 4
MAX_BODY = 4 * 1024 * 1024
"""Bytes of an unpacked answer; 500 klines have under 200 KB."""

_TIMEOUT = 10.0
"""Seconds for one piece of an answer."""
_DEADLINE = 30.0
"""Seconds for a whole answer, which may come byte by byte."""
_MARGIN = 1.05
"""Factor on the interval that the package allows: requests may arrive closer together than they
were sent."""
_BACKOFF_BASE = 1.0


class Pace:
    """A token bucket that holds one token: `rate` requests a second, never two at once, for any
    threads."""

    def __init__(
        self, rate: int, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()
        self._turn = threading.Lock()

    def wait(self) -> None:
        """Sleep until a request may be sent, and count it."""
        with self._turn:
            pause = self._free_at - self._clock()
            if pause > 0:
                self._sleep(pause)
            self._free_at = max(self._clock(), self._free_at) + _MARGIN / self.rate


_paces: dict[tuple[object, ...], Pace] = {}
"""By address, key and clock: the vendor counts a key's requests over all clients of a process."""


class Rest:
    """A client for one thread. Raises RestError if the address or the key cannot be valid.

    Until the package is known it keeps to the smallest package's requests a second. Clients of a
    key share these.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        chance: random.Random | None = None,
    ) -> None:
        url = _sound(base_url)
        # httpx would name the whole header in its own error
        self._secret = Secret(api_key)
        if not api_key or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
            raise RestError(
                "the API key is empty or has characters that no key has: check INFOWAY_API_KEY",
                refused=True,
            )
        self._pace = _paces.setdefault(
            (url, api_key, clock, sleep), Pace(FREE.requests, clock, sleep)
        )
        self._sleep = sleep
        self._chance = chance or random.Random()
        # The vendor's pages write apiKey, infoway-sdk sends apikey: HTTP takes any case. A redirect
        # would carry the key to another host; a proxy of the environment must not stand before a
        # simulator on loopback.
        self._http = httpx.Client(
            base_url=url,
            headers={"apiKey": api_key, "Accept-Encoding": "gzip"},
            timeout=_TIMEOUT,
            follow_redirects=False,
            trust_env=url.host not in ("127.0.0.1", "localhost", "::1"),
            transport=transport,
        )

        self._socket: socket.socket | None = None
        """The client's only connection, since it serves one thread."""

    def __enter__(self) -> "Rest":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def package_info(self) -> Package:
        """Return the package of this key, and keep to its requests a second from now on; raises
        RestError."""
        path = "/package/info"
        package = read_package(path, self._call("GET", path))
        self._pace.rate = package.requests
        return package

    def klines(
        self, business: str, symbol: str, interval: str, count: int, until_ms: int | None = None
    ) -> list[RestKline | BadKline]:
        """Return the last `count` klines (at most 500), oldest first, unreadable ones among them;
        with `until_ms` (UTC) up to that time.

        Raises ValueError for arguments that the vendor does not take, RestError for its answers;
        code 508: no such symbol.
        """
        if business not in BUSINESSES or interval not in KLINE_TYPES or not 0 < count <= MAX_KLINES:
            raise ValueError(
                f"{count} klines of {business} {symbol} {interval}: name a business, an "
                f"interval, 1 to {MAX_KLINES}"
            )
        body: dict[str, Any] = {
            "codes": symbol,
            "klineType": KLINE_TYPES[interval],
            "klineNum": count,
        }
        if until_ms is not None:
            if interval not in KLINE_LENGTHS:
                raise ValueError(
                    f"klines of {interval} until a time: the vendor takes a time for "
                    f"{', '.join(KLINE_LENGTHS)} only"
                )
            body["timestamp"] = until_ms // 1000
        # {market} of the protocol's notes is the business: infoway-sdk has the same seven names in
        # its paths
        path = f"/{business}/v2/batch_kline"
        return read_klines(path, symbol, interval, self._call("POST", path, body), until_ms)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        attempt = 0
        while True:
            self._pace.wait()
            try:
                return self._ask(method, path, body)
            except RestError as error:
                attempt += 1
                if not error.retryable or attempt == ATTEMPTS:
                    raise
            self._sleep(self._chance.uniform(0, _BACKOFF_BASE * 2 ** (attempt - 1)))

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        late = threading.Event()

        def cut() -> None:
            late.set()
            if self._socket is not None:
                with suppress(OSError):
                    # not the TLS socket's own, which may be reading in the other thread
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

        def keep_socket(event: str, info: dict[str, Any]) -> None:
            if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
                self._socket = info["return_value"].get_extra_info("socket")
                # the name may have been looked up until now
                if late.is_set():
                    cut()

        deadline = threading.Timer(_DEADLINE, cut)
        deadline.daemon = True
        deadline.start()
        # no error of httpx is chained: its request has the key
        try:
            with self._http.stream(
                method, path, json=body, extensions={"trace": keep_socket}
            ) as response:
                text = _body(path, response)
                return read_envelope(path, response.status_code, self._secret.scrub(text))
        except httpx.HTTPError as error:
            reason = one_line(self._secret.scrub(str(error))) or type(error).__name__
            if late.is_set():
                reason = f"not whole within {_DEADLINE:g} s"
            raise RestError(
                f"no answer from {self._http.base_url} ({reason}): is the address right, and "
                "the network up?",
                retryable=isinstance(error, httpx.TransportError),
            ) from None
        finally:
            deadline.cancel()


def _body(path: str, response: httpx.Response) -> str:
    """Return the body, which httpx would unpack to any size; raises RestError."""
    packing = response.headers.get("content-encoding", "identity").lower()
    if packing not in ("identity", "gzip"):
        raise RestError(
            f"the vendor's REST answered {path} packed as {one_line(packing)}: only gzip is "
            "asked for"
        )
    body = bytearray()
    assert isinstance(response.stream, httpx.SyncByteStream)
    for chunk in response.stream:
        body += chunk
        if len(body) > MAX_BODY:
            raise _too_long(path)
    if packing == "gzip":
        unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            body = bytearray(unpacking.decompress(body, MAX_BODY + 1))
        except zlib.error as error:
            raise RestError(
                f"the vendor's REST answered {path} with what is no gzip ({error})", retryable=True
            ) from None
        if len(body) > MAX_BODY:
            raise _too_long(path)
    return body.decode(errors="replace")


def _too_long(path: str) -> RestError:
    return RestError(
        f"the vendor's REST answered {path} with more than {MAX_BODY} bytes: nothing of it is taken"
    )


def _sound(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
        sound = (
            url.scheme in ("http", "https")
            and url.host
            and not url.query
            and not url.userinfo
            and not url.fragment
        )
    except httpx.InvalidURL:
        sound = False
    if not sound:
        shown = "the REST address" if "@" in base_url else repr(base_url.partition("?")[0])
        raise RestError(f"{shown} is no address of REST: write http://HOST:PORT or {LIVE_REST}")
    return url
