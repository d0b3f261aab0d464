"""How `--symbols` are spread over connections, by what the vendor sells with the key: spread
before anything connects."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

from producers.vendor.answers import RestError
from producers.vendor.frame_budget import FRAMES
from producers.vendor.plan import FREE, Package, Plan, PlanTooSmall, on_running_feeds, plan
from producers.vendor.rest import LIVE_REST, Rest
from producers.vendor.symbols import Feed, normal, plan_feeds

SAMPLE_SYMBOLS = (
    "00005.HK",
    "00285.HK",
    "00700.HK",
    "002594.SZ",
    "TSLA.US",
    "AAPL.US",
    "BTCUSDT",
    "USDJPY",
)

_log = logging.getLogger(__name__)


def chosen_feeds(symbols: str | None, live: bool) -> list[Feed]:
    """Return the feeds of `--symbols`, else of the sample symbols, whatever a package allows;
    raises BadSymbols with every mistake."""
    return plan_feeds(*_chosen(symbols, live))


def businesses_of(symbols: str | None) -> dict[str, str]:
    """Return what SYMBOL:BUSINESS of `--symbols` names, by symbol; raises BadSymbols with every
    mistake."""
    named, overrides = _chosen(symbols or "", live=True)
    plan_feeds(named, overrides)
    return {normal(symbol): business for symbol, business in overrides.items()}


def feeds_within_package(
    symbols: str | None,
    live: bool,
    key: str,
    url: str | None,
    rest_url: str | None,
    running: Sequence[Feed] = (),
) -> list[Feed]:
    """Return the feeds that the key's package allows. `url`: the WebSocket of a simulator; None:
    the vendor's.

    What is `running` already is disturbed as little as the package allows.

    Raises BadSymbols, PlanTooSmall and RestError. Where the address has no /package/info, or it was
    only guessed from `url` and gives nothing that can be used, there is a warning, and a package
    that is not known keeps no feed from its start.
    """
    feeds = chosen_feeds(symbols, live)
    guessed = rest_url is None and url is not None
    address = rest_url or (LIVE_REST if url is None else rest_url_of(url))
    try:
        package = _package_of(key, address)
    except RestError as error:
        if error.refused or not (error.missing or guessed):
            raise
        _log.warning("the package of the key is not known (%s): %s", error, _stated(FREE))
    else:
        return list(_planned(symbols, live, package, running).feeds)
    try:
        return list(_planned(symbols, live, FREE, running).feeds)
    except PlanTooSmall as small:
        _log.warning("starting in spite of this: %s", small)
        return on_running_feeds(feeds, running)


def plan_lines(symbols: str | None, key: str, rest_url: str | None) -> list[str]:
    """Return, connection by connection, what would be subscribed to. Raises PlanTooSmall,
    BadSymbols and RestError."""
    chosen_feeds(symbols, live=True)
    if key:
        try:
            package = _package_of(key, rest_url or LIVE_REST)
        except RestError as error:
            if not error.missing:
                raise
            package = _assumed(f"{rest_url or LIVE_REST} has no /package/info")
    else:
        package = _assumed("INFOWAY_API_KEY is not set")
    return _lines(_planned(symbols, True, package))


def rest_url_of(url: str) -> str:
    """Return where a WebSocket's host answers REST: the same host and port."""
    parts = urlsplit(url)
    return f"{'https' if parts.scheme == 'wss' else 'http'}://{parts.netloc}"


def _chosen(symbols: str | None, live: bool) -> tuple[list[str], dict[str, str]]:
    if symbols is None:
        # with a key one business: a free package allows one connection
        sample = [
            symbol
            for feed in plan_feeds(SAMPLE_SYMBOLS)
            if feed.business == "stock" or not live
            for symbol in feed.symbols
        ]
        return sample, {}
    pairs = [part.strip().partition(":") for part in symbols.split(",") if part.strip()]
    return [symbol for symbol, _, _ in pairs], {
        symbol: business for symbol, colon, business in pairs if colon
    }


def _planned(
    symbols: str | None, live: bool, package: Package, running: Sequence[Feed] = ()
) -> Plan:
    wanted, overrides = _chosen(symbols, live)
    return plan(wanted, package, overrides, running=running)


def _package_of(key: str, address: str) -> Package:
    with Rest(address, key) as rest:
        return rest.package_info()


def _assumed(reason: str) -> Package:
    return replace(FREE, name=f"{FREE.name} (assumed: {reason})")


def _stated(package: Package) -> str:
    until = (
        f", until {datetime.fromtimestamp(package.expires_ms / 1000, UTC):%Y-%m-%d}"
        if package.expires_ms
        else ""
    )
    return (
        f"package {package.name}: {_counted(package.connections, 'connection')}, "
        f"{_counted(package.a_connection, 'symbol')} on one,"
        f" {package.symbols} in all, {_counted(package.requests, 'REST request')} a second{until}"
    )


def _lines(planned: Plan) -> list[str]:
    package, feeds = planned.package, planned.feeds
    width = max((len(feed.name) for feed in feeds), default=0)
    return [
        _stated(package),
        *(
            f"{feed.name:{width}}  {_counted(len(feed.symbols), 'symbol')}, {planned.frames} "
            f"frames: {','.join(feed.symbols)}"
            for feed in feeds
        ),
        f"{len(feeds)} of {_counted(package.connections, 'connection')}, "
        f"{sum(len(feed.symbols) for feed in feeds)} of"
        f" {_counted(package.symbols, 'symbol')}; on each connection {planned.frames} of "
        f"{FRAMES} frames a minute, to subscribe",
    ]


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
