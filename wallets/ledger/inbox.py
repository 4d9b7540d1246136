"""Operations that were accepted for later: carried out in their order, by any number of processes at once.

An entry leaves the inbox in the transaction that writes its operation: a crash loses and doubles nothing.
Wallet by wallet the order in which they were accepted is kept, over both wallets of a transfer.

inbox_claim.py chooses the entries, so that no wallet waits for another's queue; inbox_failures.py retries an
entry that cannot be carried out, and sets it aside.
"""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django import db
from django.db import transaction

from wallets import database_retry
from wallets.ledger import lookups
from wallets.ledger.commands import COMMANDS, CaptureHold, Command, MakeTransfer, Reverse
from wallets.ledger.decisions import Posted
from wallets.ledger.execute import execute
from wallets.ledger.inbox_claim import ClaimedEntry, Turns, claim_again, rows
from wallets.ledger.inbox_failures import record_attempt, record_failure, remove
from wallets.ledger.tables import wallet_states
from wallets.models import Wallet

logger = logging.getLogger(__name__)

DELAY_SECONDS: Final = 1.0  # seconds for which wallets are passed over whose entries could not be carried out
MAX_DRAIN_ENTRIES: Final = (
    1 << 20
)  # entries that a drain carries out together while all is well: all that it claims

_WAITING: Final = """
    SELECT count(*) FILTER (WHERE set_aside_at IS NULL),
        clock_timestamp() - min(created_at) FILTER (WHERE set_aside_at IS NULL),
        count(set_aside_at)
    FROM inbox
"""
# Of each wallet, the first waiting entry that this worker has not claimed: its entries after that one wait.
_FIRST_OF_OTHERS: Final = """
    SELECT asked, (
        SELECT min(position) FROM (
            (SELECT position FROM inbox WHERE wallet_id = asked AND set_aside_at IS NULL
                AND NOT id = ANY(%(claimed)s::uuid[]) ORDER BY position LIMIT 1)
            UNION ALL
            (SELECT position FROM inbox WHERE counterparty_id = asked AND set_aside_at IS NULL
                AND NOT id = ANY(%(claimed)s::uuid[]) ORDER BY position LIMIT 1)
        ) AS theirs
    )
    FROM unnest(%(wallets)s::uuid[]) AS asked
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How much lies in the inbox."""

    entries: int
    oldest: timedelta | None  # how long the first of them has been there
    set_aside: int  # further entries, which wait for an operator


def waiting() -> Waiting:
    return Waiting(*rows(_WAITING, [])[0])


def drain(most: int) -> int:
    """Carry out up to `most` of the entries that come first; return how many. Raises as Drain.run does."""
    return Drain().run(most)


class Drain:
    """One process at work on the inbox.

    It remembers which wallets are held up, by others at work on them, by a lock, by an entry that cannot be
    carried out: else a long queue of one of them would be all that it ever sees. All are forgotten at once.
    One by one, the first of two wallets would be looked at while the second is passed over, with the transfer
    between them that comes before everything else of both, and so on for ever.

    An entry may end the database connection, or the process, each time that it is carried out. So a `careful`
    drain, as that of a new process, and every drain after a lost connection begins with one entry, whose
    attempt is committed before: it counts as failed unless it succeeds. Then the drain doubles the number of
    entries with each run.
    """

    def __init__(self, *, careful: bool = False) -> None:
        self._turns = Turns()
        self._held_up: set[UUID] = set()
        self._forget_at = 0.0
        self._trial = 1 if careful else MAX_DRAIN_ENTRIES  # entries that are carried out together at most

    def run(self, most: int) -> int:
        """Carry out up to `most` of the entries that come first, and return how many.

        None if the inbox is empty or all that is left is held up. Raises django.db.Error if the database is
        away: then the transaction happened as a whole or not at all.
        """
        try:
            return self._run(most)
        except Exception:
            self._trial = 1
            raise

    def _run(self, most: int) -> int:
        done: list[ClaimedEntry] = []
        with transaction.atomic():
            claimed = self._turns.claim(most, self._passed_over())
            turn = _whose_turn_it_is(claimed)
            # Locked here, a single entry's wallets are most likely free in the next transaction too: a wallet
            # that another transaction has locked for long costs no attempt.
            tried = _locked(turn[: self._trial])
            if self._trial > 1:
                done = _carried_out(tried)
            else:
                for entry in tried:
                    record_attempt(entry)
        if tried and self._trial == 1:
            with transaction.atomic():
                done = _in_order(_locked(_again(tried)), _is_carried_out)
        postponed = turn[self._trial :]
        if tried:
            self._trial = min(self._trial * 2, MAX_DRAIN_ENTRIES)
        self._pass_over(claimed, turn, {entry.id for entry in [*done, *postponed]})
        return len(done)

    def _passed_over(self) -> list[UUID]:
        if time.monotonic() >= self._forget_at:
            self._held_up = set()
        return list(self._held_up)

    def _pass_over(
        self, claimed: Sequence[ClaimedEntry], turn: Sequence[ClaimedEntry], settled: Collection[UUID]
    ) -> None:
        """An entry that was claimed in its wallet's turn alone, too early, says nothing of its wallets."""
        tried = {entry.id for entry in turn}
        held_up = {
            wallet_id
            for entry in claimed
            if entry.id not in settled and (entry.is_oldest or entry.id in tried)
            for wallet_id in entry.wallet_ids
        }
        if held_up and not self._held_up:
            self._forget_at = time.monotonic() + DELAY_SECONDS
        self._held_up |= held_up


