"""What the vendor may write otherwise, through the whole way: no trade is lost or doubled over it,
and no figure is wrong."""

import json
from decimal import Decimal

import pytest
from rich.console import Console

from infra.cli.commands.feed.replay import ReplayOptions, replay
from schemas.topics import Topology

T = 1_795_140_000_000


def line(feed, second, code, **changes):
    """A recorded frame; `beside` stands beside `data`."""
    beside = changes.pop("beside", {})
    data = {"t": T + second * 1000, **changes}
    return {
        "recv_us": (T + second * 1000 + 50) * 1000,
        "feed": feed,
        "frame": {"code": code, "data": data, **beside},
    }


def trade(second, symbol="BTCUSDT", feed="crypto-1", **changes):
    return line(feed, second, 10002, **{"s": symbol, "p": "100", "v": "1", "td": 1, **changes})


def book(second, a, b, symbol, feed, **changes):
    return line(feed, second, 10005, s=symbol, a=[[a], ["300"]], b=[[b], ["100"]], **changes)


def event(second, name, feed="crypto-1", symbols=("BTCUSDT",)):
    return {
        "recv_us": (T + second * 1000) * 1000,
        "feed": feed,
        "event": name,
        "business": feed[:-2],
        "symbols": symbols,
    }


@pytest.mark.timeout(400)
def test_no_spelling_of_the_vendors_costs_or_doubles_a_trade(stack, tmp_path, monkeypatch):
    monkeypatch.setenv("INFOWAY_BOOTSTRAP", stack.bootstrap)
    monkeypatch.setenv("INFOWAY_REGISTRY", stack.registry_url)
    monkeypatch.setenv("INFOWAY_SWAP_SIDES", "japan")
    seconds = iter(range(1, 100))
    sides = [trade(next(seconds), td=td) for td in ("1", 1.0, "2", None, "", 9, "buy", [1.5])]
    others = [
        trade(next(seconds), vw="n/a", ty=5),
        trade(next(seconds), beside={"ts": 1, "td": 7}, ts=2),
        trade(next(seconds), p=100.0, v=1),
        trade(next(seconds), t=str(T + 12_000)),
    ]
    dead = [trade(20, t=T // 1000), book(21, "101", "99", "BTCUSDT", "crypto-1", t=T // 1000)]
    again = {
        **trade(22, p="100.00", v="1.0", t=T + 12_000),
        "recv_us": (T + 3 * 3_600_000 + 1) * 1000,
    }
    crossed = [book(number, "99.90", "100.10", "AAPL.US", "stock-1") for number in range(30, 35)]
    sound = [book(number, "100.02", "100.00", "AAPL.US", "stock-1") for number in range(35, 40)]
    swapped = [book(number, "100.00", "100.02", "7203.JP", "japan-1") for number in range(40, 43)]
    entries = [
        event(0, "connected"),
        *sides,
        *others,
        *dead,
        event(25, "disconnected"),
        *crossed,
        *sound,
        *swapped,
        event(3 * 3600, "connected"),
        again,
    ]
    recording = tmp_path / "odd.jsonl"
    recording.write_text("".join(json.dumps(each) + "\n" for each in entries))
    summary = replay(ReplayOptions([recording], tmp_path / "out", Topology()), Console(stderr=True))

    def rows(topic):
        return [
            json.loads(line)
            for line in (tmp_path / "out" / f"{topic}.jsonl").read_text().splitlines()
        ]

    assert len(rows("infoway.dead-letter")) == 2
    (bar,) = [row for row in rows("infoway.bars.1h") if row["is_closed"]]
    counted = len(sides) + len(others)
    assert (bar["symbol"], bar["trade_count"], Decimal(bar["volume"])) == (
        "BTCUSDT",
        counted,
        counted,
    )
    # 1 as text, as 1.0 and in the others; 2 as text
    assert (Decimal(bar["buy_volume"]), Decimal(bar["sell_volume"])) == (2 + len(others), 1)
    books = rows("infoway.depth.imbalance")
    states = {
        symbol: [row["book_state"] for row in books if row["symbol"] == symbol]
        for symbol in ("AAPL.US", "7203.JP")
    }
    assert states == {"AAPL.US": ["crossed"] * 5 + ["normal"] * 5, "7203.JP": ["normal"] * 3}
    assert {row["imbalance_1"] for row in books} == {-0.5, 0.5}
    (crypto,) = [each for each in summary.counters if each.feed == "crypto-1"]
    assert (crypto.repeats, crypto.unknown_sides, crypto.unreadable) == (1, 5, 2)
