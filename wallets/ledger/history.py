"""A wallet's balance at any past time, and its statement: read-only, and exact for every microsecond.

Every write to a wallet has the database's time under the wallet's lock, and is later than all earlier writes.
So the history up to the wallet's `updated_at` is final. For a later time in the past, a transaction that
holds the lock now may still add an earlier operation; a transaction that locks the wallet afterwards cannot.
(If the database's clock was set back, only the history up to `updated_at` is final.)
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from django.db import connection, transaction

from wallets.database_retry import retry_until_deadline
from wallets.ledger.decisions import CLOCK_TICK
from wallets.ledger.reader import read_wallet
from wallets.ledger.tables import Record, to_record
from wallets.models import Wallet
from wallets.problems import FieldError, ValidationError, WalletNotFound

STATEMENT_PAGE_SIZE: Final = 500  # entries in memory at a time

_WALLET: Final = """
    SELECT currency, created_at, updated_at, greatest(clock_timestamp(), updated_at) FROM wallet WHERE id = %s
"""
# FOR SHARE conflicts with the FOR NO KEY UPDATE of writers, and not with other readers.
_WAIT: Final = "SELECT FROM wallet WHERE id = %s FOR SHARE"
# Uses only the index operation_created_at_unique. The wallet id is a subquery, here and below, so that
# PostgreSQL plans for any wallet, and does not scan the newest rows of all wallets because this one has many.
_NEWEST: Final = """
    SELECT sequence, balance_after FROM operation
    WHERE wallet_id = (SELECT %s::uuid) AND created_at < %s AND sequence IS NOT NULL
    ORDER BY created_at DESC LIMIT 1
"""
_HELD: Final = """
    SELECT coalesce(sum(amount), 0) FROM hold
    WHERE wallet_id = (SELECT %s::uuid) AND created_at <= %s
        AND coalesce(ended_at, expires_at, 'infinity') > %s
"""
_ENTRIES: Final = f"""
    SELECT {", ".join(field.name for field in fields(Record))} FROM operation
    WHERE wallet_id = %s AND sequence > %s AND sequence <= %s ORDER BY sequence
"""  # noqa: S608


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """The balance of a wallet at a time. `sequence` counts the operations that had moved money by then."""

    wallet_id: UUID
    currency: str
    balance: Decimal
    held: Decimal
    sequence: int
    at: datetime


@dataclass(frozen=True, slots=True)
class BalancePoint:
    """The number of entries of a wallet at a time, and its balance."""

    sequence: int
    balance: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """The operations that moved money at `begin` or later and before `end`; `pages` reads them."""

    wallet_id: UUID
    currency: str
    begin: datetime
    end: datetime
    opening: BalancePoint
    closing: BalancePoint

    def pages(self) -> Iterator[list[Record]]:
        """Yield the entries, oldest first. Holds no database connection between two pages."""
        for after in range(self.opening.sequence, self.closing.sequence, STATEMENT_PAGE_SIZE):
            yield retry_until_deadline(lambda after=after: self._page(after))  # type: ignore[misc]

    def _page(self, after: int) -> list[Record]:
        upto = min(after + STATEMENT_PAGE_SIZE, self.closing.sequence)
        try:
            return [to_record(row) for row in _rows(_ENTRIES, self.wallet_id, after, upto)]
        finally:
            connection.close()  # return it to the pool


def balance_now(wallet_id: UUID) -> Balance:
    """Return the current balance; `at` is the time of its last change.

    Raises WalletNotFound.
    """
    wallet = read_wallet(wallet_id)
    if wallet is None:
        raise WalletNotFound
    if _has_expired_since(wallet):
        return balance_at(wallet_id, None)
    return Balance(
        wallet_id=wallet_id,
        currency=wallet.currency,
        balance=wallet.balance,
        held=wallet.held,
        sequence=wallet.sequence,
        at=wallet.updated_at,
    )


def balance_at(wallet_id: UUID, at: datetime | None) -> Balance:
    """Return the balance at a time, including an operation at exactly that time.

    None and a time in the future mean now; `at` of the balance is the time that was used.

    Raises WalletNotFound, also for a time before the wallet was opened.
    """
    return retry_until_deadline(lambda: _balance_at(wallet_id, at))


def statement(wallet_id: UUID, begin: datetime | None, end: datetime | None) -> Statement:
    """Return the statement, by default from the wallet's opening until now.

    A time in the future means now; `begin` and `end` of the statement are the times that were used.

    Raises WalletNotFound, or ValidationError for an end before the beginning.
    """
    return retry_until_deadline(lambda: _statement(wallet_id, begin, end))


def _has_expired_since(wallet: Wallet) -> bool:
    """Whether a hold may have expired after `updated_at` that no transaction has recorded yet."""
    return wallet.held_now != wallet.held or (
        wallet.next_expiry_at is not None and wallet.next_expiry_at <= wallet.updated_at
    )


def _balance_at(wallet_id: UUID, at: datetime | None) -> Balance:
    wallet = _span_of(wallet_id)
    time = wallet.latest if at is None else min(at, wallet.latest)
    if time < wallet.created_at:
        raise WalletNotFound("The wallet was opened after that time.")
    wallet.complete_up_to(time)
    newest = _newest_before(wallet_id, time + CLOCK_TICK)
    [(held,)] = _rows(_HELD, wallet_id, time, time)
    return Balance(
        wallet_id=wallet_id,
        currency=wallet.currency,
        balance=newest.balance,
        held=held,
        sequence=newest.sequence,
        at=time,
    )


def _statement(wallet_id: UUID, begin: datetime | None, end: datetime | None) -> Statement:
    wallet = _span_of(wallet_id)
    last = wallet.latest + CLOCK_TICK  # a statement excludes its end, and must include the latest time
    if begin and end and begin > end:
        raise ValidationError(errors=[FieldError("from", "out_of_range", "must not be after `to`")])
    end = last if end is None else min(end, last)
    begin = min(begin or wallet.created_at, end)
    if end > wallet.created_at:
        wallet.complete_up_to(end - CLOCK_TICK)
    return Statement(
        wallet_id=wallet_id,
        currency=wallet.currency,
        begin=begin,
        end=end,
        opening=_newest_before(wallet_id, begin),
        closing=_newest_before(wallet_id, end),
    )


@dataclass(frozen=True, slots=True)
class _WalletSpan:
    """A wallet, and the latest time for which its history can be read."""

    id: UUID
    currency: str
    created_at: datetime
    updated_at: datetime
    latest: datetime

    def complete_up_to(self, time: datetime) -> None:
        """Wait until no transaction can add an operation at that time or before."""
        if time <= self.updated_at:
            return
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_WAIT, [self.id])
            transaction.set_rollback(True)  # nothing to commit; a commit would wait for the disk


def _span_of(wallet_id: UUID) -> _WalletSpan:
    found = _rows(_WALLET, wallet_id)
    if not found:
        raise WalletNotFound
    return _WalletSpan(wallet_id, *found[0])


def _newest_before(wallet_id: UUID, time: datetime) -> BalancePoint:
    found = _rows(_NEWEST, wallet_id, time)
    return BalancePoint(*found[0]) if found else BalancePoint(0, Decimal(0))


def _rows(sql: str, *parameters: UUID | datetime | int) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows
