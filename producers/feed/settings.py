"""How a feed is read: what does not change while it runs; no key and no address."""

from dataclasses import dataclass

from producers.codes import KLINE_TYPES
from producers.coverage import Unseen
from producers.silence import IsOpen, always_open


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """How a feed is read.

    source          live, simulated or replay; a replay without acks begins its symbols with the connection
    klines          intervals of the vendor's klines to subscribe; none: no klines
    mark_period_ms  silence of a partition after which a mark says that its feed lives
    max_future_ms   how far ahead of its receipt a time may lie
    has_acks        whether a replay has the vendor's acks among its frames: then its symbols begin with them, as on a live feed
    silence_ms      time without data after an ack, its market open, after which a symbol is reported
    is_open         whether the market of a symbol of a business is open at a time (microseconds)
    unseen          told of what this feed did not see, if anyone wants to know
    """

    source: str
    klines: tuple[str, ...] = ("1m",)
    mark_period_ms: int = 1000
    max_future_ms: int = 60_000
    has_acks: bool = False
    silence_ms: int = 300_000
    is_open: IsOpen = always_open
    unseen: Unseen | None = None

    def __post_init__(self) -> None:
        unknown = [interval for interval in self.klines if interval not in KLINE_TYPES]
        if unknown:
            raise ValueError(
                f"kline intervals {', '.join(unknown)} are not the vendor's: choose from {', '.join(KLINE_TYPES)}"
            )
