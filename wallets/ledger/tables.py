"""The SQL statements of the ledger.

The text of a statement does not depend on the number of rows, so that PostgreSQL keeps it prepared.
"""

from collections.abc import Collection, Sequence
from dataclasses import fields, replace
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
from wallets.ledger.commands import Command, details_of, links_of, takes_rest
from wallets.ledger.immutable import immutable
from wallets.ledger.rules import ACTIVE, Entry, HoldState, WalletState
from wallets.models import Wallet, WalletQuerySet
from wallets.problems import Problem

PENDING: Final = "PENDING"
COMPLETED: Final = "COMPLETED"
REJECTED: Final = "REJECTED"


@immutable
class Record:
    """A row of `operation`, cheaper than a model instance. With status PENDING it is a row of `inbox`."""

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
    reference: str = ""
    hash: bytes = b""  # of the operation and the wallet's chain before it; empty until it is decided


Acceptance = tuple[Record, bool]  # a row for the inbox; whether its client may read the other wallet
_STATE: Final = tuple(field.name for field in fields(WalletState))
_NAMES: Final = tuple(field.name for field in fields(Record))
_COLUMNS: Final = ", ".join(_NAMES)
_HOLD_NAMES: Final = tuple(field.name for field in fields(HoldState))
_HOLD: Final = ", ".join(_HOLD_NAMES)

# A row of the inbox with the columns of an operation.
AS_OPERATION: Final = f"""
    id, wallet_id, type, amount, '{PENDING}', description, metadata, actor, created_at, NULL::bigint,
    NULL::numeric, NULL, idempotency_key, CASE WHEN counterparty_id IS NOT NULL THEN id END, counterparty_id,
    hold_id, reverses_id, NULL::timestamptz, takes_rest, NULL::timestamptz, reference, ''::bytea
"""
# Two statements, because almost every command has a key and almost none has an id that the client chose.
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
# One statement, so one snapshot: an operation that moves out of the inbox is in exactly one of the tables.
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
# Counts up to the limit only, so that a full inbox costs no more.
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
    -- Balances up to updated_at are final, so updated_at must not stay before an expiry that is recorded now.
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
            expires_at timestamptz, takes_rest boolean, accepted_at timestamptz, reference text, hash bytea
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
        operation_id uuid, reference text, description text, metadata jsonb, created_at timestamptz,
        ended_at timestamptz
    )
    ON CONFLICT (id, wallet_id) DO UPDATE SET status = excluded.status, ended_at = excluded.ended_at,
        captured_amount = excluded.captured_amount, operation_id = excluded.operation_id
"""  # noqa: S608
_ACCEPT: Final = """
    INSERT INTO inbox (id, wallet_id, type, amount, idempotency_key, counterparty_id, hold_id, reverses_id,
        takes_rest, reference, description, metadata, actor, created_at, sees_target)
    SELECT new.*, new.id = ANY(%s::uuid[]) FROM json_to_recordset(%s::json) AS new (
        id uuid, wallet_id uuid, type text, amount numeric, idempotency_key text, counterparty_id uuid,
        hold_id uuid, reverses_id uuid, takes_rest boolean, reference text, description text, metadata jsonb,
        actor text, created_at timestamptz
    )
