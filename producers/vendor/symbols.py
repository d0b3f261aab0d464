"""Which of the vendor's businesses carries a symbol, and how symbols are split into feeds; asks no server."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

BUSINESSES = ("stock", "crypto", "common", "japan", "india", "korea", "taiwan")
MAX_SYMBOLS = 600
"""Symbols that the vendor allows on one connection, whatever the plan."""

_BUSINESS_OF_SUFFIX = {
    "HK": "stock",
    "US": "stock",
    "SH": "stock",
    "SZ": "stock",
    "JP": "japan",
    "KS": "korea",
    "IN": "india",
    "TW": "taiwan",
}
_DIGITS_OF_SUFFIX = {"HK": 5, "SH": 6, "SZ": 6}
_SYMBOL = re.compile(r"[A-Z0-9.&_=^+-]{1,32}", re.ASCII)

# What is quoted against the dollar and is no coin: currencies, and metals and energy under their X codes.
_NO_COINS = frozenset(
    (
        "AED", "ARS", "AUD", "BGN", "BHD", "BRL", "CAD", "CHF", "CLP", "CNH", "CNY", "COP", "CZK", "DKK", "EGP", "EUR",
        "GBP", "HKD", "HUF", "IDR", "ILS", "INR", "ISK", "JOD", "JPY", "KES", "KRW", "KWD", "KZT", "MAD", "MXN", "MYR",
        "NGN", "NOK", "NZD", "OMR", "PEN", "PHP", "PKR", "PLN", "QAR", "RON", "RUB", "SAR", "SEK", "SGD", "THB", "TRY",
        "TWD", "UAH", "VND", "ZAR", "XAU", "XAG", "XPT", "XPD", "XCU", "XTI", "XBR", "XNG", "XAL", "XNI", "XPB", "XZN",
    )
)  # fmt: skip


class BadSymbol(ValueError):
    """A symbol that the vendor cannot know."""

    def __init__(self, symbol: str, reason: str, advice: str) -> None:
        super().__init__(f"symbol {symbol[:40]!r} {reason}: {advice}")
        self.symbol = symbol
        self.reason = reason
        self.advice = advice


class BadSymbols(ValueError):
    """Every mistake in a list of symbols, in one line."""

    def __init__(self, mistakes: Iterable[BadSymbol]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("; ".join(map(str, self.mistakes)))


@dataclass(frozen=True, slots=True)
class Feed:
    """The stable place of one connection, `<business>-<n>`, and the symbols that it carries."""

    name: str
    business: str
    symbols: tuple[str, ...]


def plan_feeds(
    symbols: Iterable[str], overrides: Mapping[str, str] | None = None, limit: int = MAX_SYMBOLS
) -> list[Feed]:
    """Return the feeds for these symbols: one business each, at most `limit` symbols each, in the order given.

    A symbol named twice is taken once. Raises BadSymbols with every mistake.
    """
    grouped: dict[str, list[str]] = {}
    mistakes: list[BadSymbol] = []
    for symbol in dict.fromkeys(symbols):
        try:
            grouped.setdefault(business_of(symbol, overrides), []).append(symbol)
        except BadSymbol as mistake:
            mistakes.append(mistake)
    if mistakes:
        raise BadSymbols(mistakes)
    return [
        Feed(f"{business}-{start // limit + 1}", business, tuple(members[start : start + limit]))
        for business, members in grouped.items()
        for start in range(0, len(members), limit)
    ]


def business_of(symbol: str, overrides: Mapping[str, str] | None = None) -> str:
    """Return the business that carries a symbol, by its suffix or pair; an override wins. Raises BadSymbol."""
    if _SYMBOL.fullmatch(symbol) is None:
        if _SYMBOL.fullmatch(symbol.strip().upper()):
            raise BadSymbol(
                symbol, "is not in the vendor's spelling", f"write {symbol.strip().upper()}"
            )
        raise BadSymbol(
            symbol,
            "is no symbol",
            "write it as the vendor does, such as 00700.HK, AAPL.US, BTCUSDT or USDJPY",
        )
    if overrides and symbol in overrides:
        business = overrides[symbol]
        if business not in BUSINESSES:
            raise BadSymbol(
                symbol,
                f"is assigned to the unknown business {business!r}",
                f"choose one of {', '.join(BUSINESSES)}",
            )
        return business
    stem, point, suffix = symbol.rpartition(".")
    if not point:
        return "crypto" if _is_coin_pair(symbol) else "common"
    if suffix not in _BUSINESS_OF_SUFFIX or not stem:
        raise BadSymbol(
            symbol,
            f"has no market that is known (.{suffix})",
            f"end it with one of .{' .'.join(_BUSINESS_OF_SUFFIX)}, or name its business",
        )
    digits = _DIGITS_OF_SUFFIX.get(suffix)
    if digits and not (stem.isdigit() and len(stem) == digits):
        written = (
            f"write {stem.zfill(digits)}.{suffix}"
            if stem.isdigit() and len(stem) < digits
            else "check the code"
        )
        raise BadSymbol(symbol, f"does not have the {digits} digits of a .{suffix} code", written)
    return _BUSINESS_OF_SUFFIX[suffix]


def _is_coin_pair(symbol: str) -> bool:
    if symbol.endswith(("USDT", "USDC")):
        return len(symbol) > 4
    base = symbol.removesuffix("USD")
    return bool(base) and base != symbol and base not in _NO_COINS
