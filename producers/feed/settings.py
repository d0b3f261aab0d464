"""How a feed is read: what does not change while it runs; no key and no address."""

from collections.abc import Callable
from dataclasses import dataclass

from producers.feed.asked import IsOpen, always_open
from producers.feed.coverage import ReportOutage
from producers.feed.repeats import Delivered
from producers.vendor.codes import KLINE_TYPES
from schemas.times import MAX_FUTURE_MS


def nothing_before(symbol: str) -> Delivered | None:
    """Know of no earlier trade of any symbol."""
    return None


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """How a feed is read."""

    source: str
    """live, simulated or replay."""
    klines: tuple[str, ...] = ("1m",)
    """Intervals of the vendor's klines to subscribe."""
    mark_period_ms: int = 1000
    """A partition that is silent for this long gets a mark while its feed is alive."""
    max_future_ms: int = MAX_FUTURE_MS
    """How far ahead of its receipt a time may be."""
    has_acks: bool = False
    """Whether a replay has the vendor's acks among its frames. Then its symbols begin with them, as
    on a live feed; else with the connection."""
    silence_ms: int = 300_000
    """A symbol is reported after this long without data, counted from its ack while its market is
    open."""
    is_open: IsOpen = always_open
    """Whether the market of a symbol of a business is open at a time (microseconds)."""
    report_outage: ReportOutage | None = None
    """Called with each time that the feed did not observe."""
    swapped_sides: bool = False
    """Whether list a of its books holds the bids."""
    delivered_before: Callable[[str], Delivered | None] = nothing_before
    """Returns what an earlier process, or another feed, delivered of a symbol last."""

    def __post_init__(self) -> None:
        unknown = [interval for interval in self.klines if interval not in KLINE_TYPES]
        if unknown:
            raise ValueError(
                f"kline intervals {', '.join(unknown)} are not the vendor's: choose from "
                f"{', '.join(KLINE_TYPES)}"
            )
