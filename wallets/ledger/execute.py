"""lock -> load -> decide -> write, in one transaction, for a list of commands.

The order of the checks: the wallet exists; the key is new (else the first answer again, or 422); rules.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
from django.db import connection, transaction

from wallets.ledger import rules
from wallets.ledger.commands import Command
from wallets.ledger.rules import WalletState
from wallets.models import Operation, Wallet
from wallets.problems import REJECTIONS, IdempotencyKeyReused, Problem, ValidationError, WalletNotFound

TICK: Final = timedelta(microseconds=1)
_STATE: Final = tuple(field.name for field in fields(WalletState))


@dataclass(frozen=True, slots=True)
class Posted:
    """A command that was carried out, now or (`replayed`) the first time it was sent."""

    operation: Operation
    currency: str
    replayed: bool = False


Outcome = Posted | Problem


def execute(commands: Sequence[Command]) -> list[Outcome]:
    """Carry out the commands in their order; return the outcome of each, committed.

    A refusal concerns its own command alone. Raises django.db.Error when the transaction as a whole failed
    or its end is unknown: nothing may be answered then.
    """
    with transaction.atomic():
        _lock_chosen_ids(commands)
        wallets = _lock_wallets({command.wallet_id for command in commands})
        batch = _Batch(wallets, _find_repeats(commands), now=database_clock())
        outcomes = [batch.carry_out(command) for command in commands]
        _insert_operations(batch.written)
        _update_wallets(batch.changed_wallets())
    return outcomes


class _Batch:
    """The commands of one transaction, one after the other on the locked wallets."""

    def __init__(self, wallets: dict[UUID, WalletState], repeats: "_Repeats", now: datetime) -> None:
        self.wallets = wallets
        self.repeats = repeats
        self.now = now
        self.written: list[Operation] = []

    def carry_out(self, command: Command) -> Outcome:
        wallet = self.wallets.get(command.wallet_id)
        if wallet is None:
            return WalletNotFound()
        if first := self.repeats.first(command):
            return _answer_again(first, command, wallet.currency)
        verdict = rules.decide(wallet, command)
        if isinstance(verdict, ValidationError):
            return verdict  # a question of form: it leaves no trace, and its key stays free
        operation = _operation(command, verdict, created_at=max(self.now, wallet.updated_at + TICK))
        if isinstance(verdict, rules.Entry):
            wallet = rules.apply(wallet, verdict)
        self.wallets[wallet.id] = replace(wallet, updated_at=operation.created_at)
        self.written.append(operation)
        self.repeats.add(operation)
        if isinstance(verdict, Problem):
            verdict.operation_id = operation.id
            return verdict
        return Posted(operation, wallet.currency)

    def changed_wallets(self) -> list[WalletState]:
        return [self.wallets[wallet_id] for wallet_id in {operation.wallet_id for operation in self.written}]


class _Repeats:
    """Operations that were written before, by key and by id."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._by_key: dict[tuple[UUID, str], Operation] = {}
        self._by_id: dict[UUID, Operation] = {}
        for operation in operations:
            self.add(operation)

    def add(self, operation: Operation) -> None:
        self._by_id[operation.id] = operation
        if operation.idempotency_key is not None:
            self._by_key[operation.wallet_id, operation.idempotency_key] = operation

    def first(self, command: Command) -> Operation | None:
        if command.key is not None and (found := self._by_key.get((command.wallet_id, command.key))):
            return found
        return self._by_id.get(command.id)


def _answer_again(first: Operation, command: Command, currency: str) -> Outcome:
    if not _same_request(first, command):
        return IdempotencyKeyReused()
    if first.status == Operation.Status.REJECTED:
        return REJECTIONS[first.reason or ""](operation_id=first.id, replayed=True)
    return Posted(first, currency, replayed=True)


def _same_request(first: Operation, command: Command) -> bool:
    return (
        first.wallet_id == command.wallet_id
        and first.type == command.type
        and first.amount == command.amount
        and first.description == command.description
        and canonical_json(first.metadata) == canonical_json(command.metadata)
    )


