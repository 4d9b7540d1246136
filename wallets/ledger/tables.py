"""The statements of one transaction. Their texts do not vary with the number of rows: they stay prepared."""

from collections.abc import Collection, Sequence
from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import orjson
from django.conf import settings
from django.db import connections
from django.db.models.expressions import RawSQL

from wallets.advisory_locks import LockClass, lock_key
from wallets.ledger import keys
from wallets.ledger.commands import Command
from wallets.ledger.rules import HoldState, WalletState
from wallets.ledger.value import value
from wallets.models import Wallet

PENDING: Final = "PENDING"


@value
class Record:
    """A row of `operation`, without what a model instance costs; PENDING, it is one of `inbox`."""

    id: UUID
    wallet_id: UUID
    type: str
    amount: Decimal
    status: str
    description: str
    metadata: dict[str, Any]
    actor: str
    created_at: datetime
    sequence: int | None = None
    balance_after: Decimal | None = None
    reason: str | None = None
    idempotency_key: str | None = None
    transfer_id: UUID | None = None
    counterparty_id: UUID | None = None
    hold_id: UUID | None = None
    reverses_id: UUID | None = None
    expires_at: datetime | None = None
    takes_rest: bool | None = None
    accepted_at: datetime | None = None
    hash: bytes = b""  # of it and what came before it in the wallet; empty as long as it is not decided


Acceptance = tuple[Record, bool]  # what goes into the inbox; whether its caller may read the other wallet
_STATE: Final = tuple(field.name for field in fields(WalletState))
_NAMES: Final = tuple(field.name for field in fields(Record))
_COLUMNS: Final = ", ".join(_NAMES)
_HOLD: Final = ", ".join(field.name for field in fields(HoldState))

