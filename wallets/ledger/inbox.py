"""Operations that were accepted for later: carried out in their order, by any number of processes at once.

An entry leaves the inbox in the transaction that writes its operation: a crash loses and doubles nothing.
Wallet by wallet the order in which they were accepted is kept, over both wallets of a transfer.
"""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django import db
from django.db import DEFAULT_DB_ALIAS, connection, transaction

from wallets.ledger import origins, recovery
from wallets.ledger.batch import Posted
from wallets.ledger.commands import COMMANDS, Capture, Command, Reversal, Transfer
from wallets.ledger.execute import execute
from wallets.ledger.tables import AS_OPERATION, Record, Tables, record

logger = logging.getLogger(__name__)

HELD_UP: Final = 1.0  # seconds for which wallets are passed over whose entries could not be carried out

_CLAIM: Final = f"""
    SELECT position, coalesce(sees_target, false), {AS_OPERATION} FROM inbox
    WHERE NOT wallet_id = ANY(%(held_up)s::uuid[])
        AND (counterparty_id IS NULL OR NOT counterparty_id = ANY(%(held_up)s::uuid[]))
    ORDER BY position LIMIT %(most)s FOR UPDATE SKIP LOCKED
"""  # noqa: S608
# Of each wallet, the first entry that we have not claimed: ours that come after it have to wait.
_FIRST_OF_OTHERS: Final = """
    SELECT asked, (
        SELECT min(position) FROM (
            (SELECT position FROM inbox WHERE wallet_id = asked AND NOT id = ANY(%(claimed)s::uuid[])
             ORDER BY position LIMIT 1)
            UNION ALL
            (SELECT position FROM inbox WHERE counterparty_id = asked AND NOT id = ANY(%(claimed)s::uuid[])
             ORDER BY position LIMIT 1)
        ) AS theirs
    )
    FROM unnest(%(wallets)s::uuid[]) AS asked
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How much lies in the inbox."""

    entries: int
    oldest: timedelta | None  # how long the one that came first has been there


def waiting() -> Waiting:
    return Waiting(*_rows("SELECT count(*), clock_timestamp() - min(created_at) FROM inbox", [])[0])


def drain(most: int) -> int:
    """Carry out up to `most` of the entries that come first; return how many. Raises as Drain.run does."""
    return Drain().run(most)


class Drain:
    """One process at work on the inbox.

    It remembers which wallets are held up, by others at work on them, by a lock, by an entry that cannot be
    carried out: else a long queue of one of them would be all that it ever sees. All are forgotten at once.
    One by one, the first of two wallets would be looked at while the second is passed over, with the transfer
    between them that comes before everything else of both, and so on for ever.
    """

    def __init__(self) -> None:
        self._held_up: set[UUID] = set()
        self._forget_at = 0.0

    def run(self, most: int) -> int:
        """Carry out up to `most` of the entries that come first, and return how many.

        None where the inbox is empty or all that is left is held up. Raises django.db.Error where the
        database is away: then the transaction happened as a whole or not at all.
        """
        with transaction.atomic():
            claimed = _claim(most, self._passed_over())
            ready = _locked(_whose_turn_it_is(claimed))
            try:
                done = _carry_out(ready)
            except Exception as error:
                if recovery.is_away(error):
                    raise
                logger.warning("%d of the inbox failed together, now one by one: %r", len(ready), error)
                done = _in_order(ready, _is_carried_out)
        self._pass_over(claimed, done)
        return len(done)

    def _passed_over(self) -> list[UUID]:
        if time.monotonic() >= self._forget_at:
            self._held_up = set()
        return list(self._held_up)

    def _pass_over(self, claimed: Sequence["_Entry"], done: Sequence["_Entry"]) -> None:
        left = {entry.position for entry in claimed}.difference(entry.position for entry in done)
        held_up = {wallet for entry in claimed if entry.position in left for wallet in entry.wallet_ids}
        if held_up and not self._held_up:
            self._forget_at = time.monotonic() + HELD_UP
        self._held_up |= held_up


class _NoTrace(Exception):
    """An entry that would leave the inbox without an operation."""


