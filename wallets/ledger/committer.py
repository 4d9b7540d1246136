"""Group commit: all commands in flight share the next transaction.

A transaction holds a wallet's lock until its commit is on disk, so one transaction for each request would
limit a busy wallet to 1 / commit time. Here each process has one committer with one database connection. It
takes the commands of all wallets, so that thousands of rarely used wallets gain as much as a busy one.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, cast
from uuid import UUID

from django import db
from django.conf import settings

from wallets import database_retry
from wallets.batching import RETRY_PAUSE_SECONDS, Batcher, PendingCall, once
from wallets.ledger.commands import AtomicBulk, Command, Work
from wallets.ledger.decisions import Outcome, Posted
from wallets.ledger.execute import Answer, Deferred, execute
from wallets.ledger.tables import REJECTED
from wallets.observability import metrics, traces
from wallets.observability.metrics import Kind
from wallets.problems import Problem, Unavailable

logger = logging.getLogger(__name__)

PendingWork = PendingCall[Work, Answer]

PLAN_LIFETIME_SECONDS: Final = 1.0  # planning the four statements takes a millisecond
LEDGER = "ledger"  # the committer's own connection (settings.DATABASES)


def submit(command: Command) -> Posted:
    """Commit one command and return its outcome.

    Raises Problem, the refusal, with no money moved; TooManyRequests, with nothing applied; or Unavailable,
    with the outcome unknown: a retry with the same key finds out.
    """
    outcome = _commit(command)
    if isinstance(outcome, Problem):
        raise outcome
    return cast(Posted, outcome)  # a list is the outcome of an atomic bulk only


def submit_all(commands: Sequence[Command]) -> list[Posted | Exception]:
    """Commit the commands in their order; return what `submit` would return or raise for each.

    Raises TooManyRequests if the queue cannot take all of them; then none was applied.
    """
    with traces.wait():
        if settings.GROUP_COMMIT:
            return cast(list[Posted | Exception], batcher().call_all(commands))
        return cast(list[Posted | Exception], [_outcome_alone(command) for command in commands])


def submit_atomically(commands: Sequence[Command]) -> list[Posted]:
    """Commit all of the commands or none of them. Raises as `submit` does, for the first refusal."""
    outcomes = _commit(AtomicBulk(commands=tuple(commands)))
    if isinstance(outcomes, Problem):
        raise outcomes
    return cast(list[Posted], outcomes)  # if one were refused, the outcome would be its refusal


def _commit(work: Work) -> Answer:
    """Commit the work with all other work in flight, or alone if GROUP_COMMIT is off; return its outcome."""
    with traces.wait():
        return batcher().call(work) if settings.GROUP_COMMIT else _commit_alone(work)


@once
def batcher() -> Batcher[Work, Answer]:
    """Return the batcher of this process: created at the first command, so after the server's fork."""
    return Batcher(
        "committer",
        Committer(LEDGER).run,
        max_batch_size=settings.GROUP_COMMIT_BATCH,
        queue_limit=settings.GROUP_COMMIT_QUEUE,
        timeout_seconds=settings.OPERATION_DEADLINE,
        weigh=lambda work: len(work.commands) if isinstance(work, AtomicBulk) else 1,
    )


def _outcome_alone(command: Command) -> Answer | Exception:
    try:
        return _commit_alone(command)
    except Exception as error:
        return error


def _commit_alone(work: Work) -> Answer:
    pending: PendingWork = PendingCall(work, settings.OPERATION_DEADLINE)
    # A new committer for each attempt waits for the wallet's lock each time: no other work waits behind it.
    while Committer(db.DEFAULT_DB_ALIAS).run([pending]) and pending.is_in_time:
        # Other requests may use the pool's connection meanwhile.
        database_retry.reconnect(db.DEFAULT_DB_ALIAS)
        time.sleep(RETRY_PAUSE_SECONDS)
    return pending.wait()


