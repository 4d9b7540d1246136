"""The statements of one transaction. Their texts do not vary with the number of rows: they stay prepared."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson
from django.db import connections
from django.db.models.expressions import RawSQL

from wallets.ledger.commands import Command
from wallets.ledger.rules import WalletState
from wallets.models import Operation, Wallet

_STATE: Final = tuple(field.name for field in fields(WalletState))


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

    def operations_like(self, commands: Sequence[Command], is_recovering: bool) -> Iterable[Operation]:
        """What the commands' keys and chosen ids (recovering: all ids) stand for already.

        Under the locks of wallets and chosen ids the answer cannot change any more.
        """
        operations = Operation.objects.using(self._using)
        found: list[Operation] = []
        if keys := [(command.wallet_id, command.key) for command in commands if command.key is not None]:
            wallet_ids, names = zip(*keys, strict=True)
            found += operations.raw(
                "SELECT operation.* FROM unnest(%s::uuid[], %s::text[]) AS asked (wallet_id, key)"
                " JOIN operation ON operation.wallet_id = asked.wallet_id AND idempotency_key = asked.key",
                [list(wallet_ids), list(names)],
            )
        if ids := [command.id for command in commands if command.client_chose_id or is_recovering]:
            found += operations.filter(id__in=_array(ids))
        return found

    def clock(self) -> datetime:
        """The database's time. A statement of its own: asked for with the lock it could precede the wait."""
        return database_clock(self._using)

    def insert_operations(self, operations: Sequence[Operation]) -> None:
        if not operations:
            return
        rows = [
            (
                operation.id,
                operation.wallet_id,
                operation.sequence,
                operation.type,
                operation.amount,
                operation.balance_after,
                operation.status,
                operation.reason,
                operation.idempotency_key,
                operation.description,
                orjson.dumps(operation.metadata).decode(),
                operation.actor,
                operation.created_at,
            )
            for operation in operations
        ]
        self._execute(
            "INSERT INTO operation (id, wallet_id, sequence, type, amount, balance_after, status, reason,"
            " idempotency_key, description, metadata, actor, created_at)"
            " SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::bigint[], %s::text[], %s::numeric[],"
            " %s::numeric[], %s::text[], %s::text[], %s::text[], %s::text[], %s::jsonb[], %s::text[],"
            " %s::timestamptz[])",
            [list(column) for column in zip(*rows, strict=True)],
        )

    def update_wallets(self, wallets: Sequence[WalletState]) -> None:
        if not wallets:
            return
        rows = [(wallet.id, wallet.balance, wallet.sequence, wallet.updated_at) for wallet in wallets]
        self._execute(
            "UPDATE wallet SET balance = new.balance, sequence = new.sequence, updated_at = new.updated_at"
            " FROM unnest(%s::uuid[], %s::numeric[], %s::bigint[], %s::timestamptz[])"
            " AS new (id, balance, sequence, updated_at) WHERE wallet.id = new.id",
            [list(column) for column in zip(*rows, strict=True)],
        )

    def _execute(self, sql: str, parameters: list[Any]) -> None:
        with connections[self._using].cursor() as cursor:
            cursor.execute(sql, parameters)

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


def _lock_number(chosen: UUID) -> int:
    return int.from_bytes(chosen.bytes[8:], "big", signed=True)
