"""The vendor's REST: the package of a key and klines of the past, within its requests a second; no WebSocket, no Kafka."""

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from producers.answers import Kline, RestError, one_line, read_envelope, read_klines, read_package
from producers.codes import KLINE_TYPES
from producers.plan import FREE, Package
from producers.secret import Secret
from producers.symbols import BUSINESSES
from schemas.control import KLINE_LENGTHS

LIVE_REST = "https://data.infoway.io"
MAX_KLINES = 500
"""Klines that the vendor gives of one symbol in one request."""
ATTEMPTS = 4

_TIMEOUT = 10.0
_MARGIN = 1.05
"""Times the interval that the package allows: requests may come closer to each other at the vendor than they went."""
_BACKOFF_BASE = 1.0


class Pace:
    """A token bucket that holds one token: `rate` requests a second, never two at once, for any threads."""

    def __init__(
        self, rate: int, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()
        self._turn = threading.Lock()

    def wait(self) -> None:
        """Sleep until a request may go, and count it."""
        with self._turn:
            pause = self._free_at - self._clock()
            if pause > 0:
                self._sleep(pause)
            self._free_at = max(self._clock(), self._free_at) + _MARGIN / self.rate


_paces: dict[tuple[object, ...], Pace] = {}
"""By address, key and clock: the vendor counts a key's requests, whichever of a process's clients makes them."""


class Rest:
    """A client for one thread. Raises RestError where the address or the key cannot be one; asks nothing yet.

    Until the package is known it keeps to the smallest one's requests a second; clients of one key share them.
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
        # The vendor's pages write apiKey, infoway-sdk sends apikey: HTTP takes any case. A redirect would carry the key to
        # another host; a proxy of the environment must not stand before a simulator on loopback.
        self._http = httpx.Client(
            base_url=url,
            headers={"apiKey": api_key},
            timeout=_TIMEOUT,
            follow_redirects=False,
            trust_env=url.host not in ("127.0.0.1", "localhost", "::1"),
            transport=transport,
        )

    def __enter__(self) -> "Rest":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def package_info(self) -> Package:
        """Return the quotas of this key, and keep to its requests a second from here on; raises RestError."""
        path = "/package/info"
        package = read_package(path, self._call("GET", path))
        self._pace.rate = package.requests
        return package

    def klines(
        self, business: str, symbol: str, interval: str, count: int, until_ms: int | None = None
    ) -> list[Kline]:
        """Return the last `count` klines (at most 500), oldest first; with `until_ms` (UTC) those up to that time.

        Raises ValueError for arguments that the vendor does not take, RestError for its answers; code 508: no such symbol.
        """
        if business not in BUSINESSES or interval not in KLINE_TYPES or not 0 < count <= MAX_KLINES:
            raise ValueError(
                f"{count} klines of {business} {symbol} {interval}: name a business, an interval, 1 to {MAX_KLINES}"
            )
        body: dict[str, Any] = {
            "codes": symbol,
            "klineType": KLINE_TYPES[interval],
            "klineNum": count,
        }
        if until_ms is not None:
            if interval not in KLINE_LENGTHS:
                raise ValueError(
                    f"klines of {interval} until a time: the vendor takes a time for {', '.join(KLINE_LENGTHS)} only"
                )
            body["timestamp"] = until_ms // 1000
        # {market} of the protocol's notes is the business: infoway-sdk has the same seven names in its paths
        path = f"/{business}/v2/batch_kline"
        return read_klines(path, symbol, interval, self._call("POST", path, body))

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
        # no error of httpx's is chained: its request bears the key
        try:
            response = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            reason = one_line(self._secret.scrub(str(error))) or type(error).__name__
            raise RestError(
                f"no answer from {self._http.base_url} ({reason}): is the address right, and the network up?",
                retryable=isinstance(error, httpx.TransportError),
            ) from None
        return read_envelope(path, response.status_code, self._secret.scrub(response.text))


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
