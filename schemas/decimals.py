"""Exact decimals as integers in units of 10^-18, the resolution of every `decimal(38,18)` field; no
arithmetic of markets."""

import re
from decimal import Decimal

SCALE = 18
UNIT: int = 10**SCALE
LIMIT: int = 10**38
"""Units that no longer fit `decimal(38,18)`."""

_LONGEST = 100
"""Characters of a decimal's text: texts are remembered, and with zeros behind the point they could
have any length."""

_PLAIN = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?", re.ASCII)
_EXPONENT = re.compile(r"-?[0-9]+(?:\.[0-9]+)?[eE][+-]?[0-9]{1,3}", re.ASCII)
_POWER: tuple[int, ...] = tuple(10 ** (SCALE - digits) for digits in range(SCALE + 1))
_PADDING = tuple("0" * (SCALE - digits) for digits in range(SCALE + 1))


class NotADecimal(ValueError):
    """A text that is no finite decimal, or none that 38 digits with 18 behind the point can hold
    exactly."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"{text[:60]!r} {reason}")
        self.text = text
        self.reason = reason


def to_units(text: str) -> int:
    """Return the decimal `text` in units of 10^-18, exactly.

    Raises NotADecimal for what is no decimal number (NaN and infinities too), has more than 18
    significant digits behind the point, or is 10^20 and more.
    """
    whole, point, fraction = text.partition(".")
    digits = whole + fraction
    if (
        digits.isdecimal()
        and digits.isascii()
        and 0 < len(whole) <= 20
        and len(fraction) <= SCALE
        and (fraction or not point)
    ):
        return int(digits) * _POWER[len(fraction)]
    return _unusual_to_units(text)


def to_text(units: int) -> str:
    """Return units of 10^-18 as a plain decimal string with no zeros to spare: `61800.3`, `0`,
    `-0.5`."""
    whole, fraction = divmod(abs(units), UNIT)
    text = f"{whole}.{fraction:018d}".rstrip("0").rstrip(".") if fraction else str(whole)
    return f"-{text}" if units < 0 else text


def divide_half_even(numerator: int, denominator: int) -> int:
    """Return numerator / denominator rounded half to even; the denominator is positive."""
    quotient, remainder = divmod(numerator, denominator)
    twice = remainder * 2
    if twice > denominator or (twice == denominator and quotient & 1):
        quotient += 1
    return quotient


def _unusual_to_units(text: str) -> int:
    if len(text) > _LONGEST:
        raise NotADecimal(text, f"has more than {_LONGEST} characters")
    match = _PLAIN.fullmatch(text)
    if match is None:
        return _exponent_to_units(text)
    sign, whole, fraction = match.groups()
    if fraction is None:
        units = int(whole) * UNIT if len(whole) <= 60 else LIMIT
    else:
        if len(fraction) > SCALE:
            if fraction[SCALE:].strip("0"):
                raise NotADecimal(text, f"has more than {SCALE} digits behind the point")
            fraction = fraction[:SCALE]
        units = int(whole + fraction + _PADDING[len(fraction)]) if len(whole) <= 60 else LIMIT
    if units >= LIMIT:
        raise NotADecimal(text, "does not fit decimal(38,18)")
    return -units if sign else units


def _exponent_to_units(text: str) -> int:
    if _EXPONENT.fullmatch(text) is None:
        raise NotADecimal(text, "is not a decimal number")
    sign, digits, exponent = Decimal(text).as_tuple()
    assert isinstance(exponent, int)
    number = int("".join(map(str, digits)))
    shift = exponent + SCALE
    power: int = 10 ** abs(shift)
    units, rest = (number * power, 0) if shift >= 0 else divmod(number, power)
    if rest:
        raise NotADecimal(text, f"has more than {SCALE} digits behind the point")
    if units >= LIMIT:
        raise NotADecimal(text, "does not fit decimal(38,18)")
    return -units if sign else units
