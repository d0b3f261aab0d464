"""The live view of `up`: what it shows of a run, in a terminal or line by line; nothing is run
here."""

import threading
import time
import webbrowser
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console, RenderableType
from rich.live import Live

from infra.dashboard import view
from infra.dashboard.board import Board
from infra.dashboard.keys import Keys
from infra.dashboard.selection import Selection
from infra.ingest.producer_process import Feeding
from infra.page.child import PageProcess
from infra.runtime.deployment import Deployment
from infra.runtime.supervisor import Supervisor

NO_PAGE = "no live page"
REFRESH = 0.5
PLAIN_PERIOD = 5.0
STATUS_PERIOD = 60.0
KEY_PERIOD = 0.1
"""Seconds that a key is waited for before the end is looked for again."""


@dataclass(frozen=True, slots=True)
class ShownRun:
    """What the live view shows."""

    board: Board
    deployment: Deployment
    feeding: Feeding
    supervisor: Supervisor
    banner: str
    page: str
    """The live page's address, empty without one."""

    def screen(self, selection: Selection, width: int, height: int) -> RenderableType:
        """Return the view of a terminal."""
        return view.screen(self.board, self.seen(), selection, width, height)

    def lines(self) -> Iterable[str]:
        """Return the view of a log."""
        return (self.banner, *view.lines(self.board, self.seen()))

    def status(self) -> Iterable[str]:
        """Return the one line of a log that is to stay short."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return (f"{now} {view.status(self.board, self.seen())}",)

    def seen(self) -> view.Seen:
        """Return what there is beside the board now."""
        return view.Seen(
            self.deployment,
            self.feeding.wanted_counters,
            self.banner,
            self.feeding.calendars_ending(datetime.now(UTC).date()),
            self.supervisor.states(),
            self.feeding.closed(time.time_ns() // 1_000_000),
            self.page,
        )


def announce_page(console: Console, page: PageProcess | None, open_it: bool) -> None:
    """Print where the live page is, or why there is none, as the last line of the start."""
    if page is None:
        return
    if why_not := page.wait_ready():
        console.print(f"{NO_PAGE}: {why_not}", highlight=False, markup=False)
        return
    console.print(f"page {page.url}", highlight=False, soft_wrap=True, markup=False)
    if open_it:
        webbrowser.open(page.url)


def show_lines(
    console: Console,
    shown: ShownRun,
    ended: Callable[[], bool],
    stop: threading.Event,
    status_only: bool,
    announce: Callable[[], None],
) -> None:
    """Print the view, or with `status_only` its one line, now and then until `ended()`; `stop` cuts
    a wait short."""
    where = f"{view.addresses(shown.seen())}   Ctrl-C ends everything"
    console.print(where, highlight=False, soft_wrap=True, markup=False)
    announce()
    period = STATUS_PERIOD if status_only else PLAIN_PERIOD
    next_at = time.monotonic() + period
    while not ended():
        stop.wait(min(REFRESH, max(0.0, next_at - time.monotonic())))
        if time.monotonic() < next_at or stop.is_set():
            continue
        next_at += period
        for line in shown.status() if status_only else shown.lines():
            console.print(line, highlight=False, soft_wrap=True, markup=False)


def show_screen(console: Console, shown: ShownRun, ended: Callable[[], bool]) -> None:
    """Draw the view on a terminal until `ended()`; keys choose what it shows."""
    selection, drawn_at = Selection(), 0.0
    with Keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        while not ended():
            width, height = console.size
            pressed = list(keys.wait(KEY_PERIOD))
            for key in pressed:
                selection.press(key, view.page_of(height))
            if pressed or time.monotonic() - drawn_at > REFRESH:
                live.update(shown.screen(selection, width, height), refresh=True)
                drawn_at = time.monotonic()
