"""`infoway-streams plan-subscriptions`: shows how symbols are spread over connections, or why they
cannot be."""

import argparse
from dataclasses import dataclass

from infra.cli.checks import feed_mistakes
from infra.cli.command import Command
from infra.cli.options import add_rest_url
from infra.ingest.planning import plan_lines
from infra.ingest.producer_process import api_key
from schemas.printable import printable


@dataclass(frozen=True, slots=True)
class PlanSubscriptionsOptions:
    """What `plan-subscriptions` was given."""

    symbols: str | None
    rest_url: str | None


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument(
        "--symbols", help="comma-separated symbols, each to its business; SYMBOL:BUSINESS overrules"
    )
    add_rest_url(command)


def plan_subscriptions(options: PlanSubscriptionsOptions) -> int:
    """Print connection by connection what would be subscribed to. Raises PlanTooSmall, BadSymbols
    and RestError."""
    for line in plan_lines(options.symbols, api_key(), options.rest_url):
        print(printable(line))
    return 0


COMMAND = Command(
    "plan-subscriptions",
    "show how symbols are spread over connections, or why not",
    "plan-subscriptions --symbols 00700.HK,AAPL.US,BTCUSDT",
    add_options,
    PlanSubscriptionsOptions,
    plan_subscriptions,
    (feed_mistakes,),
)
