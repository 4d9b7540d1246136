"""One moment of the whole ledger: all statements of a transaction see the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from django.db import connection


@dataclass(frozen=True, slots=True)
class Snapshot:
    """PostgreSQL's pg_snapshot: below `begin` all transactions are in it; from `end` on, none."""

    begin: int
    end: int
    running: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of "begin:end:running,running"."""
        begin, end, running = text.split(":")
        return cls(int(begin), int(end), frozenset(map(int, running.split(","))) if running else frozenset())

    def __str__(self) -> str:
        return f"{self.begin}:{self.end}:{','.join(map(str, sorted(self.running)))}"

    def has(self, transaction_id: int) -> bool:
        return transaction_id < self.begin or (
            transaction_id < self.end and transaction_id not in self.running
        )


NOTHING = Snapshot(1, 1)


@contextmanager
def reading() -> Iterator[Any]:
    """A cursor in a transaction of its own, whose statements all see one moment."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            # It locks nothing that others wait for, and who reads what it finds may take their time.
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            yield cursor.cursor
        finally:
            if not connection.connection.closed:
                cursor.execute("COMMIT")
