"""lock -> load -> decide -> write, in one transaction, for a list of commands."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, IntegrityError, transaction
from psycopg.errors import UniqueViolation

from wallets.ledger import chain
from wallets.ledger.batch import Batch, Outcome, RecordedOperations
from wallets.ledger.commands import AtomicBulk, CaptureHold, Command, Reverse, VoidHold, Work
from wallets.ledger.rules import Books, WalletState
from wallets.ledger.tables import Tables


class Deferred:
    """Nothing was done for the command: somebody else has a lock that it needs."""


DEFERRED: Final = Deferred()
MAX_ID_CONFLICTS: Final = 3  # attempts of a transaction that meet one, before the last
Answer = Outcome | list[Outcome]  # a list for commands that were carried out together


def execute(
    work: Sequence[Work],
    *,
    using: str = DEFAULT_DB_ALIAS,
    contended: Collection[UUID] = (),
    is_recovering: bool = False,
) -> list[Answer | Deferred]:
    """Carry out the commands in their order, in one transaction; return the outcome of each, committed.

    A refusal concerns its own command alone, or those that belong together. The wallets in `impatient` are
    not waited for: where one is locked by somebody else, its commands are BUSY. With `is_recovering` the
    commands may have been committed before, under the same ids, and are not applied again.

    Raises django.db.Error when the transaction as a whole failed or its end is unknown: nothing may be
    answered then.
    """
    for _ in range(MAX_ID_CONFLICTS):
        try:
            return _execute(work, using, contended, is_recovering)
        except IntegrityError as error:
            if not _is_id_conflict(error):
                raise
    return _execute(work, using, contended, is_recovering)


def _is_id_conflict(error: IntegrityError) -> bool:
    """Whether another transaction has just committed an operation under an id of this one.

    The lock of the id prevents that, unless the other transaction does not take it: that of a worker of an
    older version, for example. The next attempt finds the other operation and refuses the command.
    """
    cause = error.__cause__
    return isinstance(cause, UniqueViolation) and cause.diag.constraint_name == "operation_id_pk"


def _execute(
    work: Sequence[Work], using: str, contended: Collection[UUID], is_recovering: bool
) -> list[Answer | Deferred]:
    with transaction.atomic(using=using):
        tables = Tables(using)
        locked = _Locked(tables, work, contended)
        ready = [item for item in work if locked.has_all_for(item)]
        if not ready:
            return [DEFERRED for _ in work]
        batch = _load(tables, locked.wallets, _flat(ready), is_recovering)
        outcomes = [_carry_out(batch, item) if locked.has_all_for(item) else DEFERRED for item in work]
        chain.extend(batch.written, batch.books.wallets)
        tables.write(batch.written, batch.changed_wallets(), batch.changed_holds(), batch.accepted)
    return outcomes


class _Locked:
    """The locks of one transaction: chosen ids first, then wallets, each in one order everywhere."""

    def __init__(self, tables: Tables, work: Sequence[Work], contended: Collection[UUID]) -> None:
        chosen = {command.id for command in _flat(work) if command.client_chose_id}
        asked = {wallet_id for item in work for wallet_id in item.wallet_ids}
        self._ids_taken = tables.lock_ids(chosen, wait=not contended)
        self.wallets = tables.lock_wallets(asked.difference(contended), wait=True)
        self._wallets_taken: set[UUID] = set()
        if skipping := asked.intersection(contended):
            self.wallets |= tables.lock_wallets(skipping, wait=False)
            self._wallets_taken = tables.existing_wallets(skipping.difference(self.wallets))

    def has_all_for(self, work: Work) -> bool:
        if not self._wallets_taken and not self._ids_taken:
            return True
        return self._wallets_taken.isdisjoint(work.wallet_ids) and self._ids_taken.isdisjoint(
            command.id for command in _flat([work])
        )


def _flat(work: Sequence[Work]) -> list[Command]:
    return [
        command for item in work for command in (item.commands if isinstance(item, AtomicBulk) else (item,))
    ]


def _carry_out(batch: Batch, work: Work) -> Answer:
    return batch.carry_out_together(work.commands) if isinstance(work, AtomicBulk) else batch.carry_out(work)


def _load(
    tables: Tables, wallets: dict[UUID, WalletState], commands: Sequence[Command], is_recovering: bool
) -> Batch:
    """Everything that the decisions may look at, as it stands under the locks."""
    now = tables.clock()
    wallets = _with_expired_holds(tables, wallets, now)
    records = tables.operations_like(commands, is_recovering)
    ends = {
        (command.wallet_id, command.hold_id)
        for command in commands
        if isinstance(command, CaptureHold | VoidHold)
    }
    reversals = [command for command in commands if isinstance(command, Reverse)]
    return Batch(
        books=Books(wallets, tables.holds(ends), tables.reversed(_originals(reversals))),
        repeats=RecordedOperations(records),
        counterparts=tables.counterparts({record.transfer_id for record in records if record.transfer_id}),
        now=now,
        inbox_room=tables.inbox_room(commands),
    )


def _with_expired_holds(
    tables: Tables, wallets: dict[UUID, WalletState], now: datetime
) -> dict[UUID, WalletState]:
    """An expired hold frees its money at its time: whoever has the wallet's lock next writes that down."""
    due = [
        wallet.id
        for wallet in wallets.values()
        if wallet.next_expiry_at is not None and wallet.next_expiry_at <= max(now, wallet.updated_at)
    ]
    if not due:
        return wallets
    tables.expire_holds(due, now)
    return wallets | tables.lock_wallets(due, wait=True)


def _originals(reversals: Sequence[Reverse]) -> set[tuple[UUID, UUID]]:
    """The operations that are to be reversed, on both sides of a transfer, each with its wallet."""
    own = {(command.wallet_id, command.original.id) for command in reversals}
    others = {
        (original.counterparty_id, original.counterpart_id)
        for original in (command.original for command in reversals)
        if original.counterparty_id and original.counterpart_id
    }
    return own | others