"""


class Tables:
    """The tables of the ledger in the open transaction of the connection `using`."""

    def __init__(self, using: str) -> None:
        self.using = using

    # --- Locks --------------------------------------------------------------------------------------
    def lock_ids(self, ids: Collection[UUID], wait: bool) -> set[UUID]:
        """Serialize transactions that use one id on different wallets: no wallet's lock covers both.

        Return the ids that another transaction has locked; with `wait`, an empty set. All transactions lock
        in the same order, so that two batches cannot deadlock. The table `operation_id` guarantees that an id
        is used once; with this lock the second transaction finds the operation of the first.
        """
        if not ids:
            return set()
        lock = "pg_advisory_xact_lock" if wait else "pg_try_advisory_xact_lock"
        keys = {chosen: lock_key(LockClass.OPERATION_ID, chosen) for chosen in ids}
        sql = f"SELECT key, {lock}(key)::text FROM unnest(%s::bigint[]) AS key"  # noqa: S608
        rows = self._rows(sql, [sorted(set(keys.values()))])
        taken = {key for key, is_locked in rows if is_locked == "false"}
        return {chosen for chosen, key in keys.items() if key in taken}

    def existing_wallets(self, ids: Collection[UUID]) -> set[UUID]:
        if not ids:
            return set()
        return set(Wallet.objects.using(self.using).filter(id__in=_array(ids)).values_list("id", flat=True))

    # --- Reading under the locks --------------------------------------------------------------------
    def clock(self) -> datetime:
        """Return the database's time: in a statement after the lock, because time passes while it waits."""
        return database_clock(self.using)

    def expire_holds(self, wallet_ids: Collection[UUID], now: datetime) -> None:
        """End the wallets' holds that expire up to `now`, and release the amounts."""
        with connections[self.using].cursor() as cursor:
            cursor.execute(_EXPIRE, [now, list(wallet_ids)])

    def operations_like(self, commands: Sequence[Command], is_recovering: bool) -> list[Record]:
        """Return the operations that exist under the commands' keys and chosen ids (recovering: all ids).

        While the wallets and the chosen ids are locked, no other transaction can add one.
        """
        keyed = [(command.wallet_id, command.key) for command in commands if command.key is not None]
        # Keys of restricted clients were stored without a namespace before version 0.7.
        keyed += [(wallet_id, keys.as_sent(key)) for wallet_id, key in keyed if keys.namespace_of(key)]
        ids = [command.id for command in commands if command.client_chose_id or is_recovering]
        asked = [[wallet_id for wallet_id, _ in keyed], [key for _, key in keyed]]
        found = self._rows(_WITH_KEYS, asked * 2) if keyed else []
        found += self._rows(_WITH_IDS, [ids] * 2) if ids else []
        return [to_record(row) for row in found]

    def operation(self, operation_id: UUID) -> tuple[Record, str] | None:
        """Return the operation and its currency, from the ledger or the inbox."""
        rows = self._rows(_OPERATION, [operation_id, operation_id])
        return (to_record(rows[0][:-1]), rows[0][-1]) if rows else None

    def counterparts(self, transfer_ids: Collection[UUID]) -> dict[UUID, Record]:
        """Return the operation on the second wallet of each transfer, by transfer id."""
        rows = self._rows(_COUNTERPARTS, [list(transfer_ids)]) if transfer_ids else []
        return {found.transfer_id: found for found in map(to_record, rows) if found.transfer_id}

    def holds(self, holds: Collection[tuple[UUID, UUID]]) -> dict[UUID, HoldState]:
        """Return the holds that exist among these pairs of wallet id and hold id, by hold id."""
        rows = self._rows(_HOLDS, _columns_of(holds)) if holds else []
        return {row[0]: _to_hold(row) for row in rows}

    def reversed(self, operations: Collection[tuple[UUID, UUID]]) -> dict[UUID, Decimal]:
        """Return the reversed amount, by operation id, of these pairs of wallet id and operation id."""
        return dict(self._rows(_REVERSED, _columns_of(operations))) if operations else {}

    def inbox_room(self, commands: Sequence[Command]) -> dict[UUID, int]:
        """Return how many more entries the inbox takes, by wallet of each asynchronous command.

        Entries that are set aside count too. While the wallet is locked no other transaction can add one.
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
        """Insert the operations and inbox entries; update the wallets and holds to the given states."""
        with connections[self.using].cursor() as cursor:
            if operations:
                cursor.execute(_WRITE, [_as_json(operations), _as_json(wallets)])
            if holds:
                cursor.execute(_WRITE_HOLDS, [_as_json(holds)])
            if accepted:
                seeing = [record.id for record, sees_target in accepted if sees_target]
                cursor.execute(_ACCEPT, [seeing, _as_json([record for record, _ in accepted])])

    def _rows(self, sql: str, parameters: list[Any] | dict[str, Any]) -> list[tuple[Any, ...]]:
        with connections[self.using].cursor() as cursor:
            cursor.execute(sql, parameters)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows


def wallet_states(wallets: WalletQuerySet, ids: Collection[UUID]) -> dict[UUID, WalletState]:
    """Return the states of these wallets, by id. A queryset that locks them does so in ascending id."""
    if not ids:
        return {}
    found = wallets.filter(id__in=_array(ids)).order_by("id").values_list(*_STATE)
    return {row[0]: WalletState(*row) for row in found}


def completed_row(command: Command, entry: Entry, created_at: datetime) -> Record:
    """Return the row of one entry of a command: on the command's own wallet, or on its second one."""
    is_own = entry.id == command.id
    links, details = links_of(command), details_of(command)
    return Record(
        id=entry.id,
        wallet_id=entry.wallet_id,
        sequence=entry.sequence,
        type=entry.type,
        amount=entry.amount,
        balance_after=entry.balance if entry.sequence else None,
        status=COMPLETED,
        idempotency_key=command.key if is_own else None,  # unique in the own wallet; free in the other one
        transfer_id=None if command.counterparty_id is None else command.id,
        counterparty_id=command.counterparty_id if is_own else command.wallet_id,
        hold_id=links.hold_id,
        reverses_id=links.reverses_id if is_own else entry.reverses_id,
        expires_at=links.expires_at,
        takes_rest=takes_rest(command),
        reference=details.reference,
        description=details.description,
        metadata=details.metadata,
        actor=command.actor,
        accepted_at=command.accepted_at,
        created_at=created_at,
    )


def rejected_row(command: Command, amount: Decimal, problem: Problem, created_at: datetime) -> Record:
    """Return the row of a command that was refused."""
    return replace(pending_row(command, amount, created_at), status=REJECTED, reason=problem.code)


def pending_row(command: Command, amount: Decimal, created_at: datetime) -> Record:
    """Return the row of a command that the inbox accepts."""
    links, details = links_of(command), details_of(command)
    return Record(
        id=command.id,
        wallet_id=command.wallet_id,
        type=command.operation_type,
        amount=amount,
        status=PENDING,
        idempotency_key=command.key,
        transfer_id=None if command.counterparty_id is None else command.id,
        counterparty_id=command.counterparty_id,
        hold_id=links.hold_id,
        reverses_id=links.reverses_id,
        expires_at=links.expires_at,
        takes_rest=takes_rest(command),
        reference=details.reference,
        description=details.description,
        metadata=details.metadata,
        actor=command.actor,
        accepted_at=command.accepted_at,
        created_at=created_at,
    )


def database_clock(using: str) -> datetime:
    """Return the time of the database of the connection `using`."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        now: datetime = cursor.fetchone()[0]
        return now


def _columns_of(pairs: Collection[tuple[UUID, UUID]]) -> list[list[UUID]]:
    """Return the first values of the pairs, and the second ones."""
    return [[wallet_id for wallet_id, _ in pairs], [id for _, id in pairs]]


def _array(ids: Collection[UUID]) -> RawSQL:
    return RawSQL("SELECT unnest(%s::uuid[])", [list(ids)])


def to_record(row: tuple[Any, ...]) -> Record:
    """Return a row of the columns of Record as a Record. Django returns jsonb as text."""
    values = dict(zip(_NAMES, row, strict=True))
    return Record(**values | {"metadata": orjson.loads(values["metadata"])})


def _to_hold(row: tuple[Any, ...]) -> HoldState:
    values = dict(zip(_HOLD_NAMES, row, strict=True))
    return HoldState(**values | {"metadata": orjson.loads(values["metadata"])})


def placed_hold(operation: Record) -> HoldState:
    """Return the hold of a HOLD operation as it was when it was placed: it may have ended since."""
    return HoldState(
        id=operation.id,
        wallet_id=operation.wallet_id,
        amount=operation.amount,
        status=ACTIVE,
        expires_at=operation.expires_at,
        captured_amount=None,
        operation_id=None,
        reference=operation.reference,
        description=operation.description,
        metadata=operation.metadata,
        created_at=operation.created_at,
        ended_at=None,
    )


def _as_json(rows: Sequence[Record] | Sequence[WalletState] | Sequence[HoldState]) -> str:
    """Return the rows as one parameter: ten times as fast as one array for each column."""
    return orjson.dumps(rows, default=_as_text).decode()


def _as_text(value: Decimal | bytes) -> str:
    """Return the value as the text that PostgreSQL reads back exactly."""
    return f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)
