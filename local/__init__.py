"""What `make run` and `make test` need and production does not: PostgreSQL, Liquibase and a supervisor."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".local"


class LocalError(RuntimeError):
    """An expected failure, told to the user in one line."""
