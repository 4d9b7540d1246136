"""Executes commands in one transaction: lock, load, decide, write."""

from collections.abc import Collection, Sequence, Set
from datetime import datetime
from itertools import compress
from typing import Final
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, IntegrityError, transaction
from psycopg.errors import UniqueViolation

from wallets.ledger import chain
from wallets.ledger.commands import AtomicBulk, CaptureHold, Command, Reverse, VoidHold, Work
from wallets.ledger.decisions import Decisions, Outcome, RecordedOperations
from wallets.ledger.rules import LedgerState, WalletState
from wallets.ledger.tables import Tables, wallet_states
from wallets.models import Wallet


class Deferred:
    """Nothing was done for the command: another transaction holds a lock that it needs."""


DEFERRED: Final = Deferred()
MAX_ID_CONFLICTS: Final = 3  # further attempts of a transaction that meets an id conflict
Answer = Outcome | list[Outcome]  # a list for an atomic bulk


def execute(
    work: Sequence[Work],
    *,
    using: str = DEFAULT_DB_ALIAS,
    contended: Collection[UUID] = (),
    is_recovering: bool = False,
) -> list[Answer | Deferred]:
    """Execute the commands in their order in one transaction; return the outcome of each, committed.

    A refusal concerns its own command alone, or its own atomic bulk. The transaction does not wait for the
    locks of the wallets in `contended`: if another transaction has locked one, its commands are DEFERRED.
    With `is_recovering` an earlier attempt may have committed the commands under the same ids; they are not
    applied again.

    Raises django.db.Error if the transaction as a whole failed or its outcome is unknown.
    """
    for _ in range(MAX_ID_CONFLICTS):
        try:
            return _execute(work, using, contended, is_recovering)
        except IntegrityError as error:
            if not _is_id_conflict(error):
                raise
    return _execute(work, using, contended, is_recovering)


def _execute(
    work: Sequence[Work], using: str, contended: Collection[UUID], is_recovering: bool
) -> list[Answer | Deferred]:
    wallet_ids = {wallet_id for item in work for wallet_id in item.wallet_ids}
    chosen_ids = {command.id for command in _commands_of(work) if command.client_chose_id}
    with transaction.atomic(using=using):
        tables = Tables(using)
        taken_ids = tables.lock_ids(chosen_ids, wait=not contended)
        # Without this lock, two workers that read a balance of 100 would both accept a withdrawal of 80. The
        # second one waits here until the first has committed, and then reads 20. Rows are locked in ascending
        # id, so that two transfers in opposite directions cannot deadlock.
        locking = Wallet.objects.using(using).select_for_update(no_key=True)
        wallets = wallet_states(locking, wallet_ids.difference(contended))
        taken_wallets: set[UUID] = set()
        if not_waited_for := wallet_ids.intersection(contended):
            locking = Wallet.objects.using(using).select_for_update(no_key=True, skip_locked=True)
            wallets |= wallet_states(locking, not_waited_for)
            taken_wallets = tables.existing_wallets(not_waited_for.difference(wallets))
        is_ready = [_is_ready(item, taken_wallets, taken_ids) for item in work]
        ready = list(compress(work, is_ready))
        if not ready:
            return [DEFERRED for _ in work]
        decisions = _load(tables, wallets, _commands_of(ready), is_recovering)
        outcomes = [
            _decide(decisions, item) if is_free else DEFERRED
            for item, is_free in zip(work, is_ready, strict=True)
        ]
        chain.extend(decisions.new_rows, decisions.state.wallets)
        tables.write(
            decisions.new_rows, decisions.changed_wallets(), decisions.changed_holds(), decisions.accepted
        )
    return outcomes


def _is_ready(work: Work, taken_wallets: Set[UUID], taken_ids: Set[UUID]) -> bool:
    """Whether no other transaction holds a lock on a wallet or on an operation id of the work.

    The two stay apart: a client may choose the id of any wallet as the id of its operation.
    """
    if not taken_wallets and not taken_ids:
        return True
    operation_ids = {command.id for command in _commands_of([work])}
    return taken_wallets.isdisjoint(work.wallet_ids) and taken_ids.isdisjoint(operation_ids)


def _commands_of(work: Sequence[Work]) -> list[Command]:
    return [
        command for item in work for command in (item.commands if isinstance(item, AtomicBulk) else (item,))
    ]


def _decide(decisions: Decisions, work: Work) -> Answer:
    return (
        decisions.decide_atomically(work.commands) if isinstance(work, AtomicBulk) else decisions.decide(work)
    )


def _load(
    tables: Tables, wallets: dict[UUID, WalletState], commands: Sequence[Command], is_recovering: bool
) -> Decisions:
    """Read everything that the decisions may look at, under the locks."""
    now = tables.clock()
    wallets = _with_expired_holds(tables, wallets, now)
    records = tables.operations_like(commands, is_recovering)
    hold_ids = {
        (command.wallet_id, command.hold_id)
        for command in commands
        if isinstance(command, CaptureHold | VoidHold)
    }
    reversals = [command for command in commands if isinstance(command, Reverse)]
    return Decisions(
        state=LedgerState(wallets, tables.holds(hold_ids), tables.reversed(_originals(reversals))),
        recorded=RecordedOperations(records),
        counterparts=tables.counterparts({record.transfer_id for record in records if record.transfer_id}),
        now=now,
        inbox_room=tables.inbox_room(commands),
    )


def _with_expired_holds(
    tables: Tables, wallets: dict[UUID, WalletState], now: datetime
) -> dict[UUID, WalletState]:
    """Release the held amounts of expired holds. The first transaction that locks the wallet records them."""
    due = [
        wallet.id
        for wallet in wallets.values()
        if wallet.next_expiry_at is not None and wallet.next_expiry_at <= max(now, wallet.updated_at)
    ]
    if not due:
        return wallets
    tables.expire_holds(due, now)
    return wallets | wallet_states(Wallet.objects.using(tables.using), due)


def _originals(reversals: Sequence[Reverse]) -> set[tuple[UUID, UUID]]:
    """Return wallet id and operation id of each operation to reverse, in both wallets of a transfer."""
    own = {(command.wallet_id, command.original.id) for command in reversals}
    others = {
        (original.counterparty_id, original.counterpart_id)
        for original in (command.original for command in reversals)
        if original.counterparty_id and original.counterpart_id
    }
    return own | others


def _is_id_conflict(error: IntegrityError) -> bool:
    """Whether another transaction has just committed an operation under an id of this one.

    The lock of the id prevents that, unless the other transaction does not take it, for example in a worker
    of an older version. The next attempt finds the other operation and refuses the command.
    """
    cause = error.__cause__
    return isinstance(cause, UniqueViolation) and cause.diag.constraint_name == "operation_id_pk"
