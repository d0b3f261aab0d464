"""What both `up` and `produce` do: the vendor's key, and the producer run in a thread."""

import logging
import os
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from infra.deployment import Deployment
from processors.sessions import BeyondCalendar, Calendars
from producers.backfill import Healer
from producers.backlog import Backlog
from producers.counters import FeedCounters
from producers.protocol import FeedProtocol, FeedSettings
from producers.publish import Publisher, PublishError, Sink, open_producer, raw_partitions
from producers.recorder import RecordedFeed, Recorder
from producers.silence import IsOpen
from producers.symbols import BadSymbol, Feed, business_of
from producers.websocket import LIVE_URL, Endpoint, run_feeds

FLUSH_TIMEOUT = 3.0

_log = logging.getLogger(__name__)


class KeyMissing(ValueError):
    """The vendor's feed is asked for without a key."""


class FeedsDiffer(ValueError):
    """A new list of symbols needs a connection more or one less: only a restart makes or ends connections."""


class KeyUnreadable(ValueError):
    """The file that should have the API key cannot be read."""


def api_key(environment: Mapping[str, str] = os.environ) -> str:
    """Return the vendor's API key from INFOWAY_API_KEY or the file that INFOWAY_API_KEY_FILE names; empty where neither is set."""
    path = environment.get("INFOWAY_API_KEY_FILE")
    if environment.get("INFOWAY_API_KEY") or not path:
        return environment.get("INFOWAY_API_KEY", "").strip()
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise KeyUnreadable(f"INFOWAY_API_KEY_FILE={path}: {error.strerror}: name a file with the key alone") from error


def endpoint_of(key: str, url: str | None) -> Endpoint:
    """Return the vendor's address, or `url`, a simulator's, which takes any key; raises KeyMissing and BadAddress."""
    if not key and url is None:
        raise KeyMissing("INFOWAY_API_KEY is not set: set it, or name a simulator by --url ws://HOST:PORT/ws")
    return Endpoint(url or LIVE_URL, key or "simulator")


def market_hours(feeds: Sequence[Feed]) -> IsOpen:
    """Return a function that tells whether a symbol's market trades at a time; beyond the exchange calendars none is."""
    calendars = Calendars()
    chosen = {symbol: feed.business for feed in feeds for symbol in feed.symbols}

    def is_open(symbol: str, now: int) -> bool:
        try:
            session = calendars.session_of(chosen.get(symbol) or business_of(symbol), symbol, now // 1000)
        except (BeyondCalendar, BadSymbol):
            return False
        # not in a lunch break, nor in an auction
        return session is not None and (not session.continuous or any(start <= now // 1000 < end for start, end in session.continuous))

    return is_open


class Feeding:
    """The producer of a deployment, running in a thread of its own until it is closed or fails."""

    def __init__(
        self,
        deployment: Deployment,
        feeds: Sequence[Feed],
        endpoint: Endpoint,
        source: str,
        recorder: Recorder | None = None,
        healing: Callable[[Sink], Healer] | None = None,
        backlog: Backlog | None = None,
    ) -> None:
        """With a recorder everything received is recorded too; with `healing` gaps are healed by the vendor's klines.

        With a backlog a broker that is away is waited for on disk; without one the feeds wait.
        """
        self.counters = [FeedCounters(feed.name) for feed in feeds]
        self.failure: Exception | None = None
        """Why the producer ended, where it did."""
        self._stop = threading.Event()
        producer = open_producer(deployment.bootstrap)
        partitions = raw_partitions(producer, deployment.topology, deployment.bootstrap)
        self._publisher = Publisher(producer, deployment.topology, deployment.schema_ids, self._stop, backlog)
        self._healer = healing(self._publisher) if healing else None
        unseen = self._healer.unseen if self._healer else None
        if backlog is not None:
            backlog.unseen = unseen
        settings, chance = FeedSettings(source=source, is_open=market_hours(feeds), unseen=unseen), random.Random()
        make = FeedProtocol if recorder is None else partial(RecordedFeed, recorder)
        self._protocols = [make(feed, settings, partitions, counters, chance) for feed, counters in zip(feeds, self.counters, strict=True)]
        self._thread = threading.Thread(target=self._run, args=(self._protocols, endpoint, chance), name="producer", daemon=True)

    def __enter__(self) -> "Feeding":
        if self._healer:
            self._healer.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._healer:
            self._healer.__exit__()
        self._stop.set()
        self._thread.join()
        # also after a refusal: what came before it was received, and is owed to the topics
        if not isinstance(self.failure, PublishError):
            waiting = self._publisher.close(FLUSH_TIMEOUT)
            if waiting:
                _log.warning("%d records wait on disk for the next start: the broker did not take them", waiting)

    def change(self, feeds: Sequence[Feed]) -> None:
        """Have the feeds carry these symbols from now on; raises FeedsDiffer, and changes nothing then."""
        symbols = {feed.name: feed.symbols for feed in feeds}
        running = [protocol.feed.name for protocol in self._protocols]
        if symbols.keys() != set(running):
            raise FeedsDiffer(f"they need the connections {', '.join(sorted(symbols))}, there are {', '.join(running)}: restart for that")
        for protocol in self._protocols:
            protocol.wanted_symbols = symbols[protocol.feed.name]

    def check(self) -> None:
        """Raise what ended the producer, where something did."""
        if self.failure is not None:
            raise self.failure

    def _run(self, protocols: list[FeedProtocol], endpoint: Endpoint, chance: random.Random) -> None:
        try:
            run_feeds(protocols, endpoint, self._publisher, self._stop, chance)
        except Exception as error:  # noqa: BLE001 - handed to the main thread, which ends with it
            self.failure = error
