"""Draws the live view: a table in a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from infra.board import Board, SymbolBoard, shown
from infra.deployment import Deployment
from producers.counters import FeedCounters

STALE = 5.0
"""Seconds without a frame after which a feed is shown as silent."""


def table(
    board: Board, deployment: Deployment, feeds: Iterable[FeedCounters], banner: str
) -> RenderableType:
    """Return the whole view."""
    windows = deployment.topology.windows
    grid = Table(title=banner, expand=True)
    for heading in (
        "symbol",
        "last",
        *(f"VWAP {window}" for window in windows),
        f"newest bar {deployment.topology.intervals[0]}",
        "imbalance 5",
    ):
        grid.add_column(heading, justify="left" if heading == "symbol" else "right", no_wrap=True)
    for symbol, row in board.symbols.items():
        grid.add_row(
            symbol,
            row.last or "–",
            *(shown(row.vwaps.get(window)) for window in windows),
            _bar(row),
            _imbalance(row),
        )
    return Group(grid, Text(status(board, feeds)), Text(addresses(deployment)))


def lines(board: Board, deployment: Deployment, feeds: Iterable[FeedCounters]) -> list[str]:
    """Return the view as plain lines."""
    windows = deployment.topology.windows
    rows = [
        f"{symbol} last={row.last or '-'} "
        + " ".join(f"vwap_{window}={shown(row.vwaps.get(window))}" for window in windows)
        + f" bar={_bar(row)} imbalance_5={_imbalance(row)}"
        for symbol, row in board.symbols.items()
    ]
    return [*rows, status(board, feeds)]


def status(board: Board, feeds: Iterable[FeedCounters]) -> str:
    """Return rates, lag and the feeds' health in one line."""
    trades, records = board.rates()
    lag = "?" if board.lag is None else str(board.lag)
    health = ", ".join(_health(feed) for feed in feeds)
    return f"{trades:.1f} trades/s in, {records:.1f} records/s out, lag {lag}; {health}; {_reconciled(board)}"


def addresses(deployment: Deployment) -> str:
    """Return where the broker and the registry are."""
    return f"broker {deployment.bootstrap}   registry {deployment.registry_url}   Ctrl-C ends everything"


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
    return f"vendor's klines: {counts['equal']} equal, {counts['differs']} differ, {counts['not_comparable']} not comparable"


def _bar(row: SymbolBoard) -> str:
    if row.bar is None:
        return "–"
    bar = row.bar
    start = datetime.fromtimestamp(bar["ts_start"] / 1000, UTC)
    prices = " ".join(shown(bar[name]) for name in ("open", "high", "low", "close"))
    flag = "" if bar["completeness"] == "complete" else f" {bar['completeness']}"
    return f"{start:%H:%M:%S} {prices} v{shown(bar['volume'])}{flag}"


def _imbalance(row: SymbolBoard) -> str:
    return "–" if row.imbalance is None else f"{row.imbalance:+.3f}"