class _NoTrace(Exception):
    """An entry that would leave the inbox without an operation."""


def _in_order(entries: Sequence[ClaimedEntry], is_free: Callable[[ClaimedEntry], bool]) -> list[ClaimedEntry]:
    """Those that are free, and come after none of the same wallet that is not."""
    free, waits = [], set[UUID]()
    for entry in entries:
        if waits.isdisjoint(entry.wallet_ids) and is_free(entry):
            free.append(entry)
        else:
            waits.update(entry.wallet_ids)
    return free


def _whose_turn_it_is(claimed: list[ClaimedEntry]) -> list[ClaimedEntry]:
    """The due entries before which no entry of their wallets waits, except others of these."""
    if not claimed:
        return []
    ids = [entry.id for entry in claimed]
    first = dict(rows(_FIRST_OF_OTHERS, {"claimed": ids, "wallets": list(_wallets(claimed))}))
    return _in_order(
        claimed,
        lambda entry: (
            entry.is_due
            and all((first[wallet] or entry.position) >= entry.position for wallet in entry.wallet_ids)
        ),
    )


def _locked(entries: list[ClaimedEntry]) -> list[ClaimedEntry]:
    """Those whose wallets could be locked in time. All wallets are, at once, so that nothing deadlocks."""
    if not entries:
        return []
    wallets = _wallets(entries)
    try:
        with transaction.atomic():
            wallet_states(Wallet.objects.select_for_update(no_key=True), wallets)
    except db.OperationalError as error:
        if not database_retry.is_lock_timeout(error):
            raise
        got = wallet_states(Wallet.objects.select_for_update(no_key=True, skip_locked=True), wallets)
        return _in_order(entries, lambda entry: got.keys() >= set(entry.wallet_ids))
    return entries


def _again(tried: Sequence[ClaimedEntry]) -> list[ClaimedEntry]:
    """Lock the entries in a new transaction, as they were claimed: their attempt is counted already."""
    locked = {entry.id for entry in claim_again([entry.id for entry in tried])}
    return [entry for entry in tried if entry.id in locked]


def _carried_out(entries: list[ClaimedEntry]) -> list[ClaimedEntry]:
    """Carry out the entries together, or if that fails one by one; return those that were carried out."""
    try:
        return _carry_out(entries)
    except Exception as error:
        if database_retry.is_connection_lost(error):
            raise
        logger.warning("%d of the inbox failed together, now one by one: %r", len(entries), error)
        return _in_order(entries, _is_carried_out)


def _carry_out(entries: list[ClaimedEntry]) -> list[ClaimedEntry]:
    if not entries:
        return []
    with transaction.atomic():
        outcomes = execute([_command(entry) for entry in entries])
        for outcome in outcomes:
            # All that leaves no trace was asked before it was accepted; without one it must not leave.
            if not isinstance(outcome, Posted) and not getattr(outcome, "operation_id", None):
                raise _NoTrace(f"it came to {outcome!r}")
        remove([entry.id for entry in entries])
    return entries


def _is_carried_out(entry: ClaimedEntry) -> bool:
    """Carry out this one. If it cannot be, its wallets wait for the next attempt, until it is set aside."""
    try:
        _carry_out([entry])
    except Exception as error:
        if database_retry.is_connection_lost(error):
            raise
        then = "is set aside" if record_failure(entry, error) else "is tried again"
        logger.error("the inbox's %s cannot be carried out and %s: %r", entry.id, then, error)
        return False
    return True


def _wallets(entries: Sequence[ClaimedEntry]) -> set[UUID]:
    return {wallet_id for entry in entries for wallet_id in entry.wallet_ids}


def _command(entry: ClaimedEntry) -> Command:
    """What was accepted, as it was asked for. Its id needs no lock: it has been taken since then."""
    accepted = entry.accepted()
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
        _, original = lookups.find_original(accepted.reverses_id)
        return Reverse(original=original, amount=amount, **common)
    if accepted.hold_id:
        return CaptureHold(hold_id=accepted.hold_id, amount=amount, **common)
    if accepted.counterparty_id:
        return MakeTransfer(target_id=accepted.counterparty_id, amount=accepted.amount, **common)
    return COMMANDS[accepted.type](amount=accepted.amount, **common)
