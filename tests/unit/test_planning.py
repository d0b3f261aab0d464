"""The commands' way from `--symbols` and a key to feeds, with a simulator for the vendor's REST."""

import pytest

from infra.cli.main import parser
from infra.ingest.planning import chosen_feeds, feeds_within_package, rest_url_of
from infra.simulator import running_simulator
from infra.simulator.protocol import Limits
from producers.vendor.answers import RestError
from producers.vendor.plan import PlanTooSmall
from producers.vendor.symbols import BadSymbols
from schemas.errors import InfowayError

MIXED = "00700.HK,AAPL.US,BTCUSDT,USDJPY,7203.JP"


@pytest.fixture(scope="module")
def simulator():
    with running_simulator(limits=Limits(connections=4, symbols=20)) as running:
        yield running


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in (
        "INFOWAY_API_KEY",
        "INFOWAY_API_KEY_FILE",
        "INFOWAY_BOOTSTRAP",
        "INFOWAY_REGISTRY",
    ):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def run(*arguments):
    options = parser().parse_args([str(argument) for argument in arguments])
    return options.run(options)


def names(feeds):
    return [feed.name for feed in feeds]


def test_the_plan_is_printed_connection_by_connection(simulator, environment, capsys):
    environment.setenv("INFOWAY_API_KEY", "plan-key")
    assert run("plan-subscriptions", "--rest", simulator.rest_url, "--symbols", MIXED) == 0
    assert capsys.readouterr().out.splitlines() == [
        "package Simulator: 4 connections, 600 symbols on one, 20 in all, 20 REST requests a "
        "second, until 2100-01-01",
        "stock-1   2 symbols, 3 frames: 00700.HK,AAPL.US",
        "crypto-1  1 symbol, 3 frames: BTCUSDT",
        "common-1  1 symbol, 3 frames: USDJPY",
        "japan-1   1 symbol, 3 frames: 7203.JP",
        "4 of 4 connections, 5 of 20 symbols; on each connection 3 of 60 frames a minute, to "
        "subscribe",
    ]


def test_without_a_key_the_limits_are_assumed_and_said_to_be(capsys):
    assert run("plan-subscriptions", "--symbols", "00700.HK") == 0
    assert capsys.readouterr().out.startswith(
        "package Free (assumed: INFOWAY_API_KEY is not set): 1 connection, 10 symbols on one"
    )


def test_a_plan_that_cannot_be_says_why_in_one_line(capsys):
    with pytest.raises(PlanTooSmall) as raised:
        run("plan-subscriptions", "--symbols", MIXED)
    assert isinstance(raised.value, InfowayError)
    text = str(raised.value)
    assert "Free (assumed: INFOWAY_API_KEY is not set) is too small" in text
    assert "3 too few: no room for crypto-1 (1 symbol: BTCUSDT), common-1" in text
    assert "\n" not in text
    assert capsys.readouterr().out == ""


def test_a_refused_key_and_bad_symbols_are_told_and_the_key_is_not(simulator, environment):
    environment.setenv("INFOWAY_API_KEY", "bad-key")
    with pytest.raises(RestError, match="the API key was refused") as raised:
        run("plan-subscriptions", "--rest-url", simulator.rest_url)
    assert isinstance(raised.value, InfowayError)
    assert "bad-key" not in str(raised.value)
    # bad symbols come first: nothing is asked for them
    with pytest.raises(BadSymbols, match=r"write 00700\.HK"):
        run("plan-subscriptions", "--rest-url", simulator.rest_url, "--symbols", "700.HK")


def test_an_address_without_packages_is_said_to_have_none(simulator, environment, capsys):
    environment.setenv("INFOWAY_API_KEY", "plan-key")
    assert (
        run("plan-subscriptions", "--rest-url", f"{simulator.rest_url}/v9", "--symbols", "AAPL.US")
        == 0
    )
    assert (
        f"Free (assumed: {simulator.rest_url}/v9 has no /package/info)" in capsys.readouterr().out
    )


def test_produce_plans_by_the_host_of_its_websocket_before_it_looks_for_a_cluster(
    simulator, environment
):
    environment.setenv("INFOWAY_API_KEY", "plan-key")
    # nobody answers there
    environment.setenv("INFOWAY_BOOTSTRAP", "127.0.0.1:1")
    environment.setenv("INFOWAY_REGISTRY", "http://127.0.0.1:1")
    with pytest.raises(PlanTooSmall, match="5 connections are needed and it has 4"):
        run("produce", "--url", simulator.url, "--symbols", f"{MIXED},2330.TW")


def test_up_plans_before_it_starts_anything(simulator, environment, tmp_path):
    environment.setenv("INFOWAY_API_KEY", "plan-key")
    with pytest.raises(PlanTooSmall, match="21 symbols are needed and it has 20"):
        run(
            "up",
            "--data",
            tmp_path / "data",
            "--rest-url",
            simulator.rest_url,
            "--symbols",
            ",".join(f"{n:05}.HK" for n in range(21)),
        )
    assert not (tmp_path / "data").exists()


def test_what_fits_the_package_is_what_is_produced(simulator):
    expected = chosen_feeds(MIXED, live=True)
    assert names(expected) == ["stock-1", "crypto-1", "common-1", "japan-1"]
    assert feeds_within_package(MIXED, False, "plan-key", simulator.url, None) == expected
    assert feeds_within_package(MIXED, True, "plan-key", None, simulator.rest_url) == expected


def test_a_missing_endpoint_warns_and_keeps_nothing_from_its_start(simulator, caplog):
    feeds = feeds_within_package(MIXED, True, "plan-key", None, f"{simulator.rest_url}/v9")
    assert names(feeds) == ["stock-1", "crypto-1", "common-1", "japan-1"]
    unknown, small = (record.getMessage() for record in caplog.records)
    assert (
        unknown.startswith("the package of the key is not known")
        and "package Free: 1 connection" in unknown
    )
    assert small.startswith("starting in spite of this: the package Free is too small")


def failing(monkeypatch, error):
    def fail(key, address):
        raise error

    monkeypatch.setattr("infra.ingest.planning._package_of", fail)


def test_only_a_guessed_address_may_give_nothing_of_use(monkeypatch, caplog):
    failing(monkeypatch, RestError("HTTP 426", 426))
    assert names(
        feeds_within_package("AAPL.US", False, "plan-key", "ws://127.0.0.1:1/ws", None)
    ) == ["stock-1"]
    assert len(caplog.records) == 1
    for url, rest_url in (
        (None, None),
        (None, "http://127.0.0.1:1"),
        ("ws://127.0.0.1:1/ws", "http://127.0.0.1:1"),
    ):
        with pytest.raises(RestError, match="426"):
            feeds_within_package("AAPL.US", False, "plan-key", url, rest_url)
    failing(monkeypatch, RestError("refused", 401, refused=True))
    with pytest.raises(RestError, match="refused"):
        feeds_within_package("AAPL.US", False, "plan-key", "ws://127.0.0.1:1/ws", None)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://127.0.0.1:8765/ws", "http://127.0.0.1:8765"),
        ("wss://host/ws", "https://host"),
        ("ws://[::1]:8765/ws", "http://[::1]:8765"),
    ],
)
def test_rest_is_looked_for_on_the_websockets_host(url, expected):
    assert rest_url_of(url) == expected


def test_the_sample_with_a_key_is_one_business_that_a_free_package_allows():
    assert names(chosen_feeds(None, live=True)) == ["stock-1"]
    assert len(chosen_feeds(None, live=False)) > 1
