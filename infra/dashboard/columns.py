"""The columns of the live view: what each shows of a symbol, and which of them a width has room
for."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from rich.cells import cell_len

from infra.dashboard.board import SymbolBoard, shown
from schemas.printable import printable, utc_text

GAP = 2
"""Spaces between two columns."""
LONGEST_SYMBOL = 40
CLOSED = "market closed"


@dataclass(frozen=True, slots=True)
class Column:
    """A column; `cell` returns what it shows of a symbol."""

    heading: str
    cell: Callable[[str, SymbolBoard], str]
    left: bool = False


@dataclass(frozen=True, slots=True)
class Laid:
    """A column and the characters that its longest cell takes."""

    column: Column
    width: int


def columns(windows: Sequence[str], interval: str, closed: frozenset[str]) -> tuple[Column, ...]:
    """Return all columns, the most important first; `closed` are symbols whose market is."""
    vwaps = [_vwap(window, closed) for window in windows]
    bar = f"bar {interval}"
    return (
        Column("symbol", lambda symbol, _: cut(symbol), left=True),
        Column("last", lambda _, row: printable(row.last or "–")),
        *vwaps[:1],
        Column("imbalance", lambda _, row: _imbalance(row)),
        Column(bar, lambda _, row: _of_bar(row, _clock)),
        Column("close", lambda _, row: _of_bar(row, _price("close"))),
        Column("bar is", lambda _, row: _of_bar(row, _state), left=True),
        *vwaps[1:],
        Column("volume", lambda _, row: _of_bar(row, _price("volume"))),
        *(
            Column(name, lambda _, row, name=name: _of_bar(row, _price(name)))  # type: ignore[misc]
            for name in ("high", "low", "open")
        ),
    )


def cut(symbol: str) -> str:
    """Return a symbol for the list; only one that no market has is too long for it."""
    text = printable(symbol)
    return text if len(text) <= LONGEST_SYMBOL else f"{text[: LONGEST_SYMBOL - 1]}…"


def fitting(
    every: Iterable[Column], rows: Mapping[str, SymbolBoard], width: int
) -> tuple[list[Laid], list[Column]]:
    """Return the columns that the width has room for, and those that it has none for.

    The first two, symbol and last price, are always shown. A column is as wide as its longest cell,
    of rows that are not on the screen too: scrolling moves no column.
    """
    shown_columns: list[Laid] = []
    hidden: list[Column] = []
    left = width + GAP
    for place, column in enumerate(every):
        cells = (cell_len(column.cell(symbol, row)) for symbol, row in rows.items())
        needed = max(cell_len(column.heading), *cells, 0)
        if place >= 2 and (hidden or needed + GAP > left):
            hidden.append(column)
            continue
        shown_columns.append(Laid(column, needed))
        left -= needed + GAP
    return shown_columns, hidden


def line(cells: Iterable[str], laid: Iterable[Laid]) -> str:
    """Return cells under each other."""
    return (
        (" " * GAP)
        .join(_padded(cell, each) for cell, each in zip(cells, laid, strict=True))
        .rstrip()
    )


def sort_key(by: str) -> Callable[[tuple[str, SymbolBoard]], tuple[bool, Decimal, str]]:
    """Return the key of an order of rows, by what a person would call it; rows that lack the value
    come last."""

    def key(item: tuple[str, SymbolBoard]) -> tuple[bool, Decimal, str]:
        symbol, row = item
        found = {
            "last": lambda: _decimal(row.last),
            "volume": lambda: None if row.bar is None else Decimal(row.bar["volume"]),
            "imbalance": lambda: None if row.imbalance is None else Decimal(row.imbalance),
        }.get(by, lambda: None)()
        return found is None, Decimal(0) if found is None else -found, symbol

    return key


def _decimal(text: str | None) -> Decimal | None:
    try:
        found = None if text is None else Decimal(text)
    except InvalidOperation:
        return None
    return found if found is not None and found.is_finite() else None


def _padded(cell: str, laid: Laid) -> str:
    space = " " * max(0, laid.width - cell_len(cell))
    return cell + space if laid.column.left else space + cell


def _vwap(window: str, closed: frozenset[str]) -> Column:
    def cell(symbol: str, row: SymbolBoard) -> str:
        value = row.vwaps.get(window)
        if value is None and window == "session" and symbol in closed:
            return CLOSED
        return shown(value)

    return Column(f"VWAP {window}", cell)


def _imbalance(row: SymbolBoard) -> str:
    return "–" if row.imbalance is None else f"{row.imbalance:+.3f}"


def _of_bar(row: SymbolBoard, part: Callable[[Mapping[str, object]], str]) -> str:
    return "–" if row.bar is None else part(row.bar)


def _price(name: str) -> Callable[[Mapping[str, object]], str]:
    return lambda bar: shown(bar[name])  # type: ignore[arg-type]


def _clock(bar: Mapping[str, object]) -> str:
    return utc_text(bar["ts_start"], "%H:%M:%S")  # type: ignore[arg-type]


def _state(bar: Mapping[str, object]) -> str:
    return printable(str(bar["completeness"]))