def canonical_json(value: Any) -> bytes:
    """Equal for equal JSON values. Python's own == would take true for 1."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _operation(command: Command, verdict: rules.Entry | Problem, created_at: datetime) -> Operation:
    entry = verdict if isinstance(verdict, rules.Entry) else None
    return Operation(
        id=command.id,
        wallet_id=command.wallet_id,
        sequence=entry.sequence if entry else None,
        type=command.type,
        amount=command.amount,
        balance_after=entry.balance if entry else None,
        status=Operation.Status.COMPLETED if entry else Operation.Status.REJECTED,
        reason=verdict.code if isinstance(verdict, Problem) else None,
        idempotency_key=command.key,
        description=command.description,
        metadata=command.metadata,
        actor=command.actor,
        created_at=created_at,
    )


# --- The statements ---------------------------------------------------------------------------------
def _lock_chosen_ids(commands: Sequence[Command]) -> None:
    """Serialize commands that name the same id on different wallets: no wallet's lock covers both.

    Taken before the wallets and in one order everywhere, so that two batches cannot wait for each other.
    """
    numbers = sorted({_lock_number(command.id) for command in commands if command.client_chose_id})
    if numbers:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(n) FROM unnest(%s::bigint[]) AS n", [numbers])


def _lock_number(chosen: UUID) -> int:
    return int.from_bytes(chosen.bytes[8:], "big", signed=True)


def _lock_wallets(ids: set[UUID]) -> dict[UUID, WalletState]:
    """Lock the wallets that exist, in ascending id so that batches never deadlock, and read them."""
    rows = Wallet.objects.select_for_update(no_key=True).filter(id__in=ids).order_by("id")
    return {row[0]: WalletState(*row) for row in rows.values_list(*_STATE)}


def _find_repeats(commands: Sequence[Command]) -> _Repeats:
    """What the commands' keys and chosen ids already stand for. Under the wallets' locks it cannot change."""
    keys = [(command.wallet_id, command.key) for command in commands if command.key is not None]
    if not keys:
        return _Repeats(())
    wallet_ids, names = zip(*keys, strict=True)
    found: list[Operation] = list(
        Operation.objects.raw(
            "SELECT operation.* FROM unnest(%s::uuid[], %s::text[]) AS asked (wallet_id, key)"
            " JOIN operation ON operation.wallet_id = asked.wallet_id AND idempotency_key = asked.key",
            [list(wallet_ids), list(names)],
        )
    )
    chosen = [command.id for command in commands if command.client_chose_id]
    if chosen:
        found += Operation.objects.filter(id__in=chosen)
    return _Repeats(found)


def database_clock() -> datetime:
    """The database's time now. A statement of its own: asked for with the lock it could precede the wait."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        now: datetime = cursor.fetchone()[0]
        return now


def _insert_operations(operations: Sequence[Operation]) -> None:
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
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO operation (id, wallet_id, sequence, type, amount, balance_after, status, reason,"
            " idempotency_key, description, metadata, actor, created_at)"
            " SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::bigint[], %s::text[], %s::numeric[],"
            " %s::numeric[], %s::text[], %s::text[], %s::text[], %s::text[], %s::jsonb[], %s::text[],"
            " %s::timestamptz[])",
            [list(column) for column in zip(*rows, strict=True)],
        )


def _update_wallets(wallets: Sequence[WalletState]) -> None:
    if not wallets:
        return
    rows = [(wallet.id, wallet.balance, wallet.sequence, wallet.updated_at) for wallet in wallets]
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE wallet SET balance = new.balance, sequence = new.sequence, updated_at = new.updated_at"
            " FROM unnest(%s::uuid[], %s::numeric[], %s::bigint[], %s::timestamptz[])"
            " AS new (id, balance, sequence, updated_at) WHERE wallet.id = new.id",
            [list(column) for column in zip(*rows, strict=True)],
        )
