"""Renders a statement as JSON or CSV, page by page: only one page is in memory."""

import codecs
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Final

import orjson

from wallets import money
from wallets.contract.fields import format_time
from wallets.contract.responses import operation_body
from wallets.ledger import Record, Statement
from wallets.operation_types import signed

COLUMNS: Final = (
    *("time", "sequence", "operationType", "amount", "balance", "currency", "description", "operationId"),
    *(
        "transferId",
        "counterpartyWalletId",
        "holdId",
        "reversesId",
        "idempotencyKey",
        "reference",
        "metadata",
    ),
)
# A spreadsheet evaluates a cell that starts with = + - @ or their wide forms, some also after white space. In
# another locale it splits lines at ; or tab and treats our quotes as text, so a cell starts after any of
# these. Spaces and quotes before the formula do not prevent this.
_FORMULA: Final = re.compile(
    r"""^(?=[\t\r\n]) | (?:^|(?<=[,;\t\r\n])) (?= (?:[^\S\t\r\n]|")* [=+\-@＝＋－＠])""", re.VERBOSE
)
_NEEDS_QUOTES: Final = re.compile(r'[",;\t\r\n]')


def as_json(statement: Statement) -> Iterator[bytes]:
    """Yield the statement as one JSON object."""
    currency = statement.currency
    head = {
        "walletId": str(statement.wallet_id),
        "currency": currency,
        "from": format_time(statement.begin),
        "to": format_time(statement.end),
        "openingBalance": money.format_amount(statement.opening.balance, currency),
    }
    yield orjson.dumps(head)[:-1] + b',"entries":['
    separator = b""
    for page in statement.pages():
        yield separator + b",".join(orjson.dumps(operation_body(entry, currency)) for entry in page)
        separator = b","
    tail = {"closingBalance": money.format_amount(statement.closing.balance, currency)}
    yield b"]," + orjson.dumps(tail)[1:]


def as_csv(statement: Statement, separator: str = ",", *, with_bom: bool = False) -> Iterator[bytes]:
    """Yield CSV (RFC 4180). The first row has the opening balance, the last row the closing balance.

    With a byte order mark, spreadsheet programs read other letters than ASCII as UTF-8.
    """
    if with_bom:
        yield codecs.BOM_UTF8
    opening, closing = (
        money.format_amount(mark.balance, statement.currency)
        for mark in (statement.opening, statement.closing)
    )
    first, last = (
        _balance_row(name, at, balance, statement.currency)
        for name, at, balance in (
            ("OPENING_BALANCE", statement.begin, opening),
            ("CLOSING_BALANCE", statement.end, closing),
        )
    )
    yield csv_lines(separator, COLUMNS, first)
    for page in statement.pages():
        yield csv_lines(separator, *(_entry_row(entry, statement.currency) for entry in page))
    yield csv_lines(separator, last)


def csv_lines(separator: str, *rows: tuple[object, ...]) -> bytes:
    """Return the rows as CSV (RFC 4180), in UTF-8."""
    return "".join(f"{separator.join(map(_cell, row))}\r\n" for row in rows).encode()


def _cell(value: object) -> str:
    """Quote a text also for the separators of other locales, which the csv module does not quote."""
    text = "" if value is None else str(value)
    if not _NEEDS_QUOTES.search(text):
        return text
    return '"{}"'.format(text.replace('"', '""'))


def _balance_row(name: str, at: datetime, balance: str, currency: str) -> tuple[object, ...]:
    row = (format_time(at), None, name, None, balance, currency)
    return row + (None,) * (len(COLUMNS) - len(row))


def _entry_row(entry: Record, currency: str) -> tuple[object, ...]:
    body = operation_body(entry, currency)
    amount = money.format_amount(signed(entry.type, entry.amount), currency)
    body |= {"time": body["createdAt"], "operationId": body["id"], "amount": amount}
    body["metadata"] = orjson.dumps(body["metadata"]).decode() if body["metadata"] else ""
    for name in ("description", "idempotencyKey", "reference", "metadata"):
        body[name] = without_formulas(body[name] or "")
    return tuple(body[name] for name in COLUMNS)


def without_formulas(text: str) -> str:
    """Return the text with `'` before everything that a spreadsheet would evaluate as a formula."""
    return _FORMULA.sub("'", text)
