"""What both `up` and `produce` do: the vendor's key, and the producer run in a thread."""

import gc
import logging
import os
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

from infra.runtime.deployment import Deployment
from processors.model.sessions import Calendars, market_of
from processors.settings import swapped_sides
from producers.delivery.backlog import Backlog
from producers.delivery.client import open_producer, raw_partitions
from producers.delivery.errors import ClientFailed, PublishError
from producers.delivery.publisher import Publisher
from producers.delivery.sink import Sink
from producers.feed.asked import IsOpen
from producers.feed.metrics import FeedCounters
from producers.feed.protocol import FeedProtocol
from producers.feed.repeats import Delivered
from producers.feed.settings import FeedSettings
from producers.healing.healer import Healer
from producers.recording.writer import RecordedFeed, Recorder
from producers.transport.endpoint import LIVE_URL, Endpoint
from producers.transport.feed_group import RunningFeeds
from producers.vendor.proxy import check_proxy
from producers.vendor.secret import SHORTEST, Secret
from producers.vendor.symbols import Feed
from schemas.bounded_text import read_text
from schemas.errors import SettingsWrong
from schemas.numbers import whole_number

FLUSH_TIMEOUT = 3.0
_MAX_KEY_FILE = 64 * 1024
"""Bytes."""
LONGEST_SILENCE_S = 86_400

_log = logging.getLogger(__name__)


class KeyMissing(SettingsWrong):
    """The vendor's feed is asked for without a key."""


class KeyUnreadable(SettingsWrong):
    """The file that should have the API key cannot be read."""


class BadKey(SettingsWrong):
    """What should be the API key cannot be one."""


class BadSilence(SettingsWrong):
    """INFOWAY_SILENCE_S is no time."""


def silence_ms(environment: Mapping[str, str] = os.environ) -> int:
    """Return how long a symbol may be silent after its ack, in market hours, before it is reported;
    raises BadSilence."""
    seconds = environment.get("INFOWAY_SILENCE_S") or "300"
    found = whole_number(seconds, 1, LONGEST_SILENCE_S)
    if found is None:
        raise BadSilence(
            f"INFOWAY_SILENCE_S={seconds!r}: expected a whole number of seconds from 1 to "
            f"{LONGEST_SILENCE_S}"
        )
    return found * 1000


def api_key(environment: Mapping[str, str] = os.environ) -> str:
    """Return the vendor's API key from INFOWAY_API_KEY or the file that INFOWAY_API_KEY_FILE names;
    empty where neither is set.

    Raises KeyUnreadable and BadKey.
    """
    key, path = (
        environment.get("INFOWAY_API_KEY", "").strip(),
        environment.get("INFOWAY_API_KEY_FILE"),
    )
    if not key and path:
        try:
            key = read_text(Path(path), _MAX_KEY_FILE).strip()
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
            f"{name}: a key has {SHORTEST} characters or more, printable ASCII without spaces: "
            "this has not"
        )
    return key


def endpoint_of(key: str, url: str | None) -> Endpoint:
    """Return the vendor's address, or `url`, a simulator's, which takes any key; raises KeyMissing,
    BadAddress and BadProxy."""
    if not key and url is None:
        raise KeyMissing(
            "INFOWAY_API_KEY is not set: set it, or name a simulator by --url ws://HOST:PORT/ws"
        )
    endpoint = Endpoint(url or LIVE_URL, key or "simulator")
    check_proxy(endpoint.base_url)
    return endpoint


def market_hours(calendars: Calendars) -> IsOpen:
    """Return a function that says whether a symbol's market trades at a time; if no calendar knows,
    it is not expected to."""

    def is_open(business: str, symbol: str, now: int) -> bool:
        session = calendars.session_of(business, symbol, now // 1000)
        if session is None or session.assumed:
            return False
        # not in a lunch break, nor in an auction
        return not session.continuous or any(
            start <= now // 1000 < end for start, end in session.continuous
        )

    return is_open


def spare_full_collections() -> None:
    """Let Python's collector look at everything rarely: a full run holds up every feed for 50 ms,
    most of it for the last minute's trades, which are no cycles and go by themselves. Its runs over
    what is new stay as they are."""
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
        delivered: Mapping[str, Delivered] | None = None,
    ) -> None:
        """With a recorder everything received is recorded too; with `healing` gaps are healed by
        the vendor's klines. `delivered` is what an earlier process has delivered of symbols last:
        where it comes again, it is a repeat.

        With a backlog a broker that is away is waited for on disk; without one the feeds wait.
        Raises BadSilence and BadSessions.
        """
        silence = silence_ms()
        self._calendars = Calendars.from_environment(os.environ)
        stop = threading.Event()
        producer = open_producer(deployment.bootstrap)
        partitions = raw_partitions(producer, deployment.topology, deployment.bootstrap)
        self.records_lost = False
        """After the end: whether records are lost that no gap in the topics tells of yet."""
        self._backlog = backlog
        self._publisher = Publisher(
            producer, deployment.topology, deployment.schema_ids, stop, backlog
        )
        self._healer = healing(self._publisher) if healing else None
        self._healing_ended = False
        report_outage = self._healer.report_outage if self._healer else None
        if backlog is not None:
            backlog.report_outage = report_outage
        before = dict(delivered or {})
        is_open = market_hours(self._calendars)
        settings = FeedSettings(
            source=source,
            silence_ms=silence,
            is_open=is_open,
            report_outage=report_outage,
            delivered_before=before.get,
        )
        swapped = swapped_sides(os.environ)
        chance = random.Random()
        protocol = FeedProtocol if recorder is None else partial(RecordedFeed, recorder)

        def make(feed: Feed, counters: FeedCounters) -> FeedProtocol:
            of_feed = replace(settings, swapped_sides=feed.business in swapped)
            return protocol(feed, of_feed, partitions, counters, chance)

        self._feeds = RunningFeeds(feeds, make, endpoint, self._publisher, stop, chance, before)

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
        if not isinstance(self.failure, PublishError) or isinstance(self.failure, ClientFailed):
            waiting = self._publisher.close(FLUSH_TIMEOUT)
            self.records_lost = self._backlog is not None and not self._backlog.whole
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

    def closed(self, now_ms: int) -> frozenset[str]:
        """Return the wanted symbols that trade in no session at this time (ms UTC)."""
        return frozenset(
            symbol
            for feed in self.feeds
            for symbol in feed.symbols
            if self._calendars.session_of(feed.business, symbol, now_ms) is None
        )

    def calendars_ending(self, today: date) -> list[str]:
        """Return what is to be said of calendars that end: one line for each exchange of the
        symbols that are wanted."""
        markets = {
            market_of(feed.business, symbol) for feed in self.feeds for symbol in feed.symbols
        }
        return list(self._calendars.ending((market for market in markets if market), today))

    @property
    def counters(self) -> list[FeedCounters]:
        """The counters of every feed that there was, of the klines of the past, and of what an
        earlier process left on disk."""
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
        failure = self._healer.failure if self._healer else None
        # healing is a side task: it ends the feeds only with what would end them, too
        return self._feeds.failure or (failure if isinstance(failure, PublishError) else None)

    def change(self, feeds: Sequence[Feed]) -> None:
        """Have these feeds and their symbols from now on; a feed that keeps its name keeps its
        connection."""
        self._feeds.change(feeds)

    def check(self) -> None:
        """Raise what ended the producer, where something did; log once what ended the healing
        alone."""
        if self.failure is not None:
            raise self.failure
        if self._healer and self._healer.failure and not self._healing_ended:
            self._healing_ended = True
            _log.error("gaps are not healed until the next start: %r", self._healer.failure)
