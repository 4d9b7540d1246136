"""Reads the whole ledger in one consistent snapshot."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connection


@dataclass(frozen=True, slots=True)
class Snapshot:
    """PostgreSQL's pg_snapshot, such as 10:20:10,14.

    It contains all transactions below the first number, none from the second number on, and all between them
    except those in the list.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def begin(self) -> int:
        return int(self.text.split(":")[0])

    @property
    def end(self) -> int:
        return int(self.text.split(":")[1])


NOTHING = Snapshot("1:1:")


@contextmanager
def reading() -> Iterator[Any]:
    """Open a read-only transaction whose statements all see the same snapshot, and yield its cursor."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            # It takes no locks that block other transactions, so it may be slow.
            for limit in ("idle_in_transaction_session", "statement", "lock"):
                cursor.execute(f"SET LOCAL {limit}_timeout = 0")
            yield cursor.cursor
        finally:
            if not connection.connection.closed:
                cursor.execute("COMMIT")
