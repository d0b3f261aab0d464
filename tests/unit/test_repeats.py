"""Which trades a reconnect brings again: by value, as a multiset, the last one of a symbol however
old."""

import pytest

from infra.ingest.delivered import DeliveredTrade, _Reader, last_minute
from producers.feed.repeats import FORMER, MEMORY, Repeats
from schemas.topics import load_example

MINUTE = 60_000_000
T = 1_752_826_113_000
NOW = T * 1000


def trade(t=T, p="98.150", v="956000", td=0):
    return t, p, v, td


def reconnected(*trades, after=MINUTE // 60, symbol="A", asked=("A",)):
    """What a connection has delivered, one trade a microsecond from NOW on, lost `after`
    microseconds later."""
    repeats = Repeats()
    for number, each in enumerate(trades):
        repeats.is_repeat(symbol, each, NOW + number)
    repeats.reconnect(NOW + len(trades) + after, asked)
    return repeats


@pytest.mark.parametrize(
    "again",
    [
        trade(p="98.15"),
        trade(p="98.1500"),
        trade(p="9815e-2"),
        trade(v="956000.0"),
        trade(v="9.56E5"),
        trade(v="0956000"),
    ],
)
def test_a_repeat_is_known_however_its_numbers_are_spelled(again):
    assert reconnected(trade()).is_repeat("A", again, NOW + MINUTE)


@pytest.mark.parametrize(
    "other", [trade(t=T - 1), trade(p="98.151"), trade(v="956001"), trade(t=T + 1)]
)
def test_another_value_is_another_trade(other):
    assert not reconnected(trade()).is_repeat("A", other, NOW + MINUTE)


def test_an_unknown_side_matches_any_and_known_sides_only_themselves():
    assert reconnected(trade(td=1)).is_repeat("A", trade(td=0), NOW + MINUTE)
    assert reconnected(trade(td=0)).is_repeat("A", trade(td=2), NOW + MINUTE)
    assert not reconnected(trade(td=1)).is_repeat("A", trade(td=2), NOW + MINUTE)


def test_a_side_that_is_known_is_matched_before_one_that_is_not():
    repeats = reconnected(trade(td=0), trade(td=1))
    assert [repeats.is_repeat("A", trade(td=td), NOW + MINUTE) for td in (1, 2, 0)] == [
        True,
        True,
        False,
    ]


def test_as_many_are_repeats_as_were_delivered():
    repeats = reconnected(trade(), trade(p="98.15"))
    assert [repeats.is_repeat("A", trade(), NOW + MINUTE) for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("after", [MINUTE, 60 * MINUTE, 24 * 60 * MINUTE])
def test_the_last_trade_of_a_symbol_is_remembered_without_a_limit_of_time(after):
    repeats = reconnected(trade(t=T - 1), trade(), after=after)
    assert repeats.is_repeat("A", trade(), NOW + after + MINUTE)
    assert not repeats.is_repeat("A", trade(), NOW + after + MINUTE)
    if after > MEMORY:
        assert not reconnected(trade(t=T - 1), trade(), after=after).is_repeat(
            "A", trade(t=T - 1), NOW + after + MINUTE
        )


def test_the_last_trade_is_remembered_over_connections_that_bring_nothing_and_over_its_own_repeat():
    repeats = reconnected(trade(), after=60 * MINUTE)
    for hour in range(2, 5):
        repeats.reconnect(NOW + hour * 60 * MINUTE, ("A",))
        if hour == 3:
            assert repeats.is_repeat("A", trade(), NOW + hour * 60 * MINUTE)
    assert repeats.is_repeat("A", trade(p="98.15"), NOW + 5 * 60 * MINUTE)


def test_within_a_connection_nothing_is_a_repeat():
    repeats = Repeats()
    assert not any(
        repeats.is_repeat("A", trade(), NOW + number * 2 * MINUTE) for number in range(5)
    )


def test_what_another_feed_or_process_has_delivered_is_known():
    repeats, other = Repeats(), reconnected(trade(), after=60 * MINUTE)
    repeats.take_up("A", other.of("A"))
    assert repeats.is_repeat("A", trade(p="98.15"), NOW + 90 * MINUTE)
    assert not repeats.is_repeat("B", trade(), NOW + 90 * MINUTE)


def test_what_nobody_asks_for_is_remembered_within_bounds():
    repeats = Repeats()
    for number in range(1_000):
        repeats.is_repeat(f"S{number}", trade(), NOW + number)
    for hour in range(3):
        repeats.reconnect(NOW + hour * 60 * MINUTE, ("S0", "S1"))
    assert len(repeats._before) == 2 + 2 * 2 + FORMER
    assert repeats.is_repeat("S0", trade(), NOW)
    assert repeats.is_repeat("S999", trade(), NOW)
    assert not repeats.is_repeat("S2", trade(), NOW)


def test_a_busy_symbol_keeps_a_minute_and_no_more():
    repeats = Repeats()
    for second in range(600):
        repeats.is_repeat("A", trade(t=T + second), NOW + second * 1_000_000)
    assert len(repeats.of("A")) == MEMORY // 1_000_000 + 1


def test_what_came_again_is_one_trade_for_the_next_subscription_too():
    repeats = reconnected(trade(), trade(t=T + 1))
    for told in ([True], [True, False], [True, True, False]):
        repeats.subscribed(["A"])
        assert [repeats.is_repeat("A", trade(t=T + 1), NOW) for _ in told] == told
    assert len(repeats.of("A")) == 4


@pytest.mark.parametrize("every", [1, 10])
def test_acks_without_an_end_keep_no_more_than_a_minute(every):
    repeats = Repeats()
    for second in range(600):
        repeats.is_repeat("A", trade(t=T + second), NOW + second * 1_000_000)
        if second % every == 0:
            repeats.subscribed(["A"])
    assert len(repeats._before["A"]) <= MEMORY // 1_000_000 + 1
    assert len(repeats.of("A")) <= MEMORY // 1_000_000 + 1


def raw(sequence, t, repeat=False, connection="c1", ts_recv=None, p="1"):
    return DeliveredTrade(
        connection, sequence, t * 1000 if ts_recv is None else ts_recv, (t, p, "1", 0), repeat
    )


def test_the_log_gives_the_last_minute_and_each_trade_once():
    log = [
        raw(1, T),
        raw(2, T + 60_001),
        raw(3, T + 70_000),
        raw(3, T + 70_000),
        raw(4, T + 70_000),
    ]
    assert [trade[0] for _, trade in last_minute(log)] == [T + 60_001, T + 70_000, T + 70_000]


def test_the_last_trade_of_the_log_counts_once_though_it_was_a_repeat():
    again = raw(1, T, repeat=True, connection="c2", ts_recv=NOW + 3600 * 1_000_000, p="1.0")
    assert list(last_minute([raw(1, T), again])) == [(again.ts_recv, again.trade)]
    soon = again._replace(ts_recv=NOW + 1)
    assert list(last_minute([raw(1, T), soon])) == [(NOW, (T, "1", "1", 0))]


@pytest.mark.parametrize("field", ["price", "volume"])
def test_a_trade_of_the_log_that_has_no_numbers_is_none_to_compare_with(field):
    example = load_example("raw_trade")
    key = example["symbol"].encode()
    read = _Reader(lambda value: (None, value), [example["symbol"]], example["source"])
    assert read(key, example).trade[0] == example["ts_event"]
    assert read(key, {**example, field: "n/a"}) is None
