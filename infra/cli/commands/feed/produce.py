"""`infoway-streams produce`: connects to the vendor and publishes raw topics on a named cluster."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from infra.cli.checks import (
    feed_mistakes,
    reached_cluster_mistakes,
    serving_mistakes,
    spool_mistakes,
    topology_mistakes,
)
from infra.cli.command import Command
from infra.cli.options import add_hold, add_rest_url, add_symbols, add_topology, add_url
from infra.ingest.choice import FeedChoice
from infra.ingest.delivered import delivered_before
from infra.ingest.feed_health import FeedHealth
from infra.ingest.healing import healing
from infra.ingest.planning import rest_url_of
from infra.ingest.producer_process import Feeding, api_key, endpoint_of
from infra.ingest.spooling import DEFAULT_SPOOL, open_backlog
from infra.runtime.deployment import existing
from infra.runtime.exit_codes import Code
from infra.runtime.health import serving
from infra.runtime.signals import stop_on_signals
from producers.vendor.rest import LIVE_REST
from schemas.topics import Topology

END_WITHIN_S = 25.0
"""Seconds that an end has that was asked for: a pod has 30."""


@dataclass(frozen=True, slots=True)
class ProduceOptions:
    """What `produce` was given."""

    topology: Topology
    symbols: str | None
    symbols_file: Path | None
    url: str | None
    rest_url: str | None


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_symbols(command)
    add_hold(command)
    add_url(command)
    add_rest_url(command)
    add_topology(command)


def produce(options: ProduceOptions) -> int:
    """Publish the vendor's feed until Ctrl-C or SIGTERM; with `url` the feed of a simulator."""
    key, url, live = api_key(), options.url, options.url is None
    endpoint = endpoint_of(key, url)
    choice = FeedChoice(options.symbols, options.symbols_file, url, options.rest_url, key, live)
    feeds = choice.feeds()
    stop = stop_on_signals(END_WITHIN_S)
    source = "live" if live else "simulated"
    deployment = existing(options.topology)
    address = options.rest_url or (LIVE_REST if url is None else rest_url_of(url))
    backlog = open_backlog(deployment, source, DEFAULT_SPOOL)
    heals = healing(deployment, address, endpoint.api_key, backlog.memory)
    delivered = delivered_before(
        deployment, [symbol for feed in feeds for symbol in feed.symbols], source, backlog.waiting()
    )
    feeding = Feeding(
        deployment, feeds, endpoint, source, healing=heals, backlog=backlog, delivered=delivered
    )
    with feeding, serving(os.environ, FeedHealth(feeding)):
        print(f"publishing {source} data of {', '.join(feed.name for feed in feeds)}", flush=True)
        take_up = choice.watch(lambda: feeding.feeds, feeding.change)
        while not stop.wait(0.5):
            feeding.check()
            take_up()
    return Code.RECORDS_LOST if feeding.records_lost else Code.DONE


COMMAND = Command(
    "produce",
    "connect to the vendor and publish raw topics on a named cluster",
    "produce --symbols 00700.HK,AAPL.US",
    add_options,
    ProduceOptions,
    produce,
    (
        topology_mistakes,
        reached_cluster_mistakes,
        feed_mistakes,
        serving_mistakes,
        spool_mistakes,
    ),
    asks_cluster=True,
)
