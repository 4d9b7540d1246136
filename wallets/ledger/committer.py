"""Group commit: all commands in flight share the next transaction.

A wallet's lock is held until its commit is on disk, so one transaction a request would cap a busy wallet at
1 / commit time. Here every process has one committer, with one database connection. It takes the commands of
all wallets, so that thousands of cold wallets gain as much as one hot one.
"""

import logging
import math
import time
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from django import db
from django.conf import settings

from wallets import database_retry
from wallets.batching import RETRY_PAUSE_SECONDS, Batcher, PendingCall, once
from wallets.ledger import tally
from wallets.ledger.commands import AtomicBulk, Command, Work
from wallets.ledger.execute import Answer, Deferred, execute
from wallets.observability import traces
from wallets.problems import Unavailable

logger = logging.getLogger(__name__)

PendingWork = PendingCall[Work, Answer]

PLAN_LIFETIME_SECONDS: Final = 1.0  # seconds; to plan the four statements takes a millisecond
LEDGER = "ledger"  # the committer's own connection (settings.DATABASES)


def commit(work: Work) -> Answer:
    """Carry out the command: with all others in flight, or alone where GROUP_COMMIT is off.

    Raises TooManyRequests (nothing was applied), Unavailable (the outcome is not known), or what the database
    raised for this command alone.
    """
    with traces.wait():
        return batcher().ask(work) if settings.GROUP_COMMIT else _alone(work)


def commit_all(commands: Sequence[Command]) -> list[Answer | Exception]:
    """Carry out the commands in their order, each by itself; of each its outcome, or what `commit` raises.

    Raises TooManyRequests where there is not room for all of them: then none was applied.
    """
    with traces.wait():
        if settings.GROUP_COMMIT:
            return batcher().ask_all(commands)
        return [_attempt(command) for command in commands]


@once
def batcher() -> Batcher[Work, Answer]:
    """This process's one. It is made at the first command, and so after the server's fork."""
    return Batcher(
        "committer",
        Committer(LEDGER).run,
        most=settings.GROUP_COMMIT_BATCH,
        bound=settings.GROUP_COMMIT_QUEUE,
        patience=settings.OPERATION_DEADLINE,
        weigh=lambda work: len(work.commands) if isinstance(work, AtomicBulk) else 1,
    )


def _attempt(command: Command) -> Answer | Exception:
    try:
        return _alone(command)
    except Exception as error:
        return error


def _alone(work: Work) -> Answer:
    ticket: PendingWork = PendingCall(work, settings.OPERATION_DEADLINE)
    # Each time a new one, which waits for its turn at the wallet: alone, it holds up nobody.
    while Committer(db.DEFAULT_DB_ALIAS).run([ticket]) and ticket.is_in_time:
        database_retry.reconnect(db.DEFAULT_DB_ALIAS)  # others may have the pool's connection meanwhile
        time.sleep(RETRY_PAUSE_SECONDS)
    return ticket.wait()


class Committer:
    """Carries out tickets on the connection `using`, each exactly once, whatever the database does."""

    def __init__(self, using: str) -> None:
        self._using = using
        # A wallet that kept somebody waiting is not waited for again until its lock was to be had: else it
        # would hold up the others each time that its requests have reached their deadline.
        self._contended_wallets: set[UUID] = set()
        self._plans_are_good_until = 0.0 if using == LEDGER else math.inf  # others do not keep any

    def run(self, tickets: Sequence[PendingWork]) -> list[PendingWork]:
        """Settle the tickets; return those whose wallet is locked by somebody else, to be tried again."""
        return self._run_claimed([ticket for ticket in tickets if ticket.claim()])

    def _run_claimed(self, tickets: list[PendingWork]) -> list[PendingWork]:
        contended = self._contended_wallets.intersection(_wallets(tickets))
        while tickets:
            work = [ticket.item for ticket in tickets]
            is_recovering = any(ticket.is_in_doubt for ticket in tickets)
            try:
                with (
                    database_retry.disconnected_when_slow(self._using),
                    traces.batch([ticket.span for ticket in tickets]),
                ):
                    self._plan_anew_at_times()
                    outcomes = execute(
                        work, using=self._using, contended=contended, is_recovering=is_recovering
                    )
            except Exception as error:
                if database_retry.is_lock_timeout(error):
                    contended = _wallets(tickets)
                elif database_retry.is_connection_lost(error):
                    tickets = self._wait_for_database(tickets, error)
                else:
                    return self._one_by_one(tickets, error)
            else:
                return self._hand_out(tickets, outcomes)
        return []

    def _plan_anew_at_times(self) -> None:
        """A plan that is kept from when a wallet was small reads all of its operations, for each batch."""
        now = time.monotonic()
        if now >= self._plans_are_good_until:
            with db.connections[self._using].cursor() as cursor:
                cursor.execute("DISCARD PLANS")
            self._plans_are_good_until = now + PLAN_LIFETIME_SECONDS

    def _hand_out(self, tickets: list[PendingWork], outcomes: list[Answer | Deferred]) -> list[PendingWork]:
        again = []
        for ticket, outcome in zip(tickets, outcomes, strict=True):
            if isinstance(outcome, Deferred):
                ticket.park()
                again.append(ticket)
            else:
                ticket.settle(outcome)
        if settings.METRICS:
            tally.count(zip([ticket.item for ticket in tickets], outcomes, strict=True))
        if again or self._contended_wallets:
            self._contended_wallets.difference_update(_wallets(tickets))
            self._contended_wallets.update(_wallets(again))
        return again

    def _wait_for_database(self, tickets: list[PendingWork], error: Exception) -> list[PendingWork]:
        """Those that are still in time, to run again.

        The commit may have happened. The same commands run again under the same ids: the lock of a dying
        backend holds until it has truly ended, then their ids are found, or not.
        """
        logger.warning("the database is away, %d operations wait for it: %s", len(tickets), error)
        database_retry.reconnect(self._using)
        time.sleep(database_retry.RECONNECT_PAUSE_SECONDS)
        for ticket in tickets:
            ticket.is_in_doubt |= database_retry.is_outcome_unknown(error)
        late = [ticket for ticket in tickets if not ticket.is_in_time]
        for ticket in late:
            ticket.fail(Unavailable())
        return [ticket for ticket in tickets if ticket not in late]

    def _one_by_one(self, tickets: list[PendingWork], error: Exception) -> list[PendingWork]:
        """The batch failed and was rolled back as a whole: alone, only the guilty one fails."""
        if len(tickets) == 1:
            tickets[0].fail(error)
            return []
        logger.warning("a batch of %d failed and is run one by one: %s", len(tickets), error)
        return [parked for ticket in tickets for parked in self._run_claimed([ticket])]


def _wallets(tickets: Sequence[PendingWork]) -> set[UUID]:
    return {wallet_id for ticket in tickets for wallet_id in ticket.item.wallet_ids}
