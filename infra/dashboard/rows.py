"""Records of topics as rows of a terminal: of each kind its most important fields, as many as the
width has room for."""

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from schemas.printable import printable, utc_text

HEADING_PERIOD = 30
"""Rows after which the headings come again."""
_CUT = "…"


class FieldColumn(NamedTuple):
    """A field, its heading and its width in characters."""

    field: str
    heading: str
    width: int
    show: Callable[[Any], str]


def text(value: Any) -> str:
    """Return a value in one printable line."""
    return "–" if value is None else printable(str(value))


def number(value: Any) -> str:
    """Return a decimal with as many digits as a row has room for; JSON has all of them."""
    if not isinstance(value, str):
        return text(value)
    try:
        found = Decimal(value)
    except InvalidOperation:
        return text(value)
    whole, point, fraction = format(found, "f").partition(".")
    return f"{whole}{point}{fraction[:6]}".rstrip("0").rstrip(".") if point else whole


def count(value: Any) -> str:
    """Return a whole number."""
    return text(value)


def clock(value: Any) -> str:
    """Return the time of day of ms UTC."""
    return utc_text(value, "%H:%M:%S") if isinstance(value, int) else text(value)


def flag(value: Any) -> str:
    """Return whether something is so."""
    return {True: "yes", False: "no"}.get(value, text(value)) if value is not None else "–"


def ratio(value: Any) -> str:
    """Return an imbalance with its sign."""
    return f"{value:+.4f}" if isinstance(value, int | float) else text(value)


def column(
    field: str, show: Callable[[Any], str] = text, width: int = 0, heading: str = ""
) -> FieldColumn:
    """Return the column of a field, by default as wide as its kind needs."""
    heading = heading or field.replace("_", " ").removeprefix("ts ")
    widths: dict[Callable[[Any], str], int] = {number: 14, clock: 8, flag: 6, ratio: 8, count: 6}
    return FieldColumn(field, heading, max(len(heading), width or widths.get(show, 10)), show)


_SYMBOL = column("symbol", width=12)
_OHLC = tuple(column(name, number) for name in ("open", "high", "low", "close"))
_BAR_END = (
    column("vwap", number), column("is_closed", flag, heading="closed"),
    column("revision", count),
    column("cause"), column("completeness"),
)  # fmt: skip

FAMILIES: tuple[tuple[str, tuple[FieldColumn, ...]], ...] = (
    ("infoway.raw.trade", (
        column("ts_event", clock), _SYMBOL, column("price", number), column("volume", number),
        column("direction", count), column("source"), column("feed"), column("sequence", count),
    )),
    ("infoway.raw.depth", (
        column("ts_event", clock), _SYMBOL, column("source"), column("feed"),
        column("sequence", count), column("ask_prices", width=24), column("bid_prices", width=24),
    )),
    ("infoway.raw.kline", (
        column("ts_start", clock), _SYMBOL, column("interval", width=4), *_OHLC,
        column("volume", number), column("source"), column("feed"),
    )),
    ("infoway.bars.", (
        column("ts_start", clock), column("bar_index", heading="bar", width=5), _SYMBOL, *_OHLC,
        column("volume", number), *_BAR_END, column("trade_count", count, heading="trades"),
    )),
    ("infoway.vwap.", (
        column("ts_event", clock), _SYMBOL, column("window", width=7),
        column("vwap", number, width=20), column("volume", number),
        column("trade_count", count, heading="trades"), column("stdev", number),
        column("completeness"),
    )),
    ("infoway.depth.imbalance", (
        column("ts_event", clock), _SYMBOL, column("imbalance_5", ratio), column("mid", number),
        column("spread", number), column("imbalance_1", ratio), column("imbalance_10", ratio),
        column("ofi", number), column("book_state"),
    )),
    ("infoway.progress", (
        column("feed"), column("partition", count), column("ts_watermark", clock),
        column("source_offset", count),
    )),
    ("infoway.feed.status", (
        column("ts_from", clock), column("feed"), column("state", width=12), column("ts_to", clock),
        column("reason", width=40),
    )),
    ("infoway.late", (
        column("ts_event", clock), _SYMBOL, column("price", number), column("volume", number),
        column("late_ms", count), column("feed"),
    )),
    ("infoway.reconciliation", (
        column("ts_start", clock), _SYMBOL, column("interval", width=4), column("status", width=14),
        column("reason"), column("close", number), column("vendor_close", number),
        column("volume", number), column("vendor_volume", number), column("volume_ratio", number),
    )),
    ("infoway.dead-letter", (
        column("error_class", width=20), column("source_topic", width=20),
        column("source_partition", heading="partition"), column("source_offset", count),
        column("error_text", width=60),
    )),
)  # fmt: skip
"""The columns of each kind of topic, by the beginning of its name, the most important first."""


class RowPrinter:
    """Prints rows under headings, which come again now and then and when the topic changes."""

    def __init__(self, width: Callable[[], int]) -> None:
        """`width` returns the columns of the terminal now."""
        self._width = width
        self._topic = ""
        self._since = 0

    def lines(self, topic: str, record: Mapping[str, Any]) -> Iterator[str]:
        """Yield the row of a record, after headings if it needs them."""
        width = self._width()
        columns = fitting(columns_of(topic, record), width)
        if topic != self._topic or self._since >= HEADING_PERIOD:
            yield f"-- {printable(topic)} (UTC)"
            yield joined([each.heading for each in columns], columns)
            self._topic, self._since = topic, 0
        self._since += 1
        yield joined([each.show(record.get(each.field)) for each in columns], columns)


def columns_of(topic: str, record: Mapping[str, Any]) -> list[FieldColumn]:
    """Return the columns of a topic that its record has; of a topic that is none of ours all."""
    for beginning, columns in FAMILIES:
        if topic.startswith(beginning):
            return [each for each in columns if each.field in record]
    return [column(printable(name)) for name in record]


def fitting(columns: list[FieldColumn], width: int) -> list[FieldColumn]:
    """Return the first columns, as many as the width has room for, and one at least."""
    kept: list[FieldColumn] = []
    used = -1
    for each in columns:
        used += each.width + 1
        if kept and used > width:
            break
        kept.append(each)
    return kept


def joined(cells: list[str], columns: list[FieldColumn]) -> str:
    """Return cells under each other; numbers end where their column ends."""
    return " ".join(_padded(cell, each) for cell, each in zip(cells, columns, strict=True)).rstrip()


def _padded(cell: str, of: FieldColumn) -> str:
    if of.show in (number, ratio, count):
        # a number that is cut short would be another number
        return cell.rjust(of.width)
    return (cell if len(cell) <= of.width else cell[: of.width - 1] + _CUT).ljust(of.width)
