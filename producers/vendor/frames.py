"""Reads one frame of the vendor's into a value by its code, or says why it cannot be understood; no
state, no sending."""

from dataclasses import dataclass

import orjson

from producers.vendor.codes import (
    HEARTBEAT,
    HEARTBEAT_REPLY,
    SUBSCRIBE_FAIL,
    UNSUBSCRIBED,
    WELCOME,
    Channel,
    is_error,
)
from producers.vendor.exact_json import Inexact, Json, TooDeep, UnreadableFrame, parse_exactly
from producers.vendor.pushes import Push, read_push

MAX_FRAME = 512 * 1024
"""Bytes; the vendor's frames have under 3 KB, a Kafka record must stay under 1 MB."""

_CHANNEL_OF_PUSH = {channel.push: channel for channel in Channel}
_CHANNEL_OF_ACK = {channel.ack: channel for channel in Channel}
_NOTICES = (WELCOME, HEARTBEAT, HEARTBEAT_REPLY)


class NotJson(UnreadableFrame):
    """No JSON object, and no text of the vendor's that is known."""


class TooLong(UnreadableFrame):
    """More bytes than any frame of the vendor's can have."""


class UnknownCode(UnreadableFrame):
    """A JSON object whose `code` says nothing."""


@dataclass(frozen=True, slots=True)
class Ack:
    """The vendor took a subscription of a channel; it says nothing of the symbols in it. `trace` is
    that of the request, if said."""

    channel: Channel
    trace: str | None


@dataclass(frozen=True, slots=True)
class Notice:
    """A frame that asks for nothing, such as a welcome."""


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """The vendor took an unsubscription; `trace` is that of the request, if said."""

    trace: str | None


@dataclass(frozen=True, slots=True)
class ErrorFrame:
    """An error frame, or a `Subscribe fail:` text (code None where it is prose); `trace` is that of
    the request, if said."""

    code: int | None
    text: str
    trace: str | None


Frame = Push | Ack | Unsubscribed | Notice | ErrorFrame


def read_frame(data: bytes, latest: int, greeting: bool) -> Frame:
    """Return what a frame says; raises UnreadableFrame.

    latest    ms UTC: the greatest time that a record may have
    greeting  whether plain text may still be the vendor's greeting: on `stock`, before any JSON
    """
    if len(data) > MAX_FRAME:
        raise TooLong(f"{len(data)} bytes: the longest frame taken has {MAX_FRAME}")
    try:
        return _read(data, latest, greeting)
    except RecursionError:
        # orjson takes more levels than Python can show or parse
        raise TooDeep from None


def _read(data: bytes, latest: int, greeting: bool) -> Frame:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return _read_text(data, greeting, error)
    if type(document) is not dict:
        raise NotJson(f"a JSON {type(document).__name__} where an object is expected")
    code = document.get("code")
    if type(code) is not int:
        raise UnknownCode(f"code is {code!r:.60}: expected an integer")
    if code in _CHANNEL_OF_PUSH:
        try:
            return read_push(_CHANNEL_OF_PUSH[code], document, latest, exact=False)
        except Inexact:
            return read_push(_CHANNEL_OF_PUSH[code], parse_exactly(data), latest, exact=True)
    if code in _CHANNEL_OF_ACK:
        return Ack(_CHANNEL_OF_ACK[code], _trace(document))
    if code == UNSUBSCRIBED:
        return Unsubscribed(_trace(document))
    if is_error(code):
        return _refusal(code, document)
    if code in _NOTICES:
        return Notice()
    raise UnknownCode(f"code {code} is not known")


def _read_text(data: bytes, greeting: bool, error: orjson.JSONDecodeError) -> Frame:
    text = data.strip()
    if text.startswith(SUBSCRIBE_FAIL):
        rest = text.removeprefix(SUBSCRIBE_FAIL).strip()
        try:
            document = orjson.loads(rest)
        except orjson.JSONDecodeError:
            return ErrorFrame(None, rest.decode(errors="replace"), None)
        if type(document) is dict and type(document.get("code")) is int:
            return _refusal(document["code"], document)
        return ErrorFrame(None, rest.decode(errors="replace"), None)
    if greeting and _is_prose(text):
        return Notice()
    raise NotJson(f"not JSON: {error.msg} at {error.pos}")


def _is_prose(text: bytes) -> bool:
    words = text.decode(errors="replace")
    return (
        words.isprintable()
        and "\N{REPLACEMENT CHARACTER}" not in words
        and words[:1] not in ("", "{", "[", '"')
    )


def _refusal(code: int, document: Json) -> ErrorFrame:
    return ErrorFrame(code, str(document.get("msg") or ""), _trace(document))


def _trace(document: Json) -> str | None:
    # what production answers has been seen with either name
    trace = document.get("trace", document.get("traceId"))
    return trace if type(trace) is str else None
