"""lock -> load -> decide -> write, in one transaction, for a list of commands.

The order of the checks: the wallet exists; the key is new (else the first answer again, or 422); rules.py.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
from django.db import DEFAULT_DB_ALIAS, transaction

from wallets.ledger import rules
from wallets.ledger.commands import Command
from wallets.ledger.rules import WalletState
from wallets.ledger.tables import Record, Tables
from wallets.problems import REJECTIONS, IdempotencyKeyReused, Problem, ValidationError, WalletNotFound

TICK: Final = timedelta(microseconds=1)
COMPLETED: Final = "COMPLETED"
REJECTED: Final = "REJECTED"


@dataclass(frozen=True, slots=True)
class Posted:
    """A command that was carried out, now or (`replayed`) the first time it was sent."""

    operation: Record
    currency: str
    replayed: bool = False


class Busy:
    """Nothing was done for the command: somebody else has a lock that it needs."""


Outcome = Posted | Problem
BUSY: Final = Busy()


def execute(
    commands: Sequence[Command],
    *,
    using: str = DEFAULT_DB_ALIAS,
    impatient: Collection[UUID] = (),
    is_recovering: bool = False,
) -> list[Outcome | Busy]:
    """Carry out the commands in their order, in one transaction; return the outcome of each, committed.

    A refusal concerns its own command alone. The wallets in `impatient` are not waited for: where one is
    locked by somebody else, its commands are BUSY. With `is_recovering` the commands may have been committed
    before, under the same ids, and are not applied again.

    Raises django.db.Error when the transaction as a whole failed or its end is unknown: nothing may be
    answered then.
    """
    with transaction.atomic(using=using):
        tables = Tables(using)
        locked = _Locked(tables, commands, impatient)
        ready = [command for command in commands if locked.has_all_for(command)]
        if not ready:
            return [BUSY for _ in commands]
        repeats = _Repeats(tables.operations_like(ready, is_recovering))
        batch = _Batch(locked.wallets, repeats, now=tables.clock())
        outcomes = [batch.carry_out(command) if locked.has_all_for(command) else BUSY for command in commands]
        tables.write(batch.written, batch.changed_wallets())
    return outcomes


class _Locked:
    """The locks of one transaction: chosen ids first, then wallets, each in one order everywhere."""

    def __init__(self, tables: Tables, commands: Sequence[Command], impatient: Collection[UUID]) -> None:
        chosen = {command.id for command in commands if command.client_chose_id}
        asked = {command.wallet_id for command in commands}
        self._ids_taken = tables.lock_ids(chosen, wait=not impatient)
        self.wallets = tables.lock_wallets(asked.difference(impatient), wait=True)
        self._wallets_taken: set[UUID] = set()
        if skipping := asked.intersection(impatient):
            self.wallets |= tables.lock_wallets(skipping, wait=False)
            self._wallets_taken = tables.existing_wallets(skipping.difference(self.wallets))

    def has_all_for(self, command: Command) -> bool:
        return command.wallet_id not in self._wallets_taken and command.id not in self._ids_taken


class _Batch:
    """The commands of one transaction, one after the other on the locked wallets."""

    def __init__(self, wallets: dict[UUID, WalletState], repeats: "_Repeats", now: datetime) -> None:
        self.wallets = wallets
        self.repeats = repeats
        self.now = now
        self.written: list[Record] = []

    def carry_out(self, command: Command) -> Outcome:
        wallet = self.wallets.get(command.wallet_id)
        if wallet is None:
            return WalletNotFound()
        if first := self.repeats.first(command):
            return _answer_again(first, command, wallet.currency)
        verdict = rules.decide(wallet, command)
        if isinstance(verdict, ValidationError):
            return verdict  # a question of form: it leaves no trace, and its key stays free
        record = _record(command, verdict, created_at=max(self.now, wallet.updated_at + TICK))
        self.wallets[wallet.id] = rules.after(wallet, verdict, record.created_at)
        self.written.append(record)
        self.repeats.add(record)
        if isinstance(verdict, Problem):
            verdict.operation_id = record.id
            return verdict
        return Posted(record, wallet.currency)

    def changed_wallets(self) -> list[WalletState]:
        return [self.wallets[wallet_id] for wallet_id in {record.wallet_id for record in self.written}]


class _Repeats:
    """Operations that were written before, by key and by id."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._by_key: dict[tuple[UUID, str], Record] = {}
        self._by_id: dict[UUID, Record] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        self._by_id[record.id] = record
        if record.idempotency_key is not None:
            self._by_key[record.wallet_id, record.idempotency_key] = record

    def first(self, command: Command) -> Record | None:
        if command.key is not None and (found := self._by_key.get((command.wallet_id, command.key))):
            return found
        return self._by_id.get(command.id)


def _answer_again(first: Record, command: Command, currency: str) -> Outcome:
    if not _same_request(first, command):
        return IdempotencyKeyReused()
    # An id of our own making is found only when its commit was in doubt: this is its first answer.
    replayed = first.id != command.id or command.client_chose_id
    if first.status == REJECTED:
        return REJECTIONS[first.reason or ""](operation_id=first.id, replayed=replayed)
    return Posted(first, currency, replayed)


def _same_request(first: Record, command: Command) -> bool:
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


def _record(command: Command, verdict: rules.Entry | Problem, created_at: datetime) -> Record:
    entry = verdict if isinstance(verdict, rules.Entry) else None
    return Record(
        id=command.id,
        wallet_id=command.wallet_id,
        sequence=entry.sequence if entry else None,
        type=command.type,
        amount=command.amount,
        balance_after=entry.balance if entry else None,
        status=COMPLETED if entry else REJECTED,
        reason=verdict.code if isinstance(verdict, Problem) else None,
        idempotency_key=command.key,
        description=command.description,
        metadata=command.metadata,
        actor=command.actor,
        created_at=created_at,
    )
