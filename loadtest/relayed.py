"""How fast and how soon others are told: by the real relay, over HTTP, to a receiver in its own process."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any, Final

import psycopg

from loadtest.wrk import Result
from local import ROOT, LocalError
from local.postgres import SUPERUSER, Cluster
from local.processes import ending_with_parent
from local.service import Address, RelayProcess

EVENTS_PER_REQUEST: Final = 100  # events in one request
OPERATIONS_PER_SECOND: Final = 1000
CLIENTS: Final = 20
RELAY_START_SECONDS: Final = 3.0  # seconds that the relay takes to start
DELIVERY_TIMEOUT_SECONDS: Final = 120.0  # seconds until all is told
BODY: Final = json.dumps({"operationType": "DEPOSIT", "amount": "1.50"})


@dataclass(frozen=True)
class Told:
    delays: list[float]
    times: list[float]


@contextmanager
def receiver() -> Iterator[tuple[str, list[Told]]]:
    """Its address; what it was told is in the list afterwards."""
    process = subprocess.Popen(  # noqa: S603
        ending_with_parent([sys.executable, "-m", "loadtest.receiver"], "KILL"),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    told: list[Told] = []
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/", told
        output, _ = process.communicate("", timeout=DELIVERY_TIMEOUT_SECONDS)
        told.append(Told(**json.loads(output)))
    finally:
        process.kill()
        process.communicate()


def catch_up(cluster: Cluster, env: dict[str, str], make: Callable[[], object]) -> Result:
    """Operations told in a second, where all of them were made before the relay begins."""
    with receiver() as (url, told), subscribed(cluster, url) as db:
        make()
        with relay(env):
            wait_until_all_is_told(db)
    times = told[0].times
    return Result(len(times), max(times) - min(times), 0, 0, 0, 0)


def delay(cluster: Cluster, env: dict[str, str], address: Address, wallet: str, seconds: float) -> Result:
    """How late they are told while 1,000 a second are made, in milliseconds."""
    with receiver() as (url, told), subscribed(cluster, url) as db, relay(env):
        time.sleep(RELAY_START_SECONDS)
        make_steadily(address, wallet, seconds)
        wait_until_all_is_told(db)
    delays = sorted(told[0].delays)
    p50, p99 = statistics.median(delays), delays[int(len(delays) * 0.99)]
    return Result(len(delays), seconds, 0, p50, p99, delays[-1])


@contextmanager
def subscribed(cluster: Cluster, url: str) -> Iterator["psycopg.Connection[Any]"]:
    """Create a subscriber to new events, and a connection that reads its position."""
    with psycopg.connect(cluster.url(SUPERUSER), autocommit=True) as db:
        db.execute(
            "INSERT INTO subscriber (id, kind, name, url, secret, batch, begin_xid) VALUES"
            " (uuidv7(), 'WEBHOOK', 'bench', %s, 'whsec_YmVuY2g=', %s,"
            " pg_snapshot_xmin(pg_current_snapshot()))",
            [url, EVENTS_PER_REQUEST],
        )
        try:
            yield db
        finally:
            db.execute("DELETE FROM subscriber WHERE name = 'bench'")


@contextmanager
def relay(env: dict[str, str]) -> Iterator[None]:
    at_work = RelayProcess(env)
    try:
        yield
    finally:
        at_work.stop()


def wait_until_all_is_told(db: "psycopg.Connection[Any]") -> None:
    """Up to the newest operation that there is now."""
    newest = "SELECT transaction_id FROM operation ORDER BY transaction_id DESC LIMIT 1"
    row = db.execute(newest).fetchone()
    assert row
    deadline = time.monotonic() + DELIVERY_TIMEOUT_SECONDS
    is_told = "SELECT begin_xid > %s::xid8 FROM subscriber WHERE name = 'bench'"
    while db.execute(is_told, [str(row[0])]).fetchone() != (True,):
        if time.monotonic() > deadline:
            raise LocalError(f"not all is told after {DELIVERY_TIMEOUT_SECONDS:.0f} s")
        time.sleep(0.02)


def make_steadily(address: Address, wallet: str, seconds: float) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda number: deposit_steadily(address, wallet, seconds, number), range(CLIENTS)))


def deposit_steadily(address: Address, wallet: str, seconds: float, number: int) -> None:
    """At its own moments, whatever the answers take."""
    begin = time.monotonic() + number / OPERATIONS_PER_SECOND
    with closing(HTTPConnection(address.host, address.port)) as connection:
        for turn in range(int(seconds * OPERATIONS_PER_SECOND / CLIENTS)):
            time.sleep(max(0.0, begin + turn * CLIENTS / OPERATIONS_PER_SECOND - time.monotonic()))
            connection.request(
                "POST", f"/api/v1/wallets/{wallet}/operation", BODY, {"Content-Type": "application/json"}
            )
            if connection.getresponse().read() and connection.sock is None:
                raise LocalError("the service hangs up")
