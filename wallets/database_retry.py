"""Retries work while the database is unavailable; tells which errors mean that."""

import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Final, TypeVar

import psycopg
from django import db
from django.conf import settings
from psycopg import errors as postgres
from psycopg_pool import PoolTimeout

from wallets.batching import PendingCall
from wallets.watchdog import cut_off_after

T = TypeVar("T")
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

RECONNECT_PAUSE_SECONDS: Final = 0.1

# SQLSTATEs of a server that shuts down, starts, or is full. An error without one is the connection's.
_AWAY: Final = ("08", "57P", "25P03", "53300", "25006")


def is_connection_lost(error: Exception) -> bool:
    """Whether the connection was lost or not made, so that the outcome of a commit may be unknown."""
    if isinstance(error, db.InterfaceError):
        return True
    if not isinstance(error, db.OperationalError | db.InternalError):
        return False
    state: str | None = getattr(error.__cause__, "sqlstate", None)
    return state is None or state.startswith(_AWAY)


def is_outcome_unknown(error: Exception) -> bool:
    """Whether the database may have done the work. Without a connection from the pool nothing was sent."""
    return not isinstance(error.__cause__, PoolTimeout)


def is_lock_timeout(error: Exception) -> bool:
    """Whether a lock was not available in time; the transaction was rolled back."""
    return isinstance(error.__cause__, postgres.LockNotAvailable)


def reconnect(using: str) -> None:
    """Drop the connection, so that the next statement makes a new one."""
    with suppress(db.Error):  # it may be closed already
        db.connections[using].close()


def retry_until_deadline(work: Callable[[], T], using: str = db.DEFAULT_DB_ALIAS) -> T:
    """Return what `work` returns; retry while the database or a lock is unavailable.

    `work` must be safe to repeat: a read, or a write under an id that was made before the first attempt.

    Raises the last django.db.Error after OPERATION_DEADLINE seconds; one whose outcome is unknown comes
    first.
    """
    deadline = time.monotonic() + settings.OPERATION_DEADLINE
    in_doubt: db.Error | None = None
    locked: db.Error | None = None
    while True:
        try:
            with disconnected_when_slow(using):
                return work()
        except db.Error as error:
            if is_lock_timeout(error):
                locked = error
            elif not is_connection_lost(error):
                raise
            elif is_outcome_unknown(error):
                in_doubt = error
            last = in_doubt or locked or error
        if time.monotonic() + RECONNECT_PAUSE_SECONDS >= deadline:
            raise last
        reconnect(using)  # other requests may use the pool's connection meanwhile
        time.sleep(RECONNECT_PAUSE_SECONDS)


def run_as_one_call(
    call: Callable[[list[ItemT]], list[ResultT]], using: str = db.DEFAULT_DB_ALIAS
) -> Callable[[Sequence[PendingCall[ItemT, ResultT]]], list[PendingCall[ItemT, ResultT]]]:
    """Return a `run` for a Batcher. `call` must be safe to repeat and return a result for each item."""

    def run(calls: Sequence[PendingCall[ItemT, ResultT]]) -> list[PendingCall[ItemT, ResultT]]:
        claimed = [pending for pending in calls if pending.claim()]
        if not claimed:
            return []
        try:
            results = retry_until_deadline(lambda: call([pending.item for pending in claimed]), using)
        except db.Error as error:
            for pending in claimed:
                pending.fail(error)
        else:
            for pending, result in zip(claimed, results, strict=True):
                pending.resolve(result)
        finally:
            db.connections[using].close_if_unusable_or_obsolete()  # a connection of the pool returns to it
        return []

    return run


# --- A database that does not respond -----------------------------------------------------------------
def disconnected_when_slow(using: str, seconds: float | None = None) -> AbstractContextManager[None]:
    """Close the connection of this thread if the block takes longer than `seconds`.

    The connection can be half open, or its server frozen. The default leaves the time for one more attempt
    before the deadline of the request.
    """
    if seconds is None:
        seconds = settings.OPERATION_DEADLINE / 2 + settings.LOCK_PATIENCE
    wrapper = db.connections[using]
    return cut_off_after(seconds, lambda: _cut(wrapper.connection))


def _cut(connection: psycopg.Connection | None) -> None:
    """Shut the socket down, so that the thread that reads from it gets an error."""
    if connection is None:
        return  # connecting has a timeout of its own
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as it:
        it.shutdown(socket.SHUT_RDWR)