class Committer:
    """Executes pending work on the connection `using`, each exactly once, whatever the database does."""

    def __init__(self, using: str) -> None:
        self._using = using
        # After a lock timeout, later batches do not wait for the wallet's lock until it was available once.
        # Otherwise the wallet would delay all others again each time that its requests reach their deadline.
        self._contended_wallets: set[UUID] = set()
        self._plans_are_good_until = 0.0 if using == LEDGER else math.inf  # other connections keep no plans

    def run(self, calls: Sequence[PendingWork]) -> list[PendingWork]:
        """Resolve the calls; return those whose wallet another transaction has locked, to be tried again."""
        return self._run_claimed([pending for pending in calls if pending.claim()])

    def _run_claimed(self, calls: list[PendingWork]) -> list[PendingWork]:
        contended = self._contended_wallets.intersection(_wallets(calls))
        while calls:
            work = [pending.item for pending in calls]
            is_recovering = any(pending.is_in_doubt for pending in calls)
            try:
                with (
                    database_retry.disconnected_when_slow(self._using),
                    traces.batch([pending.span for pending in calls]),
                ):
                    self._discard_old_plans()
                    outcomes = execute(
                        work, using=self._using, contended=contended, is_recovering=is_recovering
                    )
            except Exception as error:
                if database_retry.is_lock_timeout(error):
                    contended = _wallets(calls)
                elif database_retry.is_connection_lost(error):
                    calls = self._wait_for_database(calls, error)
                else:
                    return self._one_by_one(calls, error)
            else:
                return self._resolve(calls, outcomes)
        return []

    def _discard_old_plans(self) -> None:
        """Discard plans after PLAN_LIFETIME_SECONDS.

        A plan made while a wallet was small would read all of its operations for each batch.
        """
        now = time.monotonic()
        if now >= self._plans_are_good_until:
            with db.connections[self._using].cursor() as cursor:
                cursor.execute("DISCARD PLANS")
            self._plans_are_good_until = now + PLAN_LIFETIME_SECONDS

    def _resolve(self, calls: list[PendingWork], outcomes: list[Answer | Deferred]) -> list[PendingWork]:
        deferred = []
        for pending, outcome in zip(calls, outcomes, strict=True):
            if isinstance(outcome, Deferred):
                pending.defer()
                deferred.append(pending)
            else:
                pending.resolve(outcome)
        if settings.METRICS:
            count_outcomes(zip([pending.item for pending in calls], outcomes, strict=True))
        if deferred or self._contended_wallets:
            self._contended_wallets.difference_update(_wallets(calls))
            self._contended_wallets.update(_wallets(deferred))
        return deferred

    def _wait_for_database(self, calls: list[PendingWork], error: Exception) -> list[PendingWork]:
        """Return the calls to execute again after a reconnect: those before their deadline.

        The commit may have happened. The same commands run again under the same ids. A dying backend keeps
        its locks until it has ended; after that the ids are in the ledger or not.
        """
        logger.warning("database unavailable; %d operations waiting for reconnect: %s", len(calls), error)
        database_retry.reconnect(self._using)
        time.sleep(database_retry.RECONNECT_PAUSE_SECONDS)
        for pending in calls:
            pending.is_in_doubt |= database_retry.is_outcome_unknown(error)
        late = [pending for pending in calls if not pending.is_in_time]
        for pending in late:
            pending.fail(Unavailable())
        return [pending for pending in calls if pending not in late]

    def _one_by_one(self, calls: list[PendingWork], error: Exception) -> list[PendingWork]:
        """Execute a failed batch one by one, so that only the call that caused the error fails."""
        if len(calls) == 1:
            calls[0].fail(error)
            return []
        logger.warning("batch of %d operations failed; running them one by one: %s", len(calls), error)
        return [deferred for pending in calls for deferred in self._run_claimed([pending])]


def _wallets(calls: Sequence[PendingWork]) -> set[UUID]:
    return {wallet_id for pending in calls for wallet_id in pending.item.wallet_ids}


# --- Metrics ----------------------------------------------------------------------------------------
# Outcomes that are not the status of an operation.
REPLAYED: Final = "REPLAYED"
REFUSED: Final = "REFUSED"  # not recorded
ATOMIC_BULK: Final = "TOGETHER"  # the type of an atomic bulk that was refused: it counts as one


def count_outcomes(done: Iterable[tuple[Work, Answer | Deferred]]) -> None:
    """Count what became of the commands of a batch, in one call for the whole batch."""
    kinds: list[Kind] = []
    for work, answer in done:
        if isinstance(answer, Outcome):
            kinds.append(_kind(ATOMIC_BULK if isinstance(work, AtomicBulk) else work.operation_type, answer))
        elif isinstance(answer, list):
            commands = cast(AtomicBulk, work).commands
            kinds += [
                _kind(command.operation_type, outcome)
                for command, outcome in zip(commands, answer, strict=True)
            ]
    metrics.count_operations(Counter(kinds))


def _kind(type: str, outcome: Outcome) -> Kind:
    if outcome.replayed:
        return type, REPLAYED, ""
    if isinstance(outcome, Posted):
        return type, outcome.operation.status, ""
    return type, REJECTED if outcome.operation_id else REFUSED, outcome.code
