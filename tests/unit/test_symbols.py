"""A symbol's business and the split into feeds."""

import pytest

from producers.vendor.symbols import (
    MAX_SYMBOLS,
    BadSymbol,
    BadSymbols,
    Feed,
    business_of,
    is_common_by_default,
    plan_feeds,
)


@pytest.mark.parametrize(
    ("symbol", "business"),
    [
        ("00700.HK", "stock"),
        ("AAPL.US", "stock"),
        ("BRK.B.US", "stock"),
        ("600519.SH", "stock"),
        ("002594.SZ", "stock"),
        ("7203.JP", "japan"),
        ("005930.KS", "korea"),
        ("RELIANCE.IN", "india"),
        ("M&M.IN", "india"),
        ("2330.TW", "taiwan"),
        ("BTCUSDT", "crypto"),
        ("ETHUSDC", "crypto"),
        ("BTCUSD", "crypto"),
        ("XRPUSD", "crypto"),
        ("USDJPY", "common"),
        ("EURUSD", "common"),
        ("XAUUSD", "common"),
        ("USOIL", "common"),
        ("ESH4", "common"),
    ],
)
def test_business_follows_suffix_or_pair(symbol, business):
    assert business_of(symbol) == business


@pytest.mark.parametrize(
    ("symbol", "advice"),
    [
        ("700.HK", "write 00700.HK"),
        ("000700.HK", "check the code"),
        ("60051.SH", "write 060051.SH"),
        ("AAPL.XX", ".HK .US"),
        (".US", ".HK .US"),
        ("btcusdt", "write BTCUSDT"),
        (" TSLA.US", "write TSLA.US"),
        ("", "00700.HK"),
        ("A,B", "00700.HK"),
        ("A B", "00700.HK"),
        ("A\u3000B", "00700.HK"),
        ("A\tUSDT", "00700.HK"),
        ("A\u200dUSDT", "00700.HK"),
        ("A\u202eUSDT", "00700.HK"),
        ("A" * 33, "00700.HK"),
        ("A/BUSDT", "A/BUSDT:crypto"),
        ("０0700.HK", "check the code"),
        ("٠٠٧٠٠.HK", "check the code"),
    ],
)
def test_bad_symbol_says_in_one_line_what_to_write(symbol, advice):
    with pytest.raises(BadSymbol) as raised:
        business_of(symbol)
    assert advice in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.symbol == symbol


@pytest.mark.parametrize(
    ("symbol", "business"),
    [
        ("币安人生USDT", "crypto"),
        ("ДОГЕUSDC", "crypto"),
        ("ÑUSDT", "crypto"),
        ("नमUSDT", "crypto"),
        ("ミーム.JP", "japan"),
    ],
)
def test_letters_digits_and_marks_of_any_script_are_a_symbol(symbol, business):
    assert business_of(symbol) == business


@pytest.mark.parametrize(
    "symbol", ["币安人生", "btcusdt", "BRK/B", "AAPL.XX", "700.HK", "$PEPE", "💎USDT", "a*b'c"]
)
def test_an_override_is_a_way_out_for_any_signs(symbol):
    assert business_of(symbol, {symbol: "crypto"}) == "crypto"
    assert plan_feeds([symbol], {symbol: "crypto"}) == [Feed("crypto-1", "crypto", (symbol,))]


@pytest.mark.parametrize(
    "symbol",
    ["", "A B", "A,B", "A:B", "A#B", "A\nB", "A\x00", "A\u2028B", "A\u200eB", "A" * 33, "A\ue000"],
)
def test_no_override_makes_a_symbol_of_separators_and_controls(symbol):
    with pytest.raises(BadSymbol, match="is no symbol"):
        business_of(symbol, {symbol: "crypto"})


def test_symbols_are_asked_for_in_normal_form_c():
    decomposed = "N\u0303USDT"
    assert plan_feeds([decomposed, "ÑUSDT"], {decomposed: "common"}) == [
        Feed("common-1", "common", ("ÑUSDT",))
    ]


@pytest.mark.parametrize(
    ("symbol", "guessed"),
    [
        ("USDJPY", False),
        ("XAUUSD", False),
        ("BTCUSDT", False),
        ("AAPL.US", False),
        ("ESH4", True),
        ("币安人生", True),
    ],
)
def test_common_is_a_guess_where_nothing_says_currencies(symbol, guessed):
    assert is_common_by_default(symbol) is guessed


def test_override_wins_over_suffix_and_must_name_a_business():
    assert business_of("BTCUSD", {"BTCUSD": "common"}) == "common"
    with pytest.raises(BadSymbol, match="unknown business 'coins'"):
        business_of("BTCUSD", {"BTCUSD": "coins"})


def test_feeds_carry_one_business_each_in_the_order_given():
    assert plan_feeds(["TSLA.US", "BTCUSDT", "00700.HK", "TSLA.US"]) == [
        Feed("stock-1", "stock", ("TSLA.US", "00700.HK")),
        Feed("crypto-1", "crypto", ("BTCUSDT",)),
    ]


def test_feed_is_split_at_the_limit_of_a_connection():
    symbols = [f"{number:05d}.HK" for number in range(MAX_SYMBOLS + 1)]
    first, second = plan_feeds(symbols)
    assert (first.name, len(first.symbols)) == ("stock-1", MAX_SYMBOLS)
    assert (second.name, second.symbols) == ("stock-2", ("00600.HK",))


def test_every_mistake_in_a_list_is_reported_at_once():
    with pytest.raises(BadSymbols) as raised:
        plan_feeds(["700.HK", "BTCUSDT", "AAPL.XX"])
    assert [mistake.symbol for mistake in raised.value.mistakes] == ["700.HK", "AAPL.XX"]
    assert "\n" not in str(raised.value)
