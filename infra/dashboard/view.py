"""Draws the live view: a screen of a terminal of any size, plain lines elsewhere.

Status and addresses stand on top and are wrapped, never cut. Below is the list of symbols, which
scrolls; the columns that the width has no room for are named under it.
"""

import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.text import Text

from infra.dashboard import columns
from infra.dashboard.board import Board, SymbolBoard, shown
from infra.dashboard.selection import Selection, help_text
from infra.embedded.running import WorkerState
from infra.runtime.deployment import Deployment
from producers.feed.metrics import FeedCounters
from schemas.printable import printable, utc_text

STALE = 5.0
"""Seconds without a frame after which a feed is shown as silent."""
LEAST_ROWS = 3
"""Symbols that a screen shows, however much is to be said above."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the view shows beside the board."""

    deployment: Deployment
    feeds: Sequence[FeedCounters]
    banner: str = ""
    notes: Sequence[str] = ()
    """What is to be said of calendars."""
    workers: Sequence[WorkerState] = ()
    closed: frozenset[str] = field(default_factory=frozenset)
    """Symbols whose market is closed now."""
    page: str = ""
    """The live page's address; empty if it is not served."""


def screen(
    board: Board, seen: Seen, selection: Selection, width: int, height: int
) -> RenderableType:
    """Return the whole view in `height` lines of `width` characters."""
    top = _top(board, seen, width, height)
    rows = _ordered(board, selection)
    every = columns.columns(
        seen.deployment.topology.windows, seen.deployment.topology.intervals[0], seen.closed
    )
    laid, hidden = columns.fitting(every, board.symbols, width)
    foot_height = len(_foot(selection, range(len(rows)), len(rows), board, hidden, width))
    page = max(LEAST_ROWS, height - len(top) - foot_height - 1)
    on_screen = selection.shown(len(rows), page)
    heading = columns.line((each.column.heading for each in laid), laid)
    body = [
        Text(columns.line((each.column.cell(*rows[place]) for each in laid), laid))
        for place in on_screen
    ]
    foot = _foot(selection, on_screen, len(rows), board, hidden, width)
    # the foot stays at the bottom
    blank = [Text("")] * max(0, page - len(body))
    return Group(
        *top,
        Text(heading, style="bold reverse"),
        *body,
        *blank,
        *(Text(each, style="dim") for each in foot),
    )


