"""The vendor's side of REST, without I/O: a request in, its own envelope or error code out; the
markets are in `history.py`.

Out of scope, as no part of the project asks for them: symbols' details, adjustment factors,
financial statements, plates, rankings.
"""

from collections import deque
from collections.abc import Collection
from typing import Any
from uuid import uuid4

import orjson

from infra.simulator.history import MarketHistory
from infra.simulator.http import PlainRequest
from infra.simulator.protocol import KLINE_TYPES, Limits
from infra.simulator.refusals import HttpError, Refusal

BUSINESSES = frozenset(("stock", "crypto", "common", "japan", "india", "korea", "taiwan"))
MAX_CODES, MAX_KLINES, MAX_KLINES_OF_SEVERAL = 100, 500, 2
_EXPIRES_MS = 4_102_444_800_000
"""2100-01-01: the simulator's package does not end."""


class RestService:
    """Answers for every key but the refused ones."""

    def __init__(
        self, history: MarketHistory, refused_keys: Collection[str], limits: Limits
    ) -> None:
        self._history = history
        self._refused_keys = refused_keys
        self._limits = limits
        self._asked: dict[str, deque[int]] = {}
        """By key, when its last requests came (ms)."""

    def answer(self, request: PlainRequest, now_ms: int) -> tuple[int, bytes]:
        """Return the HTTP status and the JSON; the vendor's status is in `ret`, HTTP is 200
        wherever its service answers."""
        trace = uuid4().hex
        try:
            data = self._data(request, now_ms)
        except Refusal as refusal:
            return 200, orjson.dumps(
                {"ret": refusal.ret, "msg": refusal.text, "traceId": trace, "data": None}
            )
        except HttpError as error:
            return error.status, orjson.dumps(
                {
                    "type": "about:blank",
                    "title": error.text,
                    "status": error.status,
                    "detail": error.text,
                }
            )
        return 200, orjson.dumps({"ret": 200, "msg": "success", "traceId": trace, "data": data})

    def _data(self, request: PlainRequest, now_ms: int) -> Any:
        key = request.headers.get("apikey", "")
        if not key:
            raise Refusal(
                500, "apiKey is required"
            )  # both as the vendor's page on /package/info has them
        if key in self._refused_keys:
            raise Refusal(500, "Apikey not exists")
        asked = self._asked.setdefault(key, deque(maxlen=self._limits.requests))
        if len(asked) == self._limits.requests and now_ms - asked[0] < 1000:
            raise Refusal(501, f"Too many requests：{self._limits.requests} a second")
        asked.append(now_ms)
        match request.method, request.path.strip("/").split("/"):
            case "GET", ["package", "info"]:
                return self._package()
            case "GET", [business, "batch_trade", codes] if business in BUSINESSES:
                return [
                    self._history.trade(business, code, now_ms)
                    for code in self._known(business, codes)
                ]
            case "GET", [business, "batch_depth", codes] if business in BUSINESSES:
                return [
                    self._history.book(business, code, now_ms)
                    for code in self._known(business, codes)
                ]
            case "POST", [business, "v2", "batch_kline"] if business in BUSINESSES:
                return self._klines(business, _fields(request.body), now_ms)
            case "GET", [business, "batch_kline", number, count, codes] if business in BUSINESSES:
                fields = {"klineType": _whole(number), "klineNum": _whole(count), "codes": codes}
                return self._klines(business, fields, now_ms)
        raise HttpError(404, "Not Found")

    def _package(self) -> dict[str, Any]:
        limits = self._limits
        return {
            "packageName": "Simulator",
            "expireTime": _EXPIRES_MS,
            "apiNumPerSec": limits.requests,
            "maxWsConNum": limits.connections,
            "maxNum": limits.a_connection,
            "maxYearHisData": 1,
            "allWsNum": limits.symbols,
        }

    def _known(self, business: str, codes: Any) -> list[str]:
        if not isinstance(codes, str) or not codes.strip():
            raise Refusal(507, "Param lost：codes")
        asked = list(dict.fromkeys(code.strip() for code in codes.split(",") if code.strip()))
        if len(asked) > MAX_CODES:
            raise Refusal(505, f"Products quantity exceeds the limit：{MAX_CODES}")
        known = [code for code in asked if self._history.knows(business, code)]
        if not known:
            raise Refusal(508, "All product not exists")
        return known

    def _klines(self, business: str, request: dict[str, Any], now_ms: int) -> list[dict[str, Any]]:
        number, count, until = (
            request.get("klineType"),
            request.get("klineNum"),
            request.get("timestamp"),
        )
        for name, value in (("klineType", number), ("klineNum", count)):
            if value is None:
                raise Refusal(507, f"Param lost：{name}")
        if (
            type(number) is not int
            or number not in KLINE_TYPES
            or type(count) is not int
            or count < 1
        ):
            raise Refusal(506, "Param error：klineType must be 1 to 12, klineNum positive")
        if until is not None and (type(until) is not int or until <= 0):
            raise Refusal(513, "Timestamp limit error")
        codes = self._known(business, request.get("codes"))
        if count > MAX_KLINES:
            raise Refusal(503, f"Kline quantity exceeds the limit：{MAX_KLINES}")
        if len(codes) > 1 and count > MAX_KLINES_OF_SEVERAL:
            raise Refusal(
                506,
                f"Param error：klineNum exceeds {MAX_KLINES_OF_SEVERAL} when requesting multiple "
                "symbols",
            )
        last = min(until or now_ms // 1000, now_ms // 1000)
        return [
            {
                "s": code,
                "respList": [
                    kline.rest()
                    for kline in self._history.klines(business, code, number, count, last, now_ms)
                ],
            }
            for code in codes
        ]


def _fields(body: bytes) -> dict[str, Any]:
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        request = None
    if not isinstance(request, dict):
        raise HttpError(400, "Bad Request")
    return request


def _whole(text: str) -> int | str:
    """Return a path's number, and the text where it is none: the vendor's answer to that is not
    known, ours is its 506."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text
