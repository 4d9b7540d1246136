"""Executes operations that were accepted asynchronously, in any number of worker processes.

An entry leaves the inbox in the transaction that writes its operation, so a crash neither loses nor doubles
it. The entries of a wallet are executed in the order of their acceptance, in both wallets of a transfer.

inbox_claim.py chooses the entries, so that no wallet waits for the queue of another; inbox_failures.py
retries an entry that fails, and sets it aside after its last attempt.
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

SKIP_SECONDS: Final = 1.0  # for which wallets are skipped after one of their entries could not be executed
MAX_DRAIN_ENTRIES: Final = 1 << 20  # executed in one transaction after a success: more than a claim has

_WAITING: Final = """
    SELECT count(*) FILTER (WHERE set_aside_at IS NULL),
        clock_timestamp() - min(created_at) FILTER (WHERE set_aside_at IS NULL),
        count(set_aside_at)
    FROM inbox
"""
# For each wallet, its first waiting entry that this worker has not claimed. The entries after it must wait.
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
    """The number of entries in the inbox, and the age of the oldest."""

    entries: int
    oldest: timedelta | None  # the age of the first entry
    set_aside: int  # further entries, which wait for an operator's decision


def waiting() -> Waiting:
    """Count the entries of the inbox."""
    return Waiting(*rows(_WAITING, [])[0])


def drain(limit: int) -> int:
    """Execute up to `limit` of the oldest entries; return how many. Raises as Drain.run does."""
    return Drain().run(limit)


class Drain:
    """Drains the inbox in one worker process.

    It skips blocked wallets for SKIP_SECONDS: wallets that another worker or transaction has locked, or whose
    next entry fails. Otherwise the long queue of one such wallet would fill every claim. It stops skipping
    all of them at the same time: if it did so one by one, a transfer between two blocked wallets could wait
    without end, because one of the two would be skipped at any time.

    An entry may end the database connection, or the process, each time that it is executed. So a `careful`
    drain (the first of a process, or the next after a lost connection) starts with one entry and commits its
    attempt first: the attempt counts as failed unless it succeeds. After each success it doubles the number
    of entries.
    """

    def __init__(self, *, careful: bool = False) -> None:
        self._turns = Turns()
        self._blocked: set[UUID] = set()
        self._skip_until = 0.0
        self._max_entries = 1 if careful else MAX_DRAIN_ENTRIES  # in the next transaction

    def run(self, limit: int) -> int:
        """Execute up to `limit` of the oldest entries, and return how many.

        Return 0 if the inbox is empty or all of its entries wait. Raises django.db.Error if the database is
        unavailable: then the transaction was committed as a whole or not at all.
        """
        try:
            return self._run(limit)
        except Exception:
            self._max_entries = 1
            raise

    def _run(self, limit: int) -> int:
        done: list[ClaimedEntry] = []
        with transaction.atomic():
            claimed = self._turns.claim(limit, self._skipped())
            turn = _executable(claimed)
            # An entry whose wallets can be locked here can most likely lock them in the next transaction too:
            # a wallet that another transaction has locked for long costs no attempt.
            tried = _locked(turn[: self._max_entries])
            if self._max_entries > 1:
                done = _execute_or_one_by_one(tried)
            else:
                for entry in tried:
                    record_attempt(entry)
        if tried and self._max_entries == 1:
            with transaction.atomic():
                done = _in_order(_locked(_claim_again(tried)), _succeeds)
        postponed = turn[self._max_entries :]
        if tried:
            self._max_entries = min(self._max_entries * 2, MAX_DRAIN_ENTRIES)
        self._skip(claimed, turn, {entry.id for entry in [*done, *postponed]})
        return len(done)

    def _skipped(self) -> list[UUID]:
        if time.monotonic() >= self._skip_until:
            self._blocked = set()
        return list(self._blocked)

    def _skip(
        self, claimed: Sequence[ClaimedEntry], turn: Sequence[ClaimedEntry], settled: Collection[UUID]
    ) -> None:
        """Skip the wallets of entries that could not be executed.

        An entry that was claimed early, for the turn of its wallet only, does not show that a wallet is
        blocked.
        """
        tried = {entry.id for entry in turn}
        blocked = {
            wallet_id
            for entry in claimed
            if entry.id not in settled and (entry.is_oldest or entry.id in tried)
            for wallet_id in entry.wallet_ids
        }
        if blocked and not self._blocked:
            self._skip_until = time.monotonic() + SKIP_SECONDS
        self._blocked |= blocked


class _NotRecorded(Exception):
    """The outcome of an entry is not an operation, so the entry must not leave the inbox."""


def _in_order(entries: Sequence[ClaimedEntry], is_free: Callable[[ClaimedEntry], bool]) -> list[ClaimedEntry]:
    """Return the entries that are free and do not follow an entry of the same wallet that is not."""
    free, waits = [], set[UUID]()
    for entry in entries:
        if waits.isdisjoint(entry.wallet_ids) and is_free(entry):
            free.append(entry)
        else:
            waits.update(entry.wallet_ids)
    return free


def _executable(claimed: list[ClaimedEntry]) -> list[ClaimedEntry]:
    """Return the due entries that no entry outside of this result must precede."""
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
    """Return the entries whose wallets could be locked in time; all in one statement, against deadlocks."""
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


def _claim_again(tried: Sequence[ClaimedEntry]) -> list[ClaimedEntry]:
    """Lock the entries again, with the values of the claim: their attempt is counted already."""
    locked = {entry.id for entry in claim_again([entry.id for entry in tried])}
    return [entry for entry in tried if entry.id in locked]


def _execute_or_one_by_one(entries: list[ClaimedEntry]) -> list[ClaimedEntry]:
    """Execute the entries in one transaction, or one by one if that fails; return those that succeeded."""
    try:
        return _execute(entries)
    except Exception as error:
        if database_retry.is_connection_lost(error):
            raise
        logger.warning(
            "%d inbox entries failed in one transaction; executing them one by one: %r", len(entries), error
        )
        return _in_order(entries, _succeeds)


def _execute(entries: list[ClaimedEntry]) -> list[ClaimedEntry]:
    if not entries:
        return []
    with transaction.atomic():
        outcomes = execute([_command(entry) for entry in entries])
        for outcome in outcomes:
            # What is refused without a record was checked before the inbox accepted the command.
            if not isinstance(outcome, Posted) and not getattr(outcome, "operation_id", None):
                raise _NotRecorded(f"the outcome was {outcome!r}")
        remove([entry.id for entry in entries])
    return entries


def _succeeds(entry: ClaimedEntry) -> bool:
    """Execute one entry. If it fails, its wallets wait for its next attempt, until it is set aside."""
    try:
        _execute([entry])
    except Exception as error:
        if database_retry.is_connection_lost(error):
            raise
        then = "set aside" if record_failure(entry, error) else "will be retried"
        logger.error("inbox entry %s failed and %s: %r", entry.id, then, error)
        return False
    return True


def _wallets(entries: Sequence[ClaimedEntry]) -> set[UUID]:
    return {wallet_id for entry in entries for wallet_id in entry.wallet_ids}


def _command(entry: ClaimedEntry) -> Command:
    """Return the command of an entry. Its id needs no lock: the entry has reserved it."""
    accepted = entry.accepted()
    common: dict[str, Any] = {
        "wallet_id": accepted.wallet_id,
        "id": accepted.id,
        "key": accepted.idempotency_key,
        "reference": accepted.reference,
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
