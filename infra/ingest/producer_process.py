"""What both `up` and `produce` do: the vendor's key, and the producer run in a thread."""

import gc
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
from producers.protocol import FeedProtocol
from producers.proxy import check_proxy
from producers.publish import Publisher, PublishError, Sink, open_producer, raw_partitions
from producers.recorder import RecordedFeed, Recorder
from producers.running import RunningFeeds
from producers.secret import SHORTEST, Secret
from producers.settings import FeedSettings
from producers.silence import IsOpen
from producers.symbols import BadSymbol, Feed
from producers.websocket import LIVE_URL, Endpoint

FLUSH_TIMEOUT = 3.0

_log = logging.getLogger(__name__)


class KeyMissing(ValueError):
    """The vendor's feed is asked for without a key."""


class KeyUnreadable(ValueError):
    """The file that should have the API key cannot be read."""


class BadKey(ValueError):
    """What should be the API key cannot be one."""


class BadSilence(ValueError):
    """INFOWAY_SILENCE_S is no time."""


def silence_ms(environment: Mapping[str, str] = os.environ) -> int:
    """Return how long a symbol may be silent after its ack, in market hours, before it is reported; raises BadSilence."""
    seconds = environment.get("INFOWAY_SILENCE_S") or "300"
    if not (seconds.isascii() and seconds.isdigit() and int(seconds)):
        raise BadSilence(f"INFOWAY_SILENCE_S={seconds}: name a whole number of seconds above 0")
    return int(seconds) * 1000


def api_key(environment: Mapping[str, str] = os.environ) -> str:
    """Return the vendor's API key from INFOWAY_API_KEY or the file that INFOWAY_API_KEY_FILE names; empty where neither is set.

    Raises KeyUnreadable and BadKey.
    """
    key, path = (
        environment.get("INFOWAY_API_KEY", "").strip(),
        environment.get("INFOWAY_API_KEY_FILE"),
    )
    if not key and path:
        try:
            key = Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no text"
            raise KeyUnreadable(
                f"INFOWAY_API_KEY_FILE={path}: {reason}: name a file with the key alone"
            ) from None
    if key and not Secret(key).sound:
        name = (
            "INFOWAY_API_KEY"
            if environment.get("INFOWAY_API_KEY", "").strip()
            else f"INFOWAY_API_KEY_FILE={path}"
        )
        raise BadKey(
            f"{name}: a key has {SHORTEST} characters or more, printable ASCII without spaces: this has not"
        )
    return key


def endpoint_of(key: str, url: str | None) -> Endpoint:
    """Return the vendor's address, or `url`, a simulator's, which takes any key; raises KeyMissing, BadAddress and BadProxy."""
    if not key and url is None:
        raise KeyMissing(
            "INFOWAY_API_KEY is not set: set it, or name a simulator by --url ws://HOST:PORT/ws"
        )
    endpoint = Endpoint(url or LIVE_URL, key or "simulator")
    check_proxy(endpoint.base_url)
    return endpoint


def market_hours() -> IsOpen:
    """Return a function that tells whether a symbol's market trades at a time; beyond the exchange calendars none is."""
    calendars = Calendars()

    def is_open(business: str, symbol: str, now: int) -> bool:
        try:
            session = calendars.session_of(business, symbol, now // 1000)
        except (BeyondCalendar, BadSymbol):
            return False
        # not in a lunch break, nor in an auction
        return session is not None and (
            not session.continuous
            or any(start <= now // 1000 < end for start, end in session.continuous)
        )

    return is_open


def spare_full_collections() -> None:
    """Let Python's collector look at everything rarely: a full run holds up every feed for 50 ms, most of it for the last minute's trades,
    which are no cycles and go by themselves. Its runs over what is new stay as they are."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], 1_000)


class Feeding:
    """The producer of a deployment, running in threads of its own until it is closed or fails."""

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

        With a backlog a broker that is away is waited for on disk; without one the feeds wait. Raises BadSilence.
        """
        silence = silence_ms()
        stop = threading.Event()
        producer = open_producer(deployment.bootstrap)
        partitions = raw_partitions(producer, deployment.topology, deployment.bootstrap)
        self._backlog = backlog
        self._publisher = Publisher(
            producer, deployment.topology, deployment.schema_ids, stop, backlog
        )
        self._healer = healing(self._publisher) if healing else None
        unseen = self._healer.unseen if self._healer else None
        if backlog is not None:
            backlog.unseen = unseen
        settings = FeedSettings(
            source=source, silence_ms=silence, is_open=market_hours(), unseen=unseen
        )
        chance = random.Random()
        protocol = FeedProtocol if recorder is None else partial(RecordedFeed, recorder)

        def make(feed: Feed, counters: FeedCounters) -> FeedProtocol:
            return protocol(feed, settings, partitions, counters, chance)

        self._feeds = RunningFeeds(feeds, make, endpoint, self._publisher, stop, chance)

    def __enter__(self) -> "Feeding":
        spare_full_collections()
        if self._healer:
            self._healer.__enter__()
        self._feeds.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._healer:
            self._healer.__exit__()
        self._feeds.__exit__()
        # also after a refusal: what came before it was received, and is owed to the topics
        if not isinstance(self.failure, PublishError):
            waiting = self._publisher.close(FLUSH_TIMEOUT)
            if waiting:
                _log.warning(
                    "%d records wait on disk for the next start: the broker did not take them",
                    waiting,
                )
        if self.failure is None:
            for counters in self.counters:
                self._publisher.account(counters)

    @property
    def feeds(self) -> Sequence[Feed]:
        """The feeds that are wanted, with their symbols."""
        return self._feeds.feeds

    @property
    def counters(self) -> list[FeedCounters]:
        """The counters of every feed that there was, of the klines of the past, and of what an earlier process left on disk."""
        others = [each.counters for each in (self._healer,) if each] + [
            each.earlier for each in (self._backlog,) if each
        ]
        return [*self._feeds.counters, *others]

    @property
    def wanted_counters(self) -> list[FeedCounters]:
        """The counters of the feeds that are wanted."""
        return self._feeds.wanted_counters

    @property
    def not_subscribed(self) -> list[str]:
        """The names of the feeds that are wanted and do not carry all their symbols now."""
        return self._feeds.not_subscribed

    @property
    def unanswered_for(self) -> float:
        """Seconds in which records were on their way and the broker has acknowledged none."""
        return self._publisher.unanswered_for

    @property
    def failure(self) -> Exception | None:
        """Why the producer ended, where it did."""
        return self._feeds.failure or (self._healer.failure if self._healer else None)

    def change(self, feeds: Sequence[Feed]) -> None:
        """Have these feeds and their symbols from now on; a feed that keeps its name keeps its connection."""
        self._feeds.change(feeds)

    def check(self) -> None:
        """Raise what ended the producer, where something did."""
        if self.failure is not None:
            raise self.failure