# A row of the inbox in the form of an operation that has no verdict yet.
AS_OPERATION: Final = f"""
    id, wallet_id, type, amount, '{PENDING}', description, metadata, actor, created_at, NULL::bigint,
    NULL::numeric, NULL, idempotency_key, CASE WHEN counterparty_id IS NOT NULL THEN id END, counterparty_id,
    hold_id, reverses_id, NULL::timestamptz, takes_rest, NULL::timestamptz, ''::bytea
"""
# Two statements, as almost every command has a key and almost none an id of the client's choice.
_WITH_KEYS: Final = f"""
    SELECT {_COLUMNS} FROM operation
    JOIN unnest(%s::uuid[], %s::text[]) AS asked (asked_wallet, asked_key)
      ON wallet_id = asked_wallet AND idempotency_key = asked_key
    UNION ALL
    SELECT {AS_OPERATION} FROM inbox
    JOIN unnest(%s::uuid[], %s::text[]) AS asked (asked_wallet, asked_key)
      ON wallet_id = asked_wallet AND idempotency_key = asked_key
"""  # noqa: S608
_WITH_IDS: Final = f"""
    SELECT {_COLUMNS} FROM operation WHERE id IN (SELECT unnest(%s::uuid[]))
    UNION ALL
    SELECT {AS_OPERATION} FROM inbox WHERE id IN (SELECT unnest(%s::uuid[]))
"""  # noqa: S608
# One statement, so one snapshot: on its way from the inbox an operation is in one of the two.
_OPERATION: Final = f"""
    SELECT found.*, currency FROM (
        SELECT {_COLUMNS} FROM operation WHERE id = %s
        UNION ALL
        SELECT {AS_OPERATION} FROM inbox WHERE id = %s
    ) AS found JOIN wallet ON wallet.id = wallet_id
"""  # noqa: S608
_COUNTERPARTS: Final = f"""
    SELECT {_COLUMNS} FROM operation WHERE transfer_id IN (SELECT unnest(%s::uuid[])) AND transfer_id <> id
"""  # noqa: S608
_HOLDS: Final = f"""
    SELECT {_HOLD} FROM hold
    JOIN unnest(%s::uuid[], %s::uuid[]) AS asked (asked_wallet, asked_id)
      ON id = asked_id AND wallet_id = asked_wallet
"""  # noqa: S608
_REVERSED: Final = """
    SELECT reverses_id, sum(amount) FROM operation
    JOIN unnest(%s::uuid[], %s::uuid[]) AS asked (asked_wallet, asked_id)
      ON wallet_id = asked_wallet AND reverses_id = asked_id
    WHERE status = 'COMPLETED' GROUP BY reverses_id
"""
# Counted up to the limit, so that a full inbox costs no more than that.
_INBOX_ROOM: Final = """
    SELECT asked, %(limit)s - (
        SELECT count(*) FROM (SELECT FROM inbox WHERE wallet_id = asked LIMIT %(limit)s) AS counted
    )
    FROM unnest(%(wallets)s::uuid[]) AS asked
"""
_EXPIRE: Final = """
    WITH due AS (
        SELECT id AS wallet_id, greatest(updated_at, %s) AS at FROM wallet
        WHERE id IN (SELECT unnest(%s::uuid[]))
    ), expired AS (
        UPDATE hold SET status = 'EXPIRED', ended_at = expires_at FROM due
        WHERE hold.wallet_id = due.wallet_id AND status = 'ACTIVE' AND expires_at <= due.at
        RETURNING hold.wallet_id, id, amount, expires_at
    ), noted AS (
        INSERT INTO wallet_change (id, wallet_id, type, changes, created_at)
        SELECT gen_random_uuid(), wallet_id, 'HOLD_EXPIRED', json_build_object('hold_id', id), expires_at
        FROM expired
    )
    -- updated_at moves as well: all that is older is known from now on, and this was.
    UPDATE wallet SET
        updated_at = greatest(
            updated_at, (SELECT max(expires_at) FROM expired WHERE expired.wallet_id = due.wallet_id)
        ),
        held = held - (SELECT coalesce(sum(amount), 0) FROM expired WHERE expired.wallet_id = due.wallet_id),
        next_expiry_at = (
            SELECT min(expires_at) FROM hold
            WHERE hold.wallet_id = due.wallet_id AND status = 'ACTIVE' AND expires_at > due.at
        )
    FROM due WHERE wallet.id = due.wallet_id
"""
_WRITE: Final = f"""
    WITH written AS (
        INSERT INTO operation ({_COLUMNS})
        SELECT {_COLUMNS} FROM json_to_recordset(%s::json) AS new (
            id uuid, wallet_id uuid, type text, amount numeric, status text, description text, metadata jsonb,
            actor text, created_at timestamptz, sequence bigint, balance_after numeric, reason text,
            idempotency_key text, transfer_id uuid, counterparty_id uuid, hold_id uuid, reverses_id uuid,
            expires_at timestamptz, takes_rest boolean, accepted_at timestamptz, hash bytea
        )
    )
    UPDATE wallet SET balance = new.balance, held = new.held, sequence = new.sequence,
        updated_at = new.updated_at, next_expiry_at = new.next_expiry_at, hash = new.hash
    FROM json_to_recordset(%s::json) AS new (
        id uuid, balance numeric, held numeric, sequence bigint, updated_at timestamptz,
        next_expiry_at timestamptz, hash bytea
    )
    WHERE wallet.id = new.id
"""  # noqa: S608
_WRITE_HOLDS: Final = f"""
    INSERT INTO hold ({_HOLD})
    SELECT {_HOLD} FROM json_to_recordset(%s::json) AS new (
        id uuid, wallet_id uuid, amount numeric, status text, expires_at timestamptz, captured_amount numeric,
        operation_id uuid, description text, created_at timestamptz, ended_at timestamptz
    )
    ON CONFLICT (id, wallet_id) DO UPDATE SET status = excluded.status, ended_at = excluded.ended_at,
        captured_amount = excluded.captured_amount, operation_id = excluded.operation_id
"""  # noqa: S608
_ACCEPT: Final = """
    INSERT INTO inbox (id, wallet_id, type, amount, idempotency_key, counterparty_id, hold_id, reverses_id,
        takes_rest, description, metadata, actor, created_at, sees_target)
    SELECT new.*, new.id = ANY(%s::uuid[]) FROM json_to_recordset(%s::json) AS new (
        id uuid, wallet_id uuid, type text, amount numeric, idempotency_key text, counterparty_id uuid,
        hold_id uuid, reverses_id uuid, takes_rest boolean, description text, metadata jsonb, actor text,
        created_at timestamptz
    )
"""


