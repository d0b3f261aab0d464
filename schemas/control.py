"""Control records of the raw topics: null values whose headers say where a feed began, ended, lived
on or lost something.

They stand in the log among the data, so that a replay meets them where the first reading did. A
consumer that does not care skips null values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import methodcaller
from typing import Any, Literal, Protocol, cast, get_args

Kind = Literal["begin", "end", "mark", "gap", "heal"]


KLINE_LENGTHS = {
    "1m": 60_000, "5m": 300_000, "15m": 900_000, "30m": 1_800_000,
    "1h": 3_600_000, "2h": 7_200_000, "4h": 14_400_000,
}  # fmt: skip
"""Milliseconds of the kline intervals that can heal: epoch-aligned ones, for which the vendor takes
an end time. Where its days, weeks and months begin is not known."""

KINDS: dict[Kind, str] = {
    "begin": "A symbol is subscribed on the feed from ts on.",
    "end": "The symbol's subscription ended in order at ts.",
    "mark": "The feed lived at ts; it has no key and stands in each partition that the feed "
    "writes.",
    "gap": "A loss until ts: of the key's symbol, or without a key of all that the feed has in "
    "the partition.",
    "heal": "The vendor's kline stands in for what an outage cut.",
}
"""What each kind of control record says."""


@dataclass(frozen=True, slots=True)
class Header:
    """One header of control records: what it says, and which kinds bear it always and which where
    it is known."""

    name: str
    doc: str
    always: tuple[Kind, ...] = get_args(Kind)
    where_known: tuple[Kind, ...] = ()


HEADERS = (
    Header("control", "The kind of the record."),
    Header("feed", "Name of the feed."),
    Header("business", "The vendor's business that the feed carries."),
    Header(
        "connection",
        "Id of the connection; of a heal an id of the REST call's, that of no connection.",
    ),
    Header("source", "live, simulated, replay or rest; of a heal always rest."),
    Header(
        "ts",
        "By the producer's clock at receipt; of a mark the vendor's time: that of the feed's "
        "last push, and what has passed since; "
        "of a heal the kline's end. Unit: ms since 1970-01-01 UTC.",
    ),
    Header("ts_recv", "When it was made, by the producer's clock. Unit: us since 1970-01-01 UTC."),
    Header(
        "ts_from",
        "Start of the loss; of a begin the time up to which its feed is known to have seen all. "
        "Unit: ms since 1970-01-01 UTC.",
        always=(),
        where_known=("begin", "gap"),
    ),
    Header("reason", "Why, in words.", always=(), where_known=("gap",)),
    Header(
        "kline",
        "JSON object: interval, ts_start (ms since 1970-01-01 UTC), and as decimal strings "
        "open, high, low, close, volume, turnover.",
        always=("heal",),
    ),
)
"""The headers of control records, all of them text in UTF-8, numbers in decimal digits."""

ATTEMPTS = "dead-letter-attempts"
"""The header that counts how often a record was redriven; processors keep it, as every header,
where they dead-letter the record again."""

HELD_BACK_MS = 60_000
"""For so long the vendor may hold pushes back while it answers pings, as far as gaps go: a pong
proves the socket, not the stream. A loss begins at the feed's last push; where nothing was pushed
for longer than this, the market is taken to be quiet, and the last sign of life counts, less
this."""

CUT = "dead-letter-cut"
"""The header of a dead letter that has only the beginning of its record: how many bytes the record
has. It is not redriven."""

LATEST_MS = 253_402_300_800_000
"""Milliseconds from 1970 to the year 10000: a time beyond is a mistake, and no state or calendar
can hold it."""

Headers = Mapping[str, str | bytes | None] | Sequence[tuple[str, str | bytes | None]]


UNREADABLE_HEADERS = ("unreadable-headers", b"a header of the record has a name that is not UTF-8")
"""What stands in the place of a record's headers where librdkafka's binding cannot give them."""


# not message.headers(): for such a name the binding returns a half-made list with its error still
# set. CPython turns that into a SystemError, but no more once it has specialised a call in bytecode
_headers = methodcaller("headers")


class HeaderBearer(Protocol):
    """A message of librdkafka's binding."""

    def headers(self) -> Headers | None:
        """Return the headers."""

    def set_headers(self, value: list[Any], /) -> None:
        """Put others in their place."""


