"""Recordings through the whole way, Kafka and agents included, held against figures that third
parties published."""

import csv
import json
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from pathlib import Path

import pytest
from rich.console import Console

from infra.cli.commands.feed.replay import ReplayOptions, replay
from schemas.topics import Topology

UNIT = Decimal("1e-18")


@pytest.fixture(scope="module")
def on_stack(stack):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFOWAY_BOOTSTRAP", stack.bootstrap)
        patch.setenv("INFOWAY_REGISTRY", stack.registry_url)
        yield


@pytest.fixture(scope="module")
def replayed(on_stack, recordings, tmp_path_factory):
    done: dict[str, Path] = {}

    def run(name: str) -> Path:
        if name not in done:
            done[name] = tmp_path_factory.mktemp(name)
            summary = replay(
                ReplayOptions([recordings / f"{name}.jsonl.gz"], done[name], Topology()),
                Console(stderr=True),
            )
            assert summary.broken_lines == 0
        return done[name]

    return run


def rows(folder: Path, topic: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{topic}.jsonl").read_text().splitlines()]


def truth(recordings: Path, name: str) -> list[dict[str, str]]:
    with (recordings / name).open() as file:
        return list(csv.DictReader(file))


def ratio(numerator: str, denominator: str) -> Decimal:
    with localcontext(prec=80):
        return (Decimal(numerator) / Decimal(denominator)).quantize(UNIT, ROUND_HALF_EVEN)


def bars(folder: Path) -> dict[int, dict]:
    return {row["ts_start"]: row for row in rows(folder, "infoway.bars.1m")}


@pytest.mark.timeout(400)
def test_one_minute_bars_equal_the_exchanges_klines(replayed, recordings):
    ours = bars(replayed("binance_btcusdt_perp_20240808"))
    complete = [
        row
        for row in truth(recordings, "truth_binance_btcusdt_perp_1m_klines.csv")
        if row["complete_in_recording"] == "1"
    ]
    assert complete
    for kline in complete:
        bar = ours[int(kline["open_time_ms"])]
        for field, name in (
            ("open", "open"),
            ("high", "high"),
            ("low", "low"),
            ("close", "close"),
            ("volume", "volume"),
        ):
            assert Decimal(bar[field]) == Decimal(kline[name])
        assert Decimal(bar["turnover"]) == Decimal(kline["quote_volume"])
        assert Decimal(bar["vwap"]) == ratio(kline["quote_volume"], kline["volume"])
        assert Decimal(bar["buy_volume"]) == Decimal(kline["taker_buy_volume"])
        assert Decimal(bar["sell_volume"]) == Decimal(kline["volume"]) - Decimal(
            kline["taker_buy_volume"]
        )
        assert (bar["trade_count"], bar["is_closed"], bar["completeness"]) == (
            int(kline["count"]),
            True,
            "complete",
        )


@pytest.mark.timeout(400)
def test_a_rolling_minute_that_ends_with_a_kline_has_its_vwap(replayed, recordings):
    """A window (t - 60 s, t] holds a kline's trades and no others where t is the last millisecond
    of the minute; elsewhere the trades between t - 60 s and the minute's start are taken off by the
    difference of two windows' sums."""
    folder = replayed("binance_btcusdt_perp_20240808")
    rolling: dict[int, dict] = {row["ts_event"]: row for row in rows(folder, "infoway.vwap.1m")}
    session: dict[int, dict] = {
        row["ts_event"]: row for row in rows(folder, "infoway.vwap.session")
    }
    times = sorted(session)
    compared = 0
    for kline in truth(recordings, "truth_binance_btcusdt_perp_1m_klines.csv"):
        if kline["complete_in_recording"] != "1":
            continue
        start = int(kline["open_time_ms"])
        last = max(t for t in times if t < start + 60_000)
        before = [t for t in times if t < start]
        edge = [t for t in times if t <= last - 60_000]
        carried = Decimal(session[before[-1]]["turnover"]) - Decimal(
            session[edge[-1]]["turnover"] if edge else 0
        )
        carried_volume = Decimal(session[before[-1]]["volume"]) - Decimal(
            session[edge[-1]]["volume"] if edge else 0
        )
        assert Decimal(rolling[last]["turnover"]) == Decimal(kline["quote_volume"]) + carried
        assert Decimal(rolling[last]["volume"]) == Decimal(kline["volume"]) + carried_volume
        with localcontext(prec=80):
            expected = (Decimal(kline["quote_volume"]) + carried) / (
                Decimal(kline["volume"]) + carried_volume
            )
        assert Decimal(rolling[last]["vwap"]) == expected.quantize(UNIT, ROUND_HALF_EVEN)
        compared += 1
    assert compared >= 4


@pytest.mark.timeout(400)
def test_the_top_of_every_book_equals_the_published_one(replayed, recordings):
    ours = {}
    for row in rows(replayed("binance_btcusdt_perp_20240808"), "infoway.depth.imbalance"):
        ours.setdefault(row["ts_event"], []).append(row)
    published = truth(recordings, "truth_binance_btcusdt_perp_bbo.csv")
    assert published
    for line in published:
        best = tuple(Decimal(line[name]) for name in ("bid", "bid_qty", "ask", "ask_qty"))
        at_time = ours[int(line["depth_T_ms"])]
        names = ("best_bid", "best_bid_size", "best_ask", "best_ask_size")
        row = next(
            (row for row in at_time if tuple(Decimal(row[name]) for name in names) == best), None
        )
        assert row is not None, (line, at_time)
        bid, bid_size, ask, ask_size = best
        assert row["imbalance_1"] == float((bid_size - ask_size) / (bid_size + ask_size))
        assert Decimal(row["spread"]) == ask - bid
        assert Decimal(row["mid"]) == (bid + ask) / 2
        assert row["book_state"] == "normal"


@pytest.mark.timeout(400)
def test_the_session_vwap_equals_the_exchanges_cumulative_figures_at_every_snapshot(
    replayed, recordings
):
    folder = replayed("sh600519_20230201_fullday")
    session = rows(folder, "infoway.vwap.session")
    assert {row["trade_date"] for row in session} == {"2023-02-01"}
    snapshots = [
        row
        for row in truth(recordings, "truth_sh600519_20230201_sse_snapshots.csv")
        if int(row["trades"]) > 0
    ]
    assert len(snapshots) > 4000
    for snapshot in snapshots:
        row = session[int(snapshot["trades"]) - 1]
        assert row["trade_count"] == int(snapshot["trades"])
        assert Decimal(row["volume"]) == Decimal(snapshot["cum_volume"])
        assert Decimal(row["turnover"]) == Decimal(snapshot["cum_turnover"])
        assert Decimal(row["vwap"]) == ratio(snapshot["cum_turnover"], snapshot["cum_volume"])
    day = rows(folder, "infoway.bars.1d")[-1]
    last = snapshots[-1]
    assert (Decimal(day["high"]), Decimal(day["low"]), Decimal(day["close"])) == tuple(
        Decimal(last[name]) for name in ("high", "low", "last")
    )
    assert (Decimal(day["open"]), day["trade_count"]) == (
        Decimal(last["open"]),
        int(last["trades"]),
    )
    assert Decimal(day["turnover"]) == Decimal(last["cum_turnover"])


@pytest.mark.timeout(400)
def test_minute_bars_of_a_day_add_up_to_the_exchanges_total(replayed, recordings):
    ours = bars(replayed("sh600519_20230201_fullday")).values()
    last = truth(recordings, "truth_sh600519_20230201_sse_snapshots.csv")[-1]
    assert sum(Decimal(bar["volume"]) for bar in ours) == Decimal(last["cum_volume"])
    assert sum(bar["trade_count"] for bar in ours) == int(last["trades"])
    assert all(bar["is_closed"] for bar in ours)


@pytest.mark.timeout(400)
def test_a_recorded_futures_open_loses_no_trade(replayed, recordings):
    folder = replayed("glbx_esh4_20231225T2300")
    assert (
        sum(bar["trade_count"] for bar in bars(folder).values())
        == 1865
        == len(rows(folder, "infoway.vwap.1m"))
    )
    assert len(rows(folder, "infoway.depth.imbalance")) == 3231
    assert {row["trade_date"] for row in rows(folder, "infoway.vwap.session")} == {"2023-12-26"}
    assert rows(folder, "infoway.late") == rows(folder, "infoway.dead-letter") == []


@pytest.mark.timeout(300)
def test_a_second_replay_gives_equal_files(replayed, on_stack, recordings, tmp_path):
    first = replayed("glbx_esh4_20231225T2300")
    replay(
        ReplayOptions([recordings / "glbx_esh4_20231225T2300.jsonl.gz"], tmp_path, Topology(), 2),
        Console(stderr=True),
    )
    files = sorted(path.name for path in first.iterdir())
    assert files == sorted(path.name for path in tmp_path.iterdir())
    for name in files:
        assert (first / name).read_bytes() == (tmp_path / name).read_bytes(), name