@dataclass(frozen=True, slots=True)
class _Entry:
    position: int
    sees_target: bool  # whether its caller may read the other wallet
    operation: Record

    @property
    def wallet_ids(self) -> list[UUID]:
        both = (self.operation.wallet_id, self.operation.counterparty_id)
        return [wallet_id for wallet_id in both if wallet_id]


def _claim(most: int, held_up: Collection[UUID]) -> list[_Entry]:
    rows = _rows(_CLAIM, {"most": most, "held_up": held_up})
    return [_Entry(row[0], row[1], record(row[2:])) for row in rows]


def _in_order(entries: Sequence[_Entry], is_free: Callable[[_Entry], bool]) -> list[_Entry]:
    """Those that are free, and come after none of the same wallet that is not."""
    free, waits = [], set[UUID]()
    for entry in entries:
        if waits.isdisjoint(entry.wallet_ids) and is_free(entry):
            free.append(entry)
        else:
            waits.update(entry.wallet_ids)
    return free


def _whose_turn_it_is(claimed: list[_Entry]) -> list[_Entry]:
    """Those before which nothing waits for one of their wallets, unless we carry it out as well."""
    if not claimed:
        return []
    ids = [entry.operation.id for entry in claimed]
    first = dict(_rows(_FIRST_OF_OTHERS, {"claimed": ids, "wallets": list(_wallets(claimed))}))
    return _in_order(
        claimed,
        lambda entry: all((first[wallet] or entry.position) >= entry.position for wallet in entry.wallet_ids),
    )


def _locked(entries: list[_Entry]) -> list[_Entry]:
    """Those whose wallets could be locked in time. All wallets are, at once, so that nothing deadlocks."""
    if not entries:
        return []
    tables = Tables(DEFAULT_DB_ALIAS)
    wallets = _wallets(entries)
    try:
        with transaction.atomic():
            tables.lock_wallets(wallets, wait=True)
    except db.OperationalError as error:
        if not recovery.is_lock_timeout(error):
            raise
        got = tables.lock_wallets(wallets, wait=False)
        return _in_order(entries, lambda entry: got.keys() >= set(entry.wallet_ids))
    return entries


def _carry_out(entries: list[_Entry]) -> list[_Entry]:
    if not entries:
        return []
    with transaction.atomic():
        outcomes = execute([_command(entry) for entry in entries])
        for outcome in outcomes:
            # All that leaves no trace was asked before it was accepted; without one it must not leave.
            if not isinstance(outcome, Posted) and not getattr(outcome, "operation_id", None):
                raise _NoTrace(f"it came to {outcome!r}")
        _remove([entry.operation.id for entry in entries])
    return entries


def _is_carried_out(entry: _Entry) -> bool:
    """Carry out this one. What cannot be carried out holds up its wallets, and nobody else."""
    try:
        _carry_out([entry])
    except Exception as error:
        if recovery.is_away(error):
            raise
        logger.error("the inbox's %s cannot be carried out: %r", entry.operation.id, error)
        return False
    return True


def _wallets(entries: Sequence[_Entry]) -> set[UUID]:
    return {wallet_id for entry in entries for wallet_id in entry.wallet_ids}


def _command(entry: _Entry) -> Command:
    """What was accepted, as it was asked for. Its id needs no lock: it has been taken since then."""
    accepted = entry.operation
    common: dict[str, Any] = {
        "wallet_id": accepted.wallet_id,
        "id": accepted.id,
        "key": accepted.idempotency_key,
        "description": accepted.description,
        "metadata": accepted.metadata,
        "actor": accepted.actor,
        "reads_all": entry.sees_target,
        "accepted_at": accepted.created_at,
    }
    amount = None if accepted.takes_rest else accepted.amount
    if accepted.reverses_id:
        _, original = origins.find_original(accepted.reverses_id)
        return Reversal(original=original, amount=amount, **common)
    if accepted.hold_id:
        return Capture(hold_id=accepted.hold_id, amount=amount, **common)
    if accepted.counterparty_id:
        return Transfer(target_id=accepted.counterparty_id, amount=accepted.amount, **common)
    return COMMANDS[accepted.type](amount=accepted.amount, **common)


def _remove(ids: list[UUID]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM inbox WHERE id = ANY(%s::uuid[])", [ids])


def _rows(sql: str, parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows
