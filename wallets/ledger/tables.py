"""The statements of one transaction. Their texts do not vary with the number of rows: they stay prepared."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import orjson
from django.db import connections
from django.db.models.expressions import RawSQL

from wallets.ledger.commands import Command
from wallets.ledger.rules import WalletState
from wallets.models import Wallet


@dataclass(frozen=True, slots=True)
class Record:
    """A row of `operation`, without what a model instance costs."""

    id: UUID
    wallet_id: UUID
    sequence: int | None
    type: str
    amount: Decimal
    balance_after: Decimal | None
    status: str
    reason: str | None
    idempotency_key: str | None
    description: str
    metadata: dict[str, Any]
    actor: str
    created_at: datetime


_STATE: Final = tuple(field.name for field in fields(WalletState))
_NAMES: Final = tuple(field.name for field in fields(Record))
_COLUMNS: Final = ", ".join(_NAMES)
_OPERATIONS_LIKE: Final = f"""
    SELECT {_COLUMNS} FROM operation
    JOIN unnest(%s::uuid[], %s::text[]) AS asked (asked_wallet, asked_key)
      ON wallet_id = asked_wallet AND idempotency_key = asked_key
    UNION ALL
    SELECT {_COLUMNS} FROM operation WHERE id IN (SELECT unnest(%s::uuid[]))
"""  # noqa: S608
_WRITE: Final = f"""
    WITH written AS (
        INSERT INTO operation ({_COLUMNS})
        SELECT {_COLUMNS} FROM json_to_recordset(%s::json) AS new (
            id uuid, wallet_id uuid, sequence bigint, type text, amount numeric, balance_after numeric,
            status text, reason text, idempotency_key text, description text, metadata jsonb, actor text,
            created_at timestamptz
        )
    )
    UPDATE wallet SET balance = new.balance, sequence = new.sequence, updated_at = new.updated_at
    FROM json_to_recordset(%s::json) AS new (
        id uuid, balance numeric, sequence bigint, updated_at timestamptz
    )
    WHERE wallet.id = new.id
"""  # noqa: S608


class Tables:
    """The ledger's tables, on the connection `using`, in the transaction that is open there."""

    def __init__(self, using: str) -> None:
        self._using = using

    def lock_ids(self, ids: Collection[UUID], wait: bool) -> set[UUID]:
        """Serialize commands that name one id on different wallets: no wallet's lock covers both.

        Returns those that somebody else has locked; none with `wait`. The order is the same everywhere, so
        that two batches cannot wait for each other.
        """
        if not ids:
            return set()
        lock = "pg_advisory_xact_lock" if wait else "pg_try_advisory_xact_lock"
        numbers = {_lock_number(chosen): chosen for chosen in ids}
        sql = f"SELECT n, {lock}(n)::text FROM unnest(%s::bigint[]) AS n"  # noqa: S608
        return {numbers[n] for n, locked in self._rows(sql, [sorted(numbers)]) if locked == "false"}

    def lock_wallets(self, ids: Collection[UUID], wait: bool) -> dict[UUID, WalletState]:
        """Lock those that exist (without `wait`: are free), in ascending id so that nothing deadlocks."""
        if not ids:
            return {}
        rows = Wallet.objects.using(self._using).select_for_update(no_key=True, skip_locked=not wait)
        found = rows.filter(id__in=_array(ids)).order_by("id").values_list(*_STATE)
        return {row[0]: WalletState(*row) for row in found}

    def existing_wallets(self, ids: Collection[UUID]) -> set[UUID]:
        if not ids:
            return set()
        return set(Wallet.objects.using(self._using).filter(id__in=_array(ids)).values_list("id", flat=True))

    def operations_like(self, commands: Sequence[Command], is_recovering: bool) -> list[Record]:
        """What the commands' keys and chosen ids (recovering: all ids) stand for already.

        Under the locks of wallets and chosen ids the answer cannot change any more.
        """
        keys = [(command.wallet_id, command.key) for command in commands if command.key is not None]
        ids = [command.id for command in commands if command.client_chose_id or is_recovering]
        if not keys and not ids:
            return []
        asked = [[wallet_id for wallet_id, _ in keys], [key for _, key in keys], ids]
        return [_record(row) for row in self._rows(_OPERATIONS_LIKE, asked)]

    def clock(self) -> datetime:
        """The database's time. A statement of its own: asked for with the lock it could precede the wait."""
        return database_clock(self._using)

    def write(self, operations: Sequence[Record], wallets: Sequence[WalletState]) -> None:
        """Add the operations and set the wallets' balances, in one statement."""
        if operations:
            with connections[self._using].cursor() as cursor:
                cursor.execute(_WRITE, [_as_json(operations), _as_json(wallets)])

    def _rows(self, sql: str, parameters: list[Any]) -> list[tuple[Any, ...]]:
        with connections[self._using].cursor() as cursor:
            cursor.execute(sql, parameters)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows


def database_clock(using: str) -> datetime:
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        now: datetime = cursor.fetchone()[0]
        return now


def _array(ids: Collection[UUID]) -> RawSQL:
    return RawSQL("SELECT unnest(%s::uuid[])", [list(ids)])


def _record(row: tuple[Any, ...]) -> Record:
    values = dict(zip(_NAMES, row, strict=True))
    return Record(**values | {"metadata": orjson.loads(values["metadata"])})  # Django leaves jsonb as text


def _as_json(rows: Sequence[Record] | Sequence[WalletState]) -> str:
    """One parameter for any number of rows, written ten times faster than arrays."""
    return orjson.dumps(rows, default=str).decode()  # Decimals are all that it does not know: as text, exact


def _lock_number(chosen: UUID) -> int:
    return int.from_bytes(chosen.bytes[8:], "big", signed=True)
