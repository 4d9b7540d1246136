"""A service and a PostgreSQL server for the fault tests, which break them under load.

Each fault happens once, or with FAULTS=long ten times and for longer.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from local.postgres import DATABASE
from local.service import Address, Service
from tests.support.client import Api, OverHttp
from tests.support.faults.clients import Choose, Mix, RequestLoad
from tests.support.faults.database import Database, children, quiet_port
from tests.support.faults.reconcile import reconcile

IS_LONG = os.environ.get("FAULTS") == "long"
TIMES = 10 if IS_LONG else 1
WORKERS = 2
CONNECTIONS = WORKERS * (2 + 4)  # committer, reader and the full pool


@pytest.fixture(scope="package")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(tmp_path_factory.mktemp("faults") / "postgres")
    database.start()
    yield database
    database.stop()


@pytest.fixture(scope="package")
def target(database: Database) -> Iterator["FaultTarget"]:
    """Run the service with its default settings."""
    with running(FaultTarget(database)) as target:
        yield target


class FaultTarget:
    """The service, connected to the database directly or through a proxy at `port`."""

    def __init__(self, database: Database, port: int = 0, **environment: str) -> None:
        self.database = database
        url = database.cluster.url()
        if port:
            plain = f":{port}/{DATABASE}?sslmode=disable&gssencmode=disable"
            url = url.replace(f":{database.cluster.port}/{DATABASE}", plain)
        self._address = Address("127.0.0.1", quiet_port())
        given = {"DATABASE_URL": url, "BIND": self._address.bind, "WORKERS": str(WORKERS)}
        self._environment = os.environ | given | environment

    def start(self) -> None:
        self.service = Service(self._address, self._environment)
        deadline = time.monotonic() + 30
        while not self.service.is_ready():
            assert time.monotonic() < deadline, "the service does not start"
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop at once, without a graceful shutdown."""
        self.service.process.send_signal(signal.SIGQUIT)
        self.service.process.wait(30)

    def end(self) -> None:
        """Shut down gracefully: requests in flight are answered."""
        self.service.process.terminate()
        assert self.service.process.wait(60) == 0

    @property
    def address(self) -> tuple[str, int]:
        return self._address.host, self._address.port

    def workers(self) -> list[int]:
        return children(self.service.process.pid)

    def open(self, wallets: int) -> list[str]:
        sender = OverHttp(f"http://{self._address.reachable}")
        with closing(sender.connection):
            return [Api(sender).open() for _ in range(wallets)]

    @contextmanager
    def under_load(self, cold: int = 20, others: int = 6) -> Iterator[RequestLoad]:
        """Send 500 mixed requests a second during the block, then reconcile the ledger."""
        hot, *rest = self.open(1 + cold)
        with self.serving(Mix(hot, rest, others), [hot, *rest]) as load:
            yield load

    @contextmanager
    def serving(
        self,
        choose: Choose,
        wallet_ids: list[str],
        rate: float = 500,
        clients: int = 40,
        at: tuple[str, int] | None = None,
    ) -> Iterator[RequestLoad]:
        """Send requests during the block, then reconcile. `at` is the address of a proxy or balancer."""
        with RequestLoad(at or self.address, choose, rate, clients) as load:
            load.wait_for()
            yield load
        reconcile(load.journal, self.database, load.address, wallet_ids)
        self.database.expect_at_most(CONNECTIONS * self.database.services)


@contextmanager
def running(target: FaultTarget) -> Iterator[FaultTarget]:
    target.database.services += 1
    try:
        target.start()
        yield target
    finally:
        target.stop()
        target.database.services -= 1
