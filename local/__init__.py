"""The local environment of `make run` and `make test`: PostgreSQL, Liquibase and a supervisor."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".local"


class LocalError(RuntimeError):
    """An error that the user can solve, shown in one line."""
