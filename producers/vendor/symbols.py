"""Finds the vendor's business of a symbol, and splits symbols into feeds; no I/O."""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from schemas.business import BUSINESSES as BUSINESSES
from schemas.errors import SettingsWrong

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
_LONGEST = 32
_LETTERS = frozenset(("L", "M", "N"))
"""Major Unicode categories that any symbol may have: letters, marks, digits."""
_SIGNS = frozenset(".&_=^+-")
_NEVER = frozenset(("Z", "C"))
"""Separators and controls, which no symbol has. Comma, colon and # belong to lists of symbols."""
_LISTS = frozenset(",:#")

# quoted against the dollar, and no coins: currencies, and metals and energy by their X codes
_NO_COINS = frozenset(
    (
        "AED", "ARS", "AUD", "BGN", "BHD", "BRL", "CAD", "CHF", "CLP", "CNH", "CNY", "COP",
        "CZK", "DKK", "EGP", "EUR", "GBP", "HKD", "HUF", "IDR", "ILS", "INR", "ISK", "JOD",
        "JPY", "KES", "KRW", "KWD", "KZT", "MAD", "MXN", "MYR", "NGN", "NOK", "NZD", "OMR",
        "PEN", "PHP", "PKR", "PLN", "QAR", "RON", "RUB", "SAR", "SEK", "SGD", "THB", "TRY",
        "TWD", "UAH", "VND", "ZAR", "XAU", "XAG", "XPT", "XPD", "XCU", "XTI", "XBR", "XNG",
        "XAL", "XNI", "XPB", "XZN",
    )
)  # fmt: skip


class BadSymbol(SettingsWrong):
    """The vendor cannot know this symbol."""

    def __init__(self, symbol: str, reason: str, advice: str) -> None:
        super().__init__(f"symbol {symbol[:40]!r} {reason}: {advice}")
        self.symbol = symbol
        self.reason = reason
        self.advice = advice


class BadSymbols(SettingsWrong):
    """Names every mistake in a list of symbols, in one line."""

    def __init__(self, mistakes: Iterable[BadSymbol]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("; ".join(map(str, self.mistakes)))


@dataclass(frozen=True, slots=True)
class Feed:
    """The symbols of one connection, with a stable name, `<business>-<n>`."""

    name: str
    business: str
    symbols: tuple[str, ...]


def plan_feeds(
    symbols: Iterable[str], overrides: Mapping[str, str] | None = None, limit: int = MAX_SYMBOLS
) -> list[Feed]:
    """Return the feeds for these symbols: one business each, at most `limit` symbols each, in the
    order given.

    A symbol named twice counts once. Each is put into Unicode's normal form C, as the vendor
    writes. Raises BadSymbols with every mistake.
    """
    grouped: dict[str, list[str]] = {}
    mistakes: list[BadSymbol] = []
    overrides = {normal(symbol): business for symbol, business in (overrides or {}).items()}
    for symbol in dict.fromkeys(map(normal, symbols)):
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
    """Return the business that carries a symbol, by its suffix or pair.

    An override comes first, whatever characters the symbol has.

    Raises BadSymbol.
    """
    if overrides and symbol in overrides and _is_one_word(symbol):
        business = overrides[symbol]
        if business not in BUSINESSES:
            raise BadSymbol(
                symbol,
                f"is assigned to the unknown business {business!r}",
                f"choose one of {', '.join(BUSINESSES)}",
            )
        return business
    if not _is_plain(symbol):
        upper = symbol.strip().upper()
        if _is_plain(upper):
            raise BadSymbol(symbol, "is not in the vendor's spelling", f"write {upper}")
        advice = "write it as the vendor does, such as 00700.HK, AAPL.US, BTCUSDT or USDJPY"
        if _is_one_word(symbol):
            advice += f", or name its business, such as {symbol[:_LONGEST]}:crypto"
        raise BadSymbol(symbol, "is no symbol", advice)
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
    numbered = stem.isascii() and stem.isdigit()
    if digits and not (numbered and len(stem) == digits):
        written = (
            f"write {stem.zfill(digits)}.{suffix}"
            if numbered and len(stem) < digits
            else "check the code"
        )
        raise BadSymbol(symbol, f"does not have the {digits} digits of a .{suffix} code", written)
    return _BUSINESS_OF_SUFFIX[suffix]


def is_common_by_default(symbol: str) -> bool:
    """Return whether a symbol is `common` only because nothing in it names another business."""
    pair = symbol[:3], symbol[3:]
    return (
        "." not in symbol
        and not _is_coin_pair(symbol)
        and not all(code == "USD" or code in _NO_COINS for code in pair)
    )


def normal(symbol: str) -> str:
    """Return a symbol in Unicode's normal form C."""
    return unicodedata.normalize("NFC", symbol)


def _is_one_word(symbol: str) -> bool:
    """Return whether a symbol can be asked for: not empty, and no separators or controls."""
    return 0 < len(symbol) <= _LONGEST and not any(
        unicodedata.category(each)[0] in _NEVER or each in _LISTS for each in symbol
    )


def _is_plain(symbol: str) -> bool:
    """Return whether a symbol has the vendor's spelling: letters, marks and digits of any script,
    ASCII letters in upper case."""
    if not _is_one_word(symbol):
        return False
    return all(
        each in _SIGNS or (unicodedata.category(each)[0] in _LETTERS and not "a" <= each <= "z")
        for each in symbol
    )


def _is_coin_pair(symbol: str) -> bool:
    if symbol.endswith(("USDT", "USDC")):
        return len(symbol) > 4
    base = symbol.removesuffix("USD")
    return bool(base) and base != symbol and base not in _NO_COINS
