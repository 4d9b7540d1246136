"""When the database goes away: which errors mean that, and trying again until it is back."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from django import db
from django.conf import settings
from psycopg import errors as postgres

T = TypeVar("T")

PAUSE: Final = 0.1  # seconds between two attempts to reach the database

# SQLSTATEs of a server that goes, comes, or is full. An error without one comes from the connection itself.
_AWAY: Final = ("08", "57P", "53300", "25006")


def is_away(error: Exception) -> bool:
    """Whether the connection is lost or could not be made, so that the end of a commit may be unknown."""
    if isinstance(error, db.InterfaceError):
        return True
    if not isinstance(error, db.OperationalError):
        return False
    state: str | None = getattr(error.__cause__, "sqlstate", None)
    return state is None or state.startswith(_AWAY)


def is_lock_timeout(error: Exception) -> bool:
    """Whether a lock was not to be had in time: everything was rolled back."""
    return isinstance(error.__cause__, postgres.LockNotAvailable)


def reconnect(using: str) -> None:
    """Drop the connection, so that the next statement makes a new one."""
    with suppress(db.Error):  # it is gone, which is what was wanted
        db.connections[using].close()


def until_deadline(work: Callable[[], T], using: str = db.DEFAULT_DB_ALIAS) -> T:
    """What `work` returns, tried again while the database is away, up to OPERATION_DEADLINE.

    `work` must be safe to repeat: a read, or a write under an id that was made before.
    """
    deadline = time.monotonic() + settings.OPERATION_DEADLINE
    while True:
        try:
            return work()
        except db.Error as error:
            if not is_away(error) or time.monotonic() + PAUSE >= deadline:
                raise
        reconnect(using)
        time.sleep(PAUSE)
