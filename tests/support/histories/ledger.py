"""The committed ledger of some wallets, read by SQL in one snapshot, without the service's models."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True, kw_only=True)
class Wallet:
    id: str
    currency: str = "RUB"
    balance: Decimal = Decimal(0)
    held: Decimal = Decimal(0)
    overdraft_limit: Decimal = Decimal(0)
    max_balance: Decimal | None = None
    sequence: int = 0
    status: str = "ACTIVE"
    label: str = ""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A row of the ledger, or with the status PENDING a row of the inbox."""

    id: str
    wallet_id: str
    type: str
    amount: Decimal
    status: str
    created_at: datetime
    sequence: int | None = None
    balance_after: Decimal | None = None
    reason: str | None = None
    idempotency_key: str | None = None
    transfer_id: str | None = None
    counterparty_id: str | None = None
    hold_id: str | None = None
    reverses_id: str | None = None
    expires_at: datetime | None = None
    takes_rest: bool | None = None
    description: str = ""
    accepted_at: datetime | None = None

    @property
    def is_own(self) -> bool:
        """Return whether it belongs to the requested wallet, not to the other side of a transfer."""
        return self.transfer_id in (None, self.id)

    @property
    def is_completed(self) -> bool:
        return self.status == "COMPLETED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    id: str
    wallet_id: str
    type: str
    changes: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    id: str
    wallet_id: str
    amount: Decimal
    status: str
    expires_at: datetime | None = None
    captured_amount: Decimal | None = None
    operation_id: str | None = None
    created_at: datetime
    ended_at: datetime | None = None


@dataclass(slots=True)
class Ledger:
    wallets: list[Wallet] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)  # by time within each wallet
    changes: list[Change] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    inbox: list[Operation] = field(default_factory=list)  # in the order of acceptance


_WALLETS = """
    SELECT id::text, currency, balance, held, overdraft_limit, max_balance, sequence, status, label,
        created_at, updated_at
    FROM wallet WHERE id = ANY(%s::uuid[])
"""
_OPERATIONS = """
    SELECT id::text, wallet_id::text, type, amount, status, created_at, sequence, balance_after, reason,
        idempotency_key, transfer_id::text, counterparty_id::text, hold_id::text, reverses_id::text,
        expires_at, takes_rest, description, accepted_at
    FROM operation WHERE wallet_id = ANY(%s::uuid[]) ORDER BY created_at
"""
_CHANGES = """
    SELECT id::text, wallet_id::text, type, changes, created_at
    FROM wallet_change WHERE wallet_id = ANY(%s::uuid[]) ORDER BY created_at
"""
_HOLDS = """
    SELECT id::text, wallet_id::text, amount, status, expires_at, captured_amount, operation_id::text,
        created_at, ended_at
    FROM hold WHERE wallet_id = ANY(%s::uuid[])
"""
_INBOX = """
    SELECT id::text, wallet_id::text, type, amount, 'PENDING' AS status, created_at, idempotency_key,
        CASE WHEN counterparty_id IS NOT NULL THEN id::text END AS transfer_id, counterparty_id::text,
        hold_id::text, reverses_id::text, takes_rest, description, created_at AS accepted_at
    FROM inbox WHERE wallet_id = ANY(%s::uuid[]) ORDER BY position
"""


def read(url: str, wallet_ids: Collection[str]) -> Ledger:
    """Read everything of these wallets, which must include both sides of every transfer."""
    wanted = [list(wallet_ids)]
    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return Ledger(
            connection.cursor(row_factory=class_row(Wallet)).execute(_WALLETS, wanted).fetchall(),
            connection.cursor(row_factory=class_row(Operation)).execute(_OPERATIONS, wanted).fetchall(),
            connection.cursor(row_factory=class_row(Change)).execute(_CHANGES, wanted).fetchall(),
            connection.cursor(row_factory=class_row(Hold)).execute(_HOLDS, wanted).fetchall(),
            connection.cursor(row_factory=class_row(Operation)).execute(_INBOX, wanted).fetchall(),
        )
