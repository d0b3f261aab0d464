"""Values of the vendor's JSON as they were written: no number is rounded, no text is changed.

orjson makes a float of a JSON number with a point, which may not be what was written. `Inexact`
then asks for a document parsed with `parse_exactly`.
"""

import json
from typing import Any

import orjson

from schemas.decimals import UNIT, NotADecimal, to_units

_DIGITS_OF_INT64 = 18

Json = dict[str, Any]


class UnreadableFrame(ValueError):
    """A frame that cannot be understood; `symbol` where it could be read."""

    symbol: str | None = None


class BadField(UnreadableFrame):
    """A field that is missing or is not what it has to be."""


class TooDeep(UnreadableFrame):
    """JSON nested deeper than it can be shown or kept."""

    def __init__(self) -> None:
        super().__init__("JSON nested too deep")


class Inexact(Exception):
    """A place was met where orjson may have rounded a number."""


class _Number(str):
    """A JSON number as it was written."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def parse_exactly(data: bytes) -> Json:
    """Return the JSON object of a frame with its numbers as they were written; the bytes have
    passed orjson.

    Raises RecursionError where it is nested deeper than `json` can read.
    """
    document: Json = json.loads(data, parse_float=_Number, parse_int=_Number)
    return document


def whole_number(value: Any) -> int | None:
    """Return a number without a fraction, however it is written: 1, "1", 1.0 (of `parse_exactly`);
    None for anything else.

    Raises Inexact for a float.
    """
    if type(value) is int:
        return value
    text = written(value)
    if text is None:
        return None
    if len(text) <= _DIGITS_OF_INT64 and text.isascii() and text.isdigit():
        return int(text)
    try:
        units = to_units(text)
    except NotADecimal:
        return None
    return None if units % UNIT else units // UNIT


def written(value: Any) -> str | None:
    """Return a string or a JSON number as the vendor wrote it; None for what is neither. Raises
    Inexact."""
    if type(value) is str:
        return value
    # of a zero too: orjson reads -0 as 0
    if type(value) is float or (type(value) is int and value == 0):
        raise Inexact
    return str(value) if type(value) in (int, _Number) else None


def decimal_text(value: Any, name: str) -> tuple[str, int]:
    """Return a decimal number as the vendor wrote it, and in units; raises BadField and Inexact."""
    text = written(value)
    if text is None:
        raise BadField(f"{name} is {shown(value)}: expected a decimal number")
    try:
        return text, to_units(text)
    except NotADecimal as error:
        raise BadField(f"{name}: {error}") from error


def optional_text(data: Json, name: str, exact: bool) -> str | None:
    """Return a field that is only passed on: text and numbers as they were written, anything else
    as JSON; raises BadField and Inexact."""
    value = data.get(name)
    if value is None or type(value) is str:
        return value
    text = written(value)
    if text is not None:
        return text
    if not exact:
        raise Inexact
    return as_json(value, name)


def as_json(value: Any, name: str) -> str:
    """Return a part of a document that `parse_exactly` has read as JSON, its numbers as they were
    written; raises BadField."""
    try:
        text = orjson.dumps(
            value,
            default=_as_written,
            option=orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_SUBCLASS,
        )
    except orjson.JSONEncodeError as error:
        raise BadField(f"{name} cannot be kept as JSON: {error}") from error
    return text.decode()


def _as_written(number: _Number) -> orjson.Fragment:
    return orjson.Fragment(str(number))


def shown(value: Any) -> str:
    return "missing or null" if value is None else repr(value)[:60]
