"""Currencies and amounts: parse, check, format. Decimal only, never float.

The currencies are listed here and not read from a library: an update that drops a withdrawn currency would
make its wallets unreadable. Source: ISO 4217, list one of 2026-01-01 and list three (withdrawn), as published
by SIX. A currency that leaves list one moves to _WITHDRAWN and stays; tests/ledger/test_money.py compares.
"""

import re
from decimal import Decimal
from typing import Final

# By number of fraction digits. Codes without fraction digits in the standard (gold, the test code) are
# excluded.
_IN_USE: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF"
    " CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD"
    " GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL"
    " MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR"
    " PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP"
    " TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
# Withdrawn since 2014. No new wallet can use them; existing wallets still work.
_WITHDRAWN: Final = {
    0: "BYR",
    2: "ANG BGN CUC HRK LTL LVL MRO SLL STD USS VEF ZWL",
}


def _by_code(codes: dict[int, str]) -> dict[str, int]:
    return {code: digits for digits, names in codes.items() for code in names.split()}


WITHDRAWN: Final = frozenset(_by_code(_WITHDRAWN))
OPENABLE: Final = tuple(sorted(_by_code(_IN_USE)))
FRACTION_DIGITS: Final[dict[str, int]] = _by_code(_IN_USE) | _by_code(_WITHDRAWN)

_UNITS: Final = {code: Decimal(1).scaleb(-digits) for code, digits in FRACTION_DIGITS.items()}

# The limit of every balance: numeric(28,4) can store more.
MAX_BALANCE: Final = Decimal(10) ** 21

# JSON's number grammar without sign and exponent; \d would match digits of other scripts.
_AMOUNT: Final = re.compile(r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_MAX_LENGTH: Final = 40


def parse(text: str) -> Decimal:
    """Return the exact amount that `text` writes.

    Raises ValueError for anything but plain ASCII digits with at most one point between digits.
    """
    if len(text) > _MAX_LENGTH or not _AMOUNT.fullmatch(text):
        raise ValueError(
            "write an amount as digits with at most one point, such as 115.60: no sign, exponent or separator"
        )
    return Decimal(text)


def fits(amount: Decimal, currency: str) -> bool:
    """Whether the amount has no more fraction digits than the currency, except zeros at the end."""
    _, digits, exponent = amount.as_tuple()
    if not isinstance(exponent, int):  # NaN or infinity
        return False
    excess = -exponent - FRACTION_DIGITS[currency]
    return excess <= 0 or not any(digits[-excess:])


def format_amount(amount: Decimal, currency: str) -> str:
    """Return the amount with exactly the currency's fraction digits: "1000.00"."""
    return str(amount.quantize(_UNITS[currency]))
