"""Work is retried while the database is unavailable, until a deadline; then the worst error is raised."""

import os
import socket
import time
from collections.abc import Callable

import psycopg
import pytest
from django import db
from psycopg import errors as postgres
from psycopg_pool import PoolTimeout
from pytest_django import Settings

from wallets import database_retry
from wallets.ledger import wallet_changes
from wallets.ledger.reader import READER
from wallets.ledger.wallet_changes import WalletUpdate, change_wallet
from wallets.ledger.wallets import Opening, open_wallet
from wallets.models import Wallet, WalletChange
from wallets.problems import PreconditionFailed


def django_error(cause: psycopg.Error) -> db.Error:
    """Return the Django error that wraps this psycopg error."""
    error = db.OperationalError(str(cause))
    error.__cause__ = cause
    return error


CONNECTION_LOST = django_error(psycopg.OperationalError("the connection is lost"))
LOCK_TIMEOUT = django_error(postgres.LockNotAvailable("lock timeout"))
NO_CONNECTION = django_error(PoolTimeout("no connection in time"))


class FailingWork:
    """Work that raises the failures in turn. It then returns `then`, or repeats the last failure."""

    def __init__(self, *failures: db.Error, then: str | None = None) -> None:
        self.failures = list(failures)
        self.then = then

    def __call__(self) -> str:
        if len(self.failures) > 1 or (self.failures and self.then):
            raise self.failures.pop(0)
        if self.failures:
            raise self.failures[0]
        assert self.then
        return self.then


@pytest.fixture(autouse=True)
def _short_deadlines(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.OPERATION_DEADLINE = settings.LOCK_PATIENCE = 0.3
    monkeypatch.setattr(database_retry, "RECONNECT_PAUSE_SECONDS", 0.01)


@pytest.mark.parametrize("error", [CONNECTION_LOST, LOCK_TIMEOUT, NO_CONNECTION])
def test_work_is_retried_until_it_succeeds(error: db.Error) -> None:
    assert database_retry.retry_until_deadline(FailingWork(error, error, then="done")) == "done"


def test_other_errors_are_raised_at_once() -> None:
    with pytest.raises(db.IntegrityError):
        database_retry.retry_until_deadline(FailingWork(db.IntegrityError("a check"), then="never"))


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([CONNECTION_LOST], CONNECTION_LOST),
        ([LOCK_TIMEOUT], LOCK_TIMEOUT),
        ([NO_CONNECTION], NO_CONNECTION),
        ([CONNECTION_LOST, LOCK_TIMEOUT], CONNECTION_LOST),  # the outcome is unknown
        ([LOCK_TIMEOUT, NO_CONNECTION], LOCK_TIMEOUT),
        ([NO_CONNECTION, LOCK_TIMEOUT], LOCK_TIMEOUT),
    ],
)
def test_worst_error_is_raised_after_the_deadline(errors: list[db.Error], expected: db.Error) -> None:
    with pytest.raises(db.OperationalError) as raised:
        database_retry.retry_until_deadline(FailingWork(*errors))
    assert raised.value is expected


@pytest.mark.parametrize("alias", [READER, db.DEFAULT_DB_ALIAS])
def test_unresponsive_database_is_disconnected(alias: str) -> None:
    begin = time.monotonic()
    with pytest.raises(db.OperationalError) as raised, database_retry.disconnected_when_slow(alias):
        run(alias, "SELECT pg_sleep(60)")
    assert time.monotonic() - begin < 10
    assert database_retry.is_connection_lost(raised.value)
    database_retry.reconnect(alias)
    run(alias, "SELECT 1")


@pytest.mark.parametrize("alias", list(db.connections))
def test_kernel_ends_connections_to_a_vanished_host(alias: str) -> None:
    """Check the socket options: the timeout of unacknowledged data, and the probes of an idle connection."""
    db.connections[alias].ensure_connection()
    with socket.socket(fileno=os.dup(db.connections[alias].connection.fileno())) as probe:
        assert probe.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000  # milliseconds
        assert probe.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        assert [probe.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [10, 5, 3]


def test_change_in_doubt_is_found_after_another_change(monkeypatch: pytest.MonkeyPatch) -> None:
    wallet = open_wallet(Opening(currency="RUB")).wallet

    def as_opened(now: Wallet) -> None:
        if now.label:
            raise PreconditionFailed

    def answer_lost(work: Callable[[], Wallet]) -> Wallet:
        work()
        Wallet.objects.filter(id=wallet.id).update(label="of another client")
        return work()

    monkeypatch.setattr(wallet_changes, "retry_until_deadline", answer_lost)
    assert change_wallet(wallet.id, WalletUpdate(label="mine"), as_opened).label == "of another client"
    assert WalletChange.objects.filter(wallet=wallet, type="CHANGED").count() == 1


def run(alias: str, statement: str) -> None:
    with db.connections[alias].cursor() as cursor:
        cursor.execute(statement)
