"""Amounts: parsing, refused texts and formatting."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iso4217 import Currency

from wallets import money


@pytest.mark.parametrize("text", ["0", "1", "1000", "115.6", "115.60", "0.01", "99999999999999999999.9999"])
def test_plain_decimal_notation_is_parsed_exactly(text: str) -> None:
    assert str(money.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "-1", "+1", "-0", "1e3", "1E3", "1_000", "1,000", "1 000", " 1", "1 ", "1\n", "0x10"),
        *(".5", "5.", ".", "1.2.3", "01", "00", "NaN", "nan", "Infinity", "inf", "sNaN"),
        *("١٢٣", "１２", "½", "1.٥", "1" * 41, "0." + "0" * 60, "1\x00"),
    ],
)
def test_other_notation_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="digits"):
        money.parse(text)


@pytest.mark.parametrize(
    ("amount", "currency", "fits"),
    [
        ("1", "JPY", True),
        ("1.0", "JPY", True),
        ("1.5", "JPY", False),
        ("1.00", "EUR", True),
        ("1.0000", "EUR", True),
        ("1.001", "EUR", False),
        ("0.00001", "EUR", False),
        ("0.00000", "EUR", True),
        ("100." + "0" * 37, "EUR", True),
        ("0." + "0" * 37 + "1", "EUR", False),
        ("NaN", "EUR", False),
        ("1.234", "KWD", True),
        ("1.2345", "KWD", False),
        ("1.2345", "CLF", True),
    ],
)
def test_fraction_digits_are_limited_by_the_currency(amount: str, currency: str, fits: bool) -> None:
    assert money.fits(Decimal(amount), currency) is fits


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [("1", "EUR", "1.00"), ("-5.5", "EUR", "-5.50"), ("1.0000", "JPY", "1"), ("0", "KWD", "0.000")],
)
def test_amount_is_formatted_with_the_digits_of_its_currency(amount: str, currency: str, text: str) -> None:
    assert money.format_amount(Decimal(amount), currency) == text


@given(st.decimals(min_value=0, max_value=10**20, places=2, allow_nan=False))
def test_formatted_amount_is_parsed_to_the_same_value(amount: Decimal) -> None:
    assert money.parse(money.format_amount(amount, "EUR")) == amount


def test_listed_currencies_are_those_of_the_installed_library() -> None:
    """A new currency is added to wallets/money.py; one that the standard withdraws moves to _WITHDRAWN."""
    in_use = {code: money.FRACTION_DIGITS[code] for code in money.OPENABLE}
    assert in_use == {each.code: each.exponent for each in Currency if each.exponent is not None}
    assert set(money.FRACTION_DIGITS) - set(money.OPENABLE) == money.WITHDRAWN


def test_currencies_without_fraction_digits_in_the_standard_are_not_money() -> None:
    assert "XXX" not in money.FRACTION_DIGITS
    assert money.FRACTION_DIGITS["RUB"] == 2
