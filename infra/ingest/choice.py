"""Which symbols a command subscribes to, and whose feed has them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.ingest.planning import chosen_feeds, feeds_within_package
from infra.ingest.symbols_file import read_symbols, watch
from producers.vendor.plan import on_running_feeds
from producers.vendor.symbols import Feed


@dataclass(frozen=True, slots=True)
class FeedChoice:
    """What `--symbols`, `--symbols-file`, `--url` and `--rest-url` say, and the key."""

    symbols: str | None
    file: Path | None
    url: str | None
    """A simulator's WebSocket; None: the vendor's."""
    rest_url: str | None
    key: str
    live: bool

    def feeds(self) -> list[Feed]:
        """Return the feeds at the start. Raises SymbolsFileUnreadable, and as `planned` does."""
        return self.planned(read_symbols(self.file) if self.file else self.symbols)

    def planned(self, symbols: str | None, running: Sequence[Feed] = ()) -> list[Feed]:
        """Return the feeds of these symbols, within the package of the key if there is a key; what
        is `running` changes as little as possible.

        Raises BadSymbols, PlanTooSmall and RestError.
        """
        if not self.key:
            return on_running_feeds(chosen_feeds(symbols, self.live), running)
        return feeds_within_package(symbols, self.live, self.key, self.url, self.rest_url, running)

    def watch(
        self, running: Callable[[], Sequence[Feed]], change: Callable[[Sequence[Feed]], None]
    ) -> Callable[[], None]:
        """Return a function that takes up a changed file; call it at least every second."""
        return watch(self.file, lambda symbols: self.planned(symbols, running()), change)
