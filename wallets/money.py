"""Currencies and amounts: parse, check, format. Decimal only, never float."""

import re
from decimal import Decimal
from typing import Final

from iso4217 import Currency

# Fraction digits of every currency of ISO 4217 that has them (gold and the test code have none).
FRACTION_DIGITS: Final[dict[str, int]] = {c.code: c.exponent for c in Currency if c.exponent is not None}

_UNITS: Final = {code: Decimal(1).scaleb(-digits) for code, digits in FRACTION_DIGITS.items()}

# A sum that numeric(28,4) holds with room to spare; no balance may leave it.
MAX_BALANCE: Final = Decimal(10) ** 21

# JSON's number grammar without sign and exponent; \d would take other scripts' digits.
_AMOUNT: Final = re.compile(r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_MAX_LENGTH: Final = 40


def parse(text: str) -> Decimal:
    """The amount that `text` writes, exactly.

    Raises ValueError for anything but plain ASCII digits with at most one point between digits.
    """
    if len(text) > _MAX_LENGTH or not _AMOUNT.fullmatch(text):
        raise ValueError("write an amount as digits with at most one point, such as 115.60")
    return Decimal(text)


def fits(amount: Decimal, currency: str) -> bool:
    """Whether the amount, as written, has no more fraction digits than the currency."""
    exponent = amount.as_tuple().exponent
    return isinstance(exponent, int) and -exponent <= FRACTION_DIGITS[currency]


def format_amount(amount: Decimal, currency: str) -> str:
    """The amount with exactly the currency's fraction digits: "1000.00"."""
    return str(amount.quantize(_UNITS[currency]))
