"""Fixtures for all tests. Each test makes its own wallets; nothing is rolled back."""

import gc
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import IO, Any
from uuid import UUID

import pytest
from pytest_django import DjangoDbBlocker

from local.postgres import free_port
from tests.support.client import Api, OverHttp

# Marks of whole folders; single tests and modules carry their own. pyproject.toml says what each means.
MARKS = {"browser": pytest.mark.browser, "faults": pytest.mark.faults, "fuzz": pytest.mark.slow}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if mark := MARKS.get(item.path.parent.name):
            item.add_marker(mark)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect thousands of tests without garbage collections, and leave their objects out of later ones."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _database(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Let every test use the session's database without a surrounding transaction, as the service does."""
    from django.core.management import call_command
    from django.db import connections

    with django_db_blocker.unblock():
        call_command("sync_permissions")
        yield
        connections.close_all()
        connections["default"].close_pool()  # type: ignore[attr-defined]


@pytest.fixture
def api() -> Api:
    return Api()


@dataclass(frozen=True)
class Books:
    """The rows of some wallets, read from the database without the API."""

    wallet_ids: tuple[str, ...]

    def snapshot(self) -> tuple[Any, ...]:
        """Return all rows of the wallets and their ledgers. They are equal if nothing has changed."""
        from wallets.models import Hold, InboxEntry, Operation, Wallet, WalletChange

        wallets = Wallet.objects.filter(id__in=self.wallet_ids).order_by("id").values()
        return list(wallets), *(
            list(model._default_manager.filter(wallet_id__in=self.wallet_ids).order_by("id").values())
            for model in (Operation, WalletChange, Hold, InboxEntry)
        )

    def money(self) -> tuple[Any, ...]:
        """Return the amounts and the completed operations. A recorded refusal does not change them."""
        from wallets.models import Hold, Operation, Wallet

        wallets = Wallet.objects.filter(id__in=self.wallet_ids).order_by("id")
        completed = Operation.objects.filter(wallet_id__in=self.wallet_ids, status="COMPLETED")
        holds = Hold.objects.filter(wallet_id__in=self.wallet_ids)
        return (
            list(wallets.values("id", "balance", "held", "sequence", "status")),
            list(completed.order_by("id", "wallet_id").values()),
            list(holds.order_by("id").values()),
        )

    def verify(self) -> None:
        from wallets.ledger.verify import verify

        assert verify([UUID(wallet_id) for wallet_id in self.wallet_ids]) == []


Unchanged = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def unchanged() -> Unchanged:
    """Make a context manager that fails if the wallet, its ledger or its changes differ afterwards."""

    @contextmanager
    def check(*wallet_ids: str) -> Iterator[None]:
        before = Books(wallet_ids).snapshot()
        yield
        assert Books(wallet_ids).snapshot() == before

    return check


@pytest.fixture
def unmoved() -> Unchanged:
    """Make a context manager that fails if money has moved or was held; a refusal may be recorded."""

    @contextmanager
    def check(*wallet_ids: str) -> Iterator[None]:
        before = Books(wallet_ids).money()
        yield
        assert Books(wallet_ids).money() == before
        Books(wallet_ids).verify()

    return check


@pytest.fixture
def no_subscribers() -> Iterator[None]:
    """Delete all subscribers before the test, and those that the test registers after it."""
    from wallets.models import Subscriber

    Subscriber.objects.all().delete()
    yield
    Subscriber.objects.all().delete()


@pytest.fixture
def long_report_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the report finish on a busy machine."""
    monkeypatch.setattr("wallets.report.QUERY_DEADLINE_SECONDS", 60.0)


@pytest.fixture
def with_mail(settings: Any) -> None:
    """Mail can be sent; the tests' backend keeps it in `django.core.mail.outbox`."""
    from tests.support.mail import PUBLIC_URL

    settings.MAIL = {}
    settings.PUBLIC_URL = PUBLIC_URL


@pytest.fixture
def quick_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash passwords with one iteration."""
    from wallets.access.passwords import Hasher

    monkeypatch.setattr(Hasher, "iterations", 1)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of the passwords that the test hashes."""
    from wallets.access.passwords import Hasher

    made: list[str] = []
    encode = Hasher.encode

    def encode_and_record(self: Any, password: str, *args: Any) -> str:
        made.append(password)
        return encode(self, password, *args)

    monkeypatch.setattr(Hasher, "encode", encode_and_record)
    return made


@pytest.fixture(scope="session")
def service() -> Iterator[str]:
    """Return the URL of the service, run by gunicorn with several processes as in production."""
    with running_service() as address:
        yield address


@contextmanager
def running_service(output: IO[bytes] | None = None, /, **environment: str) -> Iterator[str]:
    with running_master(output, **environment) as (address, _):
        yield address


@contextmanager
def running_master(output: IO[bytes] | None = None, /, **environment: str) -> Iterator[tuple[str, int]]:
    """Run the service. Yield its URL and the process id of gunicorn's master, the parent of the workers.

    Its output goes to `output`, or if that is None to the output of the tests.
    """
    bind = environment.setdefault("BIND", f"127.0.0.1:{free_port()}")
    address = f"http://{bind}"
    environment.setdefault("PUBLIC_URL", address)
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "walletsvc/gunicorn.py", "walletsvc.wsgi"],
        # A test's connection may stay idle for minutes while other clients load a busy machine.
        env=os.environ | {"KEEPALIVE": "600"} | environment,
        stdout=output,
        stderr=output,
    )
    try:
        _wait_until_ready(process, address)
        yield address, process.pid
    finally:
        process.terminate()
        assert process.wait(30) == 0


def _wait_until_ready(process: "subprocess.Popen[bytes]", address: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, "the service has ended"
        try:
            with urllib.request.urlopen(f"{address}/livez", timeout=5):  # noqa: S310
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the service did not start")


@pytest.fixture
def live_api(service: str) -> Iterator[Api]:
    sender = OverHttp(service)
    yield Api(sender)
    sender.connection.close()


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a running tests.support.rabbitmq.Server."""
    from tests.support.rabbitmq import Server

    with Server(tmp_path_factory.mktemp("rabbitmq")).running() as server:
        yield server
