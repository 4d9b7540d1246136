"""A statement as bytes, page by page: however long it is, a page is all that is in memory."""

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
    *("transferId", "counterpartyWalletId", "holdId", "reversesId", "idempotencyKey"),
)
# A spreadsheet computes a cell that begins with one of = + - @ or their wide forms; some do after white
# space. One of another locale splits lines at ; or tab and takes our quotes for text: there a cell begins
# after any of these. Spaces and quotes before the formula do not stop it.
_FORMULA: Final = re.compile(
    r"""^(?=[\t\r\n]) | (?:^|(?<=[,;\t\r\n])) (?= (?:[^\S\t\r\n]|")* [=+\-@＝＋－＠])""", re.VERBOSE
)
_NEEDS_QUOTES: Final = re.compile(r'[",;\t\r\n]')


def as_json(statement: Statement) -> Iterator[bytes]:
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


def as_csv(statement: Statement) -> Iterator[bytes]:
    """RFC 4180, with the balances as first and last row: the amounts between lead from one to the other."""
    opening, closing = (
        money.format_amount(mark.balance, statement.currency)
        for mark in (statement.opening, statement.closing)
    )
    yield _lines(COLUMNS, _balance_row("OPENING_BALANCE", statement.begin, opening, statement.currency))
    for page in statement.pages():
        yield _lines(*(_entry_row(entry, statement.currency) for entry in page))
    yield _lines(_balance_row("CLOSING_BALANCE", statement.end, closing, statement.currency))


def _lines(*rows: tuple[object, ...]) -> bytes:
    return "".join(f"{','.join(map(_cell, row))}\r\n" for row in rows).encode()


def _cell(value: object) -> str:
    """Quoted also for the separators of other locales, for which the csv module leaves text as it is."""
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
    for name in ("description", "idempotencyKey"):
        body[name] = _plain(body[name] or "")
    return tuple(body[name] for name in COLUMNS)


def _plain(text: str) -> str:
    """The client's text with `'` before whatever a spreadsheet would take for a formula."""
    return _FORMULA.sub("'", text)
