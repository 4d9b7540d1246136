"""A pytest plugin: a PostgreSQL server for the session, with its schema built by Liquibase.

The option `-p` loads it before Django reads its settings, which need the database's address. The service
runs in the tests as it does in production: as the application's role, with real commits and no rollback.
Every test makes its own wallets and checks only these.
"""

import os
import tempfile
from pathlib import Path

import pytest

from local import template

_folder = tempfile.TemporaryDirectory(prefix="walletsvc-tests-", ignore_cleanup_errors=True)
cluster = template.copy(Path(_folder.name) / "postgres")
cluster.start()
os.environ.update(
    DATABASE_URL=cluster.url(),
    SECRET_KEY="tests-" * 10,
    ALLOWED_HOSTS="testserver,127.0.0.1,localhost",
    API_ACCESS="open",
    HTTPS="off",
    RATE_LIMIT_LOGIN="off",  # all tests share one IP address
    RATE_LIMIT_SIGNUP="off",
)


def pytest_unconfigure(config: pytest.Config) -> None:
    cluster.stop()
    _folder.cleanup()
