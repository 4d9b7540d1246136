"""One moment of the whole ledger: all statements of a transaction see the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connection


@dataclass(frozen=True, slots=True)
class Snapshot:
    """PostgreSQL's pg_snapshot, such as 10:20:10,14: below the first number all transactions are in it; from
    the second on, none; between them, all but those that are listed.
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
    """A cursor in a transaction of its own, whose statements all see one moment."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            # It locks nothing that others wait for, and who reads what it finds may take their time.
            for limit in ("idle_in_transaction_session", "statement", "lock"):
                cursor.execute(f"SET LOCAL {limit}_timeout = 0")
            yield cursor.cursor
        finally:
            if not connection.connection.closed:
                cursor.execute("COMMIT")
