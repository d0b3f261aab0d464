"""Decimal strings to exact units and back."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.decimals import LIMIT, NotADecimal, divide_half_even, to_text, to_units

UNITS = st.integers(min_value=-LIMIT + 1, max_value=LIMIT - 1)


@given(UNITS)
def test_units_survive_the_way_to_text_and_back(units):
    assert to_units(to_text(units)) == units


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, min_value=-(10**19), max_value=10**19, places=18
    )
)
def test_any_spelling_of_a_number_gives_the_same_units(number):
    exact = Fraction(number) * 10**18
    assert to_units(f"{number:f}") == exact
    assert to_units(f"{number:e}") == exact


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("98.150", 98_150_000_000_000_000_000),
        ("0", 0),
        ("-0.0", 0),
        ("1E-7", 10**11),
        ("5e2", 500 * 10**18),
    ],
)
def test_the_vendors_spellings_are_read(text, units):
    assert to_units(text) == units


def test_zeros_behind_the_eighteenth_digit_are_no_loss():
    assert to_units("0.1" + "0" * 30) == 10**17


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "1_000",
        "+1",
        ".5",
        "5.",
        "NaN",
        "Infinity",
        "-inf",
        "0x10",
        "１",
        "1,5",
        "1e",
        "0.1234567890123456789",
        "1e20",
        "9" * 400,
        "1e999",
    ],
)
def test_what_is_no_exact_decimal_is_refused(text):
    with pytest.raises(NotADecimal):
        to_units(text)


@given(st.integers(-(10**60), 10**60), st.integers(1, 10**40))
def test_division_rounds_half_to_even(numerator, denominator):
    assert divide_half_even(numerator, denominator) == round(Fraction(numerator, denominator))


def test_text_is_plain_and_has_no_zeros_to_spare():
    assert [to_text(to_units(text)) for text in ("61800.30", "100", "-0.50", "1e-18")] == [
        "61800.3",
        "100",
        "-0.5",
        str(Decimal("1e-18").__format__("f")),
    ]