def headers_of(message: HeaderBearer) -> list[tuple[str, str | bytes | None]]:
    """Return a message's headers; UNREADABLE_HEADERS where a name is not UTF-8, which Kafka does
    not check."""
    try:
        found = _headers(message)
    except (SystemError, UnicodeDecodeError):
        # the binding keeps what it made of them by halves: whoever asks again would crash
        message.set_headers([UNREADABLE_HEADERS])
        return [UNREADABLE_HEADERS]
    return list(found.items() if isinstance(found, Mapping) else found or ())


class UnreadableControl(ValueError):
    """A null value whose headers are no control record."""


@dataclass(frozen=True, slots=True)
class Control:
    """One control record.

    kind       begin: a symbol is subscribed on the feed from ts on; end: it ended in order at ts;
               mark: the feed was alive at ts (no symbol, explicit partition); gap: a loss from
               ts_from to ts; heal: kline is the vendor's bar for a gap
    ts         milliseconds UTC, by the producer's clock at receipt; of a mark by the vendor's: the
               time of the feed's last trade or book, and what has passed since its receipt
    ts_from    start of the loss, milliseconds UTC; for a begin until when the feed has seen all, if
               the producer knows it
    ts_recv    microseconds UTC
    kline      of a heal, JSON: interval (of KLINE_LENGTHS), ts_start (ms UTC, on a multiple of it),
               and as the vendor's decimal strings open, high, low, close, volume, turnover; the
               interval is over, `ts` is its end, `source` is rest, `connection` names no connection
               of the feed
    """

    kind: Kind
    feed: str
    business: str
    connection: str
    source: str
    ts: int
    ts_recv: int
    ts_from: int | None = None
    reason: str = ""
    kline: str | None = None

    def headers(self) -> list[tuple[str, bytes]]:
        """Return the record's headers: ASCII text, `None` left out."""
        pairs: list[tuple[str, str | int | None]] = [
            ("control", self.kind),
            ("feed", self.feed),
            ("business", self.business),
            ("connection", self.connection),
            ("source", self.source),
            ("ts", self.ts),
            ("ts_recv", self.ts_recv),
            ("ts_from", self.ts_from),
            ("reason", self.reason or None),
            ("kline", self.kline),
        ]
        return [(name, str(value).encode()) for name, value in pairs if value is not None]


def read_control(headers: Headers | None) -> Control:
    """Return the control record of these headers; raises UnreadableControl with what is wrong."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    texts = {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value or ""
        for name, value in pairs
    }
    kind = texts.get("control")
    if kind not in get_args(Kind):
        raise UnreadableControl(
            f"a null value with the header control={kind!r}: expected one of "
            f"{', '.join(get_args(Kind))}"
        )
    try:
        return Control(
            kind=cast(Kind, kind),
            feed=texts["feed"],
            business=texts["business"],
            connection=texts["connection"],
            source=texts["source"],
            ts=_time(texts["ts"], LATEST_MS),
            ts_recv=_time(texts["ts_recv"], LATEST_MS * 1000),
            ts_from=_time(texts["ts_from"], LATEST_MS) if "ts_from" in texts else None,
            reason=texts.get("reason", ""),
            kline=texts.get("kline"),
        )
    except (KeyError, ValueError) as error:
        raise UnreadableControl(
            f"control record {kind!r} with a missing or wrong header: {error!r}"
        ) from error


def _time(text: str, end: int) -> int:
    """Return a header's time; raises ValueError for what is none, or beyond the years that a state
    or a calendar can hold."""
    time = int(text)
    if not -end < time < end:  # the start of a loss may lie a little before the first time
        raise ValueError(f"{text[:40]} is no time before the year 10000")
    return time
