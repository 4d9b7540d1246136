"""Inbox entries that fail: retried, then set aside, then decided by an operator.

While an entry is retried, the later entries of its wallets wait for it. After it is set aside they do not
wait: the order of acceptance is given up for this entry only.
"""

from typing import Final
from uuid import UUID

from django.db import IntegrityError, transaction

from wallets.ledger.commands import RejectAccepted
from wallets.ledger.execute import execute
from wallets.ledger.inbox_claim import ClaimedEntry, rows
from wallets.ledger.tables import AS_OPERATION, Record, to_record
from wallets.problems import RejectedByOperator

# Between two attempts. The entry's wallets are blocked meanwhile, so the sum is short: a failure that lasts
# longer, such as a full disk, leaves entries for an operator to retry.
RETRY_PAUSES_SECONDS: Final = (1, 2, 4, 8)
MAX_ATTEMPTS: Final = len(RETRY_PAUSES_SECONDS) + 1
MAX_ERROR_LENGTH: Final = 500
ENDED: Final = "The worker or its database connection ended during the attempt."

_RECORD_FAILURE: Final = """
    UPDATE inbox SET attempts = %(attempts)s, last_error = %(error)s,
        next_attempt_at = clock_timestamp() + make_interval(secs => %(pause)s),
        set_aside_at = CASE WHEN %(is_last)s THEN clock_timestamp() END
    WHERE id = %(id)s AND wallet_id = %(wallet_id)s RETURNING id
"""
_COUNT_FAILURE: Final = "SELECT nextval('inbox_failures')"
_HAS_SET_ASIDE: Final = "SELECT EXISTS (SELECT FROM inbox WHERE wallet_id = %s AND set_aside_at IS NOT NULL)"
_LOCK: Final = f"SELECT set_aside_at, {AS_OPERATION} FROM inbox WHERE id = %s FOR UPDATE"  # noqa: S608
_RETRY: Final = """
    UPDATE inbox SET attempts = 0, last_error = '', next_attempt_at = NULL, set_aside_at = NULL
    WHERE id = %s RETURNING id
"""
_REMOVE: Final = "DELETE FROM inbox WHERE id = ANY(%s::uuid[]) RETURNING id"


class NotSetAside(Exception):
    """The entry is not set aside any more: another operator or a worker has changed it."""


class CannotBeRejected(Exception):
    """The ledger cannot record the rejection."""


# --- By workers -------------------------------------------------------------------------------------
def record_failure(entry: ClaimedEntry, error: Exception) -> bool:
    """Record that an attempt failed. Return whether that was the last: then the entry is set aside.

    If another entry of the wallet is set aside already, the first failure is the last. Otherwise a wallet
    with a thousand failing entries would block the wallets that it pays for hours.
    """
    rows(_COUNT_FAILURE, [])
    is_last = _is_last(entry) or rows(_HAS_SET_ASIDE, [entry.wallet_id])[0][0]
    _record(entry, repr(error), is_last)
    return is_last


def record_attempt(entry: ClaimedEntry) -> None:
    """Record an attempt as failed before it begins. If it succeeds, the entry is removed with the record."""
    _record(entry, ENDED, _is_last(entry))


def _is_last(entry: ClaimedEntry) -> bool:
    return entry.attempts + 1 >= MAX_ATTEMPTS


def _record(entry: ClaimedEntry, error: str, is_last: bool) -> None:
    failure = {
        "id": entry.id,
        "wallet_id": entry.wallet_id,
        "attempts": entry.attempts + 1,
        "error": error[:MAX_ERROR_LENGTH],
        "pause": 0 if is_last else RETRY_PAUSES_SECONDS[entry.attempts],
        "is_last": is_last,
    }
    rows(_RECORD_FAILURE, failure)


def remove(ids: list[UUID]) -> None:
    """Delete the entries whose operations the transaction has written."""
    rows(_REMOVE, [ids])


# --- By operators -----------------------------------------------------------------------------------
def retry(entry_id: UUID) -> None:
    """Let the workers retry the entry at its old position. Raises NotSetAside."""
    with transaction.atomic():
        _lock(entry_id)
        rows(_RETRY, [entry_id])


def reject(entry_id: UUID) -> None:
    """Record the operation as REJECTED in the ledger. Raises NotSetAside or CannotBeRejected.

    The entry is locked before its wallet, in the order of the workers, so that they cannot deadlock.
    """
    try:
        with transaction.atomic():
            accepted = _lock(entry_id)
            (outcome,) = execute([_rejection(accepted)])
            if not isinstance(outcome, RejectedByOperator) or outcome.operation_id != entry_id:
                raise CannotBeRejected(f"The outcome was {outcome!r}.")
            remove([entry_id])
    except IntegrityError as error:
        raise CannotBeRejected(str(error.__cause__).partition("\n")[0]) from error


def _lock(entry_id: UUID) -> Record:
    found = rows(_LOCK, [entry_id])
    if not found or found[0][0] is None:
        raise NotSetAside
    return to_record(found[0][1:])


def _rejection(accepted: Record) -> RejectAccepted:
    return RejectAccepted(
        wallet_id=accepted.wallet_id,
        id=accepted.id,
        key=accepted.idempotency_key,
        description=accepted.description,
        metadata=accepted.metadata,
        actor=accepted.actor,
        accepted_at=accepted.created_at,
        accepted_type=accepted.type,
        amount=accepted.amount,
        target_id=accepted.counterparty_id,
        hold_id=accepted.hold_id,
        reverses_id=accepted.reverses_id,
        takes_rest=accepted.takes_rest,
    )
