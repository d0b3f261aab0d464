"""What the settings add, through the whole way: klines held against bars, activity bars, updates of
open bars, VWAPs on a grid."""

import json
from decimal import Decimal

import pytest
from rich.console import Console

from infra.cli.commands.feed.replay import ReplayOptions, replay
from schemas.topics import Topology

START = 1_722_902_400_000  # 2024-08-06 00:00 UTC
MINUTES = 20
PER_MINUTE = 12


def recording(path):
    """Trades of 20 minutes, none in minute 4; the vendor's klines beside them know of a trade more
    in minutes 4 and 7."""
    lines = []

    def push(time, code, data):
        lines.append(
            {"recv_ms": time + 20, "frame": {"code": code, "data": {"s": "BTCUSDT", **data}}}
        )

    for minute in range(MINUTES):
        start = START + minute * 60_000
        count = 0 if minute == 4 else PER_MINUTE
        for number in range(count):
            time = start + number * 5_000
            push(time, 10002, {"t": time, "p": "61800.3", "v": "0.5", "vw": "30900.15", "td": 1})
        count += minute in (4, 7)
        volume, turnover = Decimal("0.5") * count, Decimal("30900.15") * count
        prices = dict.fromkeys("ohlc", "61800.3")
        push(
            start + 59_000,
            10008,
            {
                **prices,
                "v": str(volume),
                "vw": str(turnover),
                "t": start // 1000,
                "ty": 1,
                "pca": "0",
                "pfr": "0%",
            },
        )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.timeout(400)
def test_klines_are_reconciled_and_every_option_has_its_records(stack, tmp_path, monkeypatch):
    monkeypatch.setenv("INFOWAY_BOOTSTRAP", stack.bootstrap)
    monkeypatch.setenv("INFOWAY_REGISTRY", stack.registry_url)
    monkeypatch.setenv("INFOWAY_UPDATE_MS", "20000")
    monkeypatch.setenv("INFOWAY_EMIT_MS", "60000")
    recording(tmp_path / "klines.jsonl")
    names = Topology(activity=("tick-50", "turnover-1000000"))
    replay(
        ReplayOptions([tmp_path / "klines.jsonl"], tmp_path / "out", names, 2),
        Console(stderr=True),
    )

    def rows(topic):
        return [
            json.loads(line)
            for line in (tmp_path / "out" / f"{topic}.jsonl").read_text().splitlines()
        ]

    verdicts = {(row["ts_start"] - START) // 60_000: row for row in rows("infoway.reconciliation")}
    assert {minute: (row["status"], row["reason"]) for minute, row in verdicts.items()} == {
        # the first kline's subscription begins with its first push; the last kline is never
        # followed by another
        minute: ("differs" if minute in (4, 7) else "equal", None)
        for minute in range(MINUTES - 1)
    }
    last = max(
        rows("infoway.reconciliation"), key=lambda row: row["day_equal"] + row["day_differs"]
    )
    assert (last["day_equal"], last["day_differs"], last["day_not_comparable"]) == (
        MINUTES - 3,
        2,
        0,
    )
    traded = (MINUTES - 2) * PER_MINUTE
    assert abs(Decimal(last["volume_ratio"]) - Decimal(traded) / (traded + 2)) < Decimal("1e-17")

    bars = rows("infoway.bars.1m")
    assert {bar["cause"] for bar in bars} >= {"update", "close"}
    assert all(bar["is_closed"] == (bar["cause"] != "update") for bar in bars)
    assert [bar["cause"] for bar in bars if bar["ts_start"] == START] == ["update"] * 4 + ["close"]
    assert len(rows("infoway.vwap.1m")) < 2 * MINUTES

    ticks = [bar for bar in rows("infoway.bars.tick-50") if bar["is_closed"]]
    assert [(bar["bar_index"], bar["trade_count"], bar["trade_date"]) for bar in ticks] == [
        (n, 50, "2024-08-06") for n in range(4)
    ]
    trades = (MINUTES - 1) * PER_MINUTE
    turnover = [bar for bar in rows("infoway.bars.turnover-1000000") if bar["is_closed"]]
    assert all(
        bar["trade_count"] == 33 for bar in turnover
    )  # 33 x 30,900.15 are the first to reach 1,000,000
    assert len(turnover) == trades // 33