def page_of(height: int) -> int:
    """Return by how many rows a key for a page scrolls."""
    return max(LEAST_ROWS, height // 2)


def lines(board: Board, seen: Seen) -> list[str]:
    """Return the view as plain lines, with one for each note."""
    windows = seen.deployment.topology.windows
    rows = [
        f"{symbol} last={row.last or '-'} "
        + " ".join(f"vwap_{window}={shown(row.vwaps.get(window))}" for window in windows)
        + f" bar={_bar(row)} imbalance_5={_imbalance(row)}"
        for symbol, row in board.symbols.items()
    ]
    return [*map(printable, rows), status(board, seen), *seen.notes]


def status(board: Board, seen: Seen) -> str:
    """Return rates, lag and the health of feeds and workers in one line."""
    parts = (_flow(board), _feeds(seen), _workers(seen), _reconciled(board), *_unreadable(board))
    return "; ".join(part for part in parts if part)


def addresses(seen: Seen) -> str:
    """Return where the broker, the registry and the page are."""
    place = seen.deployment
    page = f"   page {seen.page}" if seen.page else ""
    return f"broker {place.bootstrap}   registry {place.registry_url}{page}"


def _top(board: Board, seen: Seen, width: int, height: int) -> list[Text]:
    well = all(each.well for each in seen.workers)
    said = [
        (seen.banner, "bold"),
        (addresses(seen), ""),
        (_flow(board), "bold red" if board.trouble() else ""),
        (f"feeds: {_feeds(seen)}", "" if _all_healthy(seen) else "yellow"),
        (f"processors: {_workers(seen)}" if seen.workers else "", "" if well else "bold red"),
        ("; ".join((_reconciled(board), *_unreadable(board))), ""),
        *((note, "yellow") for note in seen.notes),
    ]
    found = [
        Text(part, style=style)
        for text, style in said
        if text
        for part in textwrap.wrap(printable(text), width, break_on_hyphens=False)
    ]
    # two lines of the list's own, and what it shows at least
    room = max(1, height - LEAST_ROWS - 3)
    if len(found) <= room:
        return found
    left = len(found) - room + 1
    return [*found[: room - 1], Text(f"{left} more lines: enlarge the terminal", style="yellow")]


def _ordered(board: Board, selection: Selection) -> list[tuple[str, SymbolBoard]]:
    rows = [item for item in board.symbols.items() if selection.matches(item[0])]
    key = columns.sort_key(selection.sort)
    rows.sort(key=key)
    if selection.reverse:
        # what lacks the value stays last
        there = [item for item in rows if selection.sort == "symbol" or not key(item)[0]]
        rows = [*reversed(there), *rows[len(there) :]]
    return rows


def _foot(
    selection: Selection,
    on_screen: range,
    matching: int,
    board: Board,
    hidden: Iterable[columns.Column],
    width: int,
) -> list[str]:
    pieces = help_text(selection, on_screen, matching, len(board.symbols))
    names = ", ".join(each.heading for each in hidden)
    said = ["   ".join(map(printable, pieces))]
    if names:
        said.append(f"no room for: {names}")
    return [part for text in said for part in textwrap.wrap(text, width, break_on_hyphens=False)]


def _flow(board: Board) -> str:
    trades, records = board.rates()
    lag = "?" if board.lag is None else str(board.lag)
    return board.trouble() or f"{trades:.1f} trades/s in, {records:.1f} records/s out, lag {lag}"


def _feeds(seen: Seen) -> str:
    return ", ".join(_health(feed) for feed in seen.feeds)


def _all_healthy(seen: Seen) -> bool:
    return all(_health(feed) == f"{feed.feed} healthy" for feed in seen.feeds)


def _workers(seen: Seen) -> str:
    return ", ".join(f"worker {each.slot} {printable(each.text)}" for each in seen.workers)


def _unreadable(board: Board) -> Iterator[str]:
    if board.unreadable:
        yield f"{board.unreadable} records not readable"


def _health(feed: FeedCounters) -> str:
    if feed.last_frame == 0:
        health = "no frame yet"
    else:
        silent = time.time() - feed.last_frame / 1e6
        health = "healthy" if silent < STALE else f"silent for {silent:.0f} s"
    problems = [
        f"{count} {what}"
        for count, what in (
            (feed.losses, "losses"),
            (feed.dead_lettered, "dead letters"),
            (feed.refusals, "refusals"),
            (feed.spooled, "on disk: the broker is away"),
            (feed.lost, "records lost"),
        )
        if count
    ]
    return f"{feed.feed} {health}" + (f" ({', '.join(problems)})" if problems else "")


def _reconciled(board: Board) -> str:
    counts = board.reconciled
    return (
        f"vendor's klines: {counts['equal']} equal, {counts['differs']} differ, "
        f"{counts['not_comparable']} not comparable"
    )


def _bar(row: SymbolBoard) -> str:
    if row.bar is None:
        return "–"
    bar = row.bar
    prices = " ".join(shown(bar[name]) for name in ("open", "high", "low", "close"))
    flag = "" if bar["completeness"] == "complete" else f" {bar['completeness']}"
    return f"{utc_text(bar['ts_start'], '%H:%M:%S')} {prices} v{shown(bar['volume'])}{flag}"


def _imbalance(row: SymbolBoard) -> str:
    return "–" if row.imbalance is None else f"{row.imbalance:+.3f}"
