"""A service and a PostgreSQL of their own, to be broken under load.

Each thing is broken once; with FAULTS=long for longer and ten times.
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
from tests.support.faults.clients import Choose, Load, Mix
from tests.support.faults.database import Database, children, quiet_port
from tests.support.faults.reconcile import reconcile

IS_LONG = os.environ.get("FAULTS") == "long"
TIMES = 10 if IS_LONG else 1
WORKERS = 2
CONNECTIONS = WORKERS * (2 + 4)  # committer, reader, and the pool at its largest


@pytest.fixture(scope="package")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(tmp_path_factory.mktemp("faults") / "postgres")
    database.start()
    yield database
    database.stop()


@pytest.fixture(scope="package")
def house(database: Database) -> Iterator["House"]:
    """The service with the settings that it has anywhere."""
    with running(House(database)) as house:
        yield house


class House:
    """The service, with this database or what stands in front of it at `port`."""

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
        """At once: tests/faults/test_workers.py is about the gentle way."""
        self.service.process.send_signal(signal.SIGQUIT)
        self.service.process.wait(30)

    def end(self) -> None:
        """Gently: what is in flight is answered."""
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
    def under_load(self, cold: int = 20, others: int = 6) -> Iterator[Load]:
        """500 mixed requests a second; when the block has ended, the books are compared."""
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
    ) -> Iterator[Load]:
        """`at` is the address of what stands in front of it."""
        with Load(at or self.address, choose, rate, clients) as load:
            load.wait_for()
            yield load
        reconcile(load.journal, self.database, load.address, wallet_ids)
        self.database.expect_at_most(CONNECTIONS * self.database.services)


@contextmanager
def running(house: House) -> Iterator[House]:
    house.database.services += 1
    try:
        house.start()
        yield house
    finally:
        house.stop()
        house.database.services -= 1
