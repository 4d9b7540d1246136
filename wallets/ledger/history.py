"""What was: a wallet's balance at any moment, and its statement. Only read, and exact for every instant.

What is written to a wallet is written under its lock, with the database's time under that lock, and later
than all that was there. So up to the wallet's `updated_at` everything is known. For a later moment that is
over, whoever has the lock may still add something older; whoever gets it afterwards cannot. (Should the
database's clock be set back, that holds only up to `updated_at`.)
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

STATEMENT_PAGE_SIZE: Final = 500  # entries of a statement that are in memory at once

_WALLET: Final = """
    SELECT currency, created_at, updated_at, greatest(clock_timestamp(), updated_at) FROM wallet WHERE id = %s
"""
# Conflicts with the writers' FOR NO KEY UPDATE, and with no other reader's.
_WAIT: Final = "SELECT FROM wallet WHERE id = %s FOR SHARE"
# From operation_created_at_unique alone. The wallet as a subquery, here and below: PostgreSQL shall plan as
# for any wallet, not walk the newest of all because this one has much of the table.
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
    """What a wallet had at a moment. `sequence` counts the operations that had moved money by then."""

    wallet_id: UUID
    currency: str
    balance: Decimal
    held: Decimal
    sequence: int
    at: datetime


@dataclass(frozen=True, slots=True)
class BalancePoint:
    """Where a wallet stood: after how many entries, and with what."""

    sequence: int
    balance: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What moved money from `begin` on and before `end`. The entries are known, if not read yet."""

    wallet_id: UUID
    currency: str
    begin: datetime
    end: datetime
    opening: BalancePoint
    closing: BalancePoint

    def pages(self) -> Iterator[list[Record]]:
        """The entries, oldest first. Between two pages no connection is held."""
        for after in range(self.opening.sequence, self.closing.sequence, STATEMENT_PAGE_SIZE):
            yield retry_until_deadline(lambda after=after: self._page(after))  # type: ignore[misc]

    def _page(self, after: int) -> list[Record]:
        upto = min(after + STATEMENT_PAGE_SIZE, self.closing.sequence)
        try:
            return [to_record(row) for row in _rows(_ENTRIES, self.wallet_id, after, upto)]
        finally:
            connection.close()  # gives it back to the pool


def balance_now(wallet_id: UUID) -> Balance:
    """The balance as it is, and `at` when it was last changed: by then `balance_at` says the same.

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
    """The balance as it was at that moment, what happened in it included; None stands for the present one.

    Raises WalletNotFound, also where there was no such wallet yet, or ValidationError for the future.
    """
    return retry_until_deadline(lambda: _balance_at(wallet_id, at))


def statement(wallet_id: UUID, begin: datetime | None, end: datetime | None) -> Statement:
    """From the wallet's first moment and up to the present one, where nothing else is said.

    Raises WalletNotFound, or ValidationError for the future and for an end before the beginning.
    """
    return retry_until_deadline(lambda: _statement(wallet_id, begin, end))


def _has_expired_since(wallet: Wallet) -> bool:
    """Whether a hold may have expired that is not written down, so that `updated_at` was before it."""
    return wallet.held_now != wallet.held or (
        wallet.next_expiry_at is not None and wallet.next_expiry_at <= wallet.updated_at
    )


def _balance_at(wallet_id: UUID, at: datetime | None) -> Balance:
    wallet = _known(wallet_id)
    moment = wallet.latest if at is None else at
    if moment < wallet.created_at:
        raise WalletNotFound("There was no such wallet at that time.")
    if moment > wallet.latest:
        raise _refused("at", "must not be in the future")
    wallet.complete_up_to(moment)
    newest = _newest_before(wallet_id, moment + CLOCK_TICK)
    [(held,)] = _rows(_HELD, wallet_id, moment, moment)
    return Balance(
        wallet_id=wallet_id,
        currency=wallet.currency,
        balance=newest.balance,
        held=held,
        sequence=newest.sequence,
        at=moment,
    )


def _statement(wallet_id: UUID, begin: datetime | None, end: datetime | None) -> Statement:
    wallet = _known(wallet_id)
    last = wallet.latest + CLOCK_TICK  # the end is not part of it, and the latest moment is
    end = last if end is None else end
    begin = min(wallet.created_at, end) if begin is None else begin
    for field, border in (("from", begin), ("to", end)):
        if border > last:
            raise _refused(field, "must not be in the future")
    if begin > end:
        raise _refused("from", "must not be after `to`")
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
    """A wallet, and how far it can be asked about: up to the present, or to what is known already."""

    id: UUID
    currency: str
    created_at: datetime
    updated_at: datetime
    latest: datetime

    def complete_up_to(self, moment: datetime) -> None:
        """Return when nothing can be added any more at that moment or before."""
        if moment <= self.updated_at:
            return
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_WAIT, [self.id])
            transaction.set_rollback(True)  # there is nothing to commit, and a commit waits for the disk


def _known(wallet_id: UUID) -> _WalletSpan:
    found = _rows(_WALLET, wallet_id)
    if not found:
        raise WalletNotFound
    return _WalletSpan(wallet_id, *found[0])


def _newest_before(wallet_id: UUID, moment: datetime) -> BalancePoint:
    found = _rows(_NEWEST, wallet_id, moment)
    return BalancePoint(*found[0]) if found else BalancePoint(0, Decimal(0))


def _refused(field: str, detail: str) -> ValidationError:
    return ValidationError(errors=[FieldError(field, "out_of_range", detail)])


def _rows(sql: str, *parameters: UUID | datetime | int) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows
