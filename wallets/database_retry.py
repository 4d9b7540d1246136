"""When the database goes away: which errors mean that, and trying again until it is back."""

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

RECONNECT_PAUSE_SECONDS: Final = 0.1  # seconds between two attempts to reach the database

# SQLSTATEs of a server that goes, comes, or is full. An error without one comes from the connection itself.
_AWAY: Final = ("08", "57P", "25P03", "53300", "25006")


def is_connection_lost(error: Exception) -> bool:
    """Whether the connection is lost or could not be made, so that the end of a commit may be unknown."""
    if isinstance(error, db.InterfaceError):
        return True
    if not isinstance(error, db.OperationalError | db.InternalError):
        return False
    state: str | None = getattr(error.__cause__, "sqlstate", None)
    return state is None or state.startswith(_AWAY)


def is_outcome_unknown(error: Exception) -> bool:
    """Whether it may be done what the database was asked for. Who got no connection has asked nothing."""
    return not isinstance(error.__cause__, PoolTimeout)


def is_lock_timeout(error: Exception) -> bool:
    """Whether a lock was not to be had in time: everything was rolled back."""
    return isinstance(error.__cause__, postgres.LockNotAvailable)


def reconnect(using: str) -> None:
    """Drop the connection, so that the next statement makes a new one."""
    with suppress(db.Error):  # it is gone, which is what was wanted
        db.connections[using].close()


def retry_until_deadline(work: Callable[[], T], using: str = db.DEFAULT_DB_ALIAS) -> T:
    """What `work` returns, tried again up to OPERATION_DEADLINE while the database is away or a lock taken.

    `work` must be safe to repeat: a read, or a write under an id that was made before.
    """
    deadline = time.monotonic() + settings.OPERATION_DEADLINE
    doubt: db.Error | None = None
    busy: db.Error | None = None
    while True:
        try:
            with disconnected_when_slow(using):
                return work()
        except db.Error as error:
            if is_lock_timeout(error):
                busy = error
            elif not is_connection_lost(error):
                raise
            elif is_outcome_unknown(error):
                doubt = error
            told = doubt or busy or error
        if time.monotonic() + RECONNECT_PAUSE_SECONDS >= deadline:
            raise told
        reconnect(using)  # who waits for a lock gives the connection back to the pool meanwhile
        time.sleep(RECONNECT_PAUSE_SECONDS)


def run_as_one_call(
    call: Callable[[list[ItemT]], list[ResultT]], using: str = db.DEFAULT_DB_ALIAS
) -> Callable[[Sequence[PendingCall[ItemT, ResultT]]], list[PendingCall[ItemT, ResultT]]]:
    """What a Gather runs where one call, safe to repeat, has the results of all items, in their order."""

    def run(tickets: Sequence[PendingCall[ItemT, ResultT]]) -> list[PendingCall[ItemT, ResultT]]:
        claimed = [ticket for ticket in tickets if ticket.claim()]
        if not claimed:
            return []
        try:
            results = retry_until_deadline(lambda: call([ticket.item for ticket in claimed]), using)
        except db.Error as error:
            for ticket in claimed:
                ticket.fail(error)
        else:
            for ticket, result in zip(claimed, results, strict=True):
                ticket.settle(result)
        finally:
            db.connections[using].close_if_unusable_or_obsolete()  # the pool's goes back to it
        return []

    return run


# --- A database that does not answer -----------------------------------------------------------------
def disconnected_when_slow(using: str, seconds: float | None = None) -> AbstractContextManager[None]:
    """Cut the connection if the block takes longer: it can be half open, or its server frozen.

    The default leaves just the time to do the work again before the deadline of a request.
    """
    if seconds is None:
        seconds = settings.OPERATION_DEADLINE / 2 + settings.LOCK_PATIENCE
    wrapper = db.connections[using]  # of this thread
    return cut_off_after(seconds, lambda: _cut(wrapper.connection))


def _cut(connection: psycopg.Connection | None) -> None:
    """Make the thread that waits for the connection see its end."""
    if connection is None:
        return  # connecting has a timeout of its own
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as it:
        it.shutdown(socket.SHUT_RDWR)