class Tables:
    """The ledger's tables, on the connection `using`, in the transaction that is open there."""

    def __init__(self, using: str) -> None:
        self._using = using

    # --- Locks --------------------------------------------------------------------------------------
    def lock_ids(self, ids: Collection[UUID], wait: bool) -> set[UUID]:
        """Serialize transactions that name one id on different wallets: no wallet's lock covers both.

        Returns the ids that another transaction has locked; none with `wait`. The order is the same
        everywhere, so that two batches cannot wait for each other. The guarantee that an id is used once is
        the table `operation_id`; with this lock the second transaction finds the operation of the first.
        """
        if not ids:
            return set()
        lock = "pg_advisory_xact_lock" if wait else "pg_try_advisory_xact_lock"
        keys = {chosen: lock_key(LockClass.OPERATION_ID, chosen) for chosen in ids}
        sql = f"SELECT key, {lock}(key)::text FROM unnest(%s::bigint[]) AS key"  # noqa: S608
        rows = self._rows(sql, [sorted(set(keys.values()))])
        taken = {key for key, is_locked in rows if is_locked == "false"}
        return {chosen for chosen, key in keys.items() if key in taken}

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

    # --- Reading under the locks --------------------------------------------------------------------
    def clock(self) -> datetime:
        """The database's time. A statement of its own: asked for with the lock it could precede the wait."""
        return database_clock(self._using)

    def expire_holds(self, wallet_ids: Collection[UUID], now: datetime) -> None:
        """End the wallets' holds whose time has come, and free what they held."""
        with connections[self._using].cursor() as cursor:
            cursor.execute(_EXPIRE, [now, list(wallet_ids)])

    def operations_like(self, commands: Sequence[Command], is_recovering: bool) -> list[Record]:
        """What the commands' keys and chosen ids (recovering: all ids) stand for already.

        Under the locks of wallets and chosen ids the answer cannot change any more.
        """
        keyed = [(command.wallet_id, command.key) for command in commands if command.key is not None]
        # Before restricted callers had a namespace, their keys were stored without it.
        keyed += [(wallet_id, keys.as_sent(key)) for wallet_id, key in keyed if keys.namespace_of(key)]
        ids = [command.id for command in commands if command.client_chose_id or is_recovering]
        asked = [[wallet_id for wallet_id, _ in keyed], [key for _, key in keyed]]
        found = self._rows(_WITH_KEYS, asked * 2) if keyed else []
        found += self._rows(_WITH_IDS, [ids] * 2) if ids else []
        return [record(row) for row in found]

    def operation(self, operation_id: UUID) -> tuple[Record, str] | None:
        """The operation and its currency."""
        rows = self._rows(_OPERATION, [operation_id, operation_id])
        return (record(rows[0][:-1]), rows[0][-1]) if rows else None

    def counterparts(self, transfer_ids: Collection[UUID]) -> dict[UUID, Record]:
        """By transfer, the operation on its second wallet."""
        rows = self._rows(_COUNTERPARTS, [list(transfer_ids)]) if transfer_ids else []
        return {found.transfer_id: found for found in map(record, rows) if found.transfer_id}

    def holds(self, holds: Collection[tuple[UUID, UUID]]) -> dict[UUID, HoldState]:
        """By id, those that exist of these holds, each named by its wallet and its id."""
        rows = self._rows(_HOLDS, _columns_of(holds)) if holds else []
        return {row[0]: HoldState(*row) for row in rows}

    def reversed(self, operations: Collection[tuple[UUID, UUID]]) -> dict[UUID, Decimal]:
        """By operation, how much of it has been taken back. Each is asked for by its wallet and its id."""
        return dict(self._rows(_REVERSED, _columns_of(operations))) if operations else {}

    def inbox_room(self, commands: Sequence[Command]) -> dict[UUID, int]:
        """By wallet of a command that is to be accepted asynchronously, how many more its inbox takes.

        Entries that are set aside count as well. Under the wallet's lock no other transaction can add one.
        """
        wallets = {command.wallet_id for command in commands if command.is_async}
        if not wallets:
            return {}
        limit = settings.INBOX_PENDING_PER_WALLET
        return dict(self._rows(_INBOX_ROOM, {"limit": limit, "wallets": list(wallets)}))

    # --- Writing ------------------------------------------------------------------------------------
    def write(
        self,
        operations: Sequence[Record],
        wallets: Sequence[WalletState],
        holds: Sequence[HoldState],
        accepted: Sequence[Acceptance],
    ) -> None:
        """Add the operations and bring wallets and holds to where they leave them."""
        with connections[self._using].cursor() as cursor:
            if operations:
                cursor.execute(_WRITE, [_as_json(operations), _as_json(wallets)])
            if holds:
                cursor.execute(_WRITE_HOLDS, [_as_json(holds)])
            if accepted:
                seeing = [record.id for record, sees_target in accepted if sees_target]
                cursor.execute(_ACCEPT, [seeing, _as_json([record for record, _ in accepted])])

    def _rows(self, sql: str, parameters: list[Any] | dict[str, Any]) -> list[tuple[Any, ...]]:
        with connections[self._using].cursor() as cursor:
            cursor.execute(sql, parameters)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows


def database_clock(using: str) -> datetime:
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        now: datetime = cursor.fetchone()[0]
        return now


def _columns_of(pairs: Collection[tuple[UUID, UUID]]) -> list[list[UUID]]:
    """The wallets of the pairs, and the ids."""
    return [[wallet_id for wallet_id, _ in pairs], [id for _, id in pairs]]


def _array(ids: Collection[UUID]) -> RawSQL:
    return RawSQL("SELECT unnest(%s::uuid[])", [list(ids)])


def record(row: tuple[Any, ...]) -> Record:
    """A row of the columns of Record. Django leaves jsonb as text."""
    values = dict(zip(_NAMES, row, strict=True))
    return Record(**values | {"metadata": orjson.loads(values["metadata"])})


def _as_json(rows: Sequence[Record] | Sequence[WalletState] | Sequence[HoldState]) -> str:
    """One parameter for any number of rows, written ten times faster than arrays."""
    return orjson.dumps(rows, default=_as_text).decode()


def _as_text(value: Decimal | bytes) -> str:
    """What JSON does not know, as PostgreSQL reads it: exact."""
    return f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)
