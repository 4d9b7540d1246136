"""Measures the rate and the delay of webhook deliveries: the real relay sends to a receiver process."""

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

EVENTS_PER_REQUEST: Final = 100
OPERATIONS_PER_SECOND: Final = 1000
CLIENTS: Final = 20
RELAY_START_SECONDS: Final = 3.0  # the relay needs less to start
DELIVERY_TIMEOUT_SECONDS: Final = 120.0  # for all events
BODY: Final = json.dumps({"operationType": "DEPOSIT", "amount": "1.50"})


@dataclass(frozen=True)
class Received:
    """For each operation: its delay in milliseconds, and the time of its arrival in seconds."""

    delays: list[float]
    times: list[float]


@contextmanager
def receiver() -> Iterator[tuple[str, list[Received]]]:
    """Start a receiver. Yield its URL and a list, which has its measurement after the block."""
    process = subprocess.Popen(  # noqa: S603
        ending_with_parent([sys.executable, "-m", "loadtest.receiver"], "KILL"),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    received: list[Received] = []
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/", received
        output, _ = process.communicate("", timeout=DELIVERY_TIMEOUT_SECONDS)
        received.append(Received(**json.loads(output)))
    finally:
        process.kill()
        process.communicate()


def catch_up(cluster: Cluster, env: dict[str, str], make: Callable[[], object]) -> Result:
    """Measure the rate of deliveries of operations that `make` creates before the relay starts."""
    with receiver() as (url, received), subscribed(cluster, url) as db:
        make()
        with relay(env):
            wait_until_delivered(db)
    times = received[0].times
    return Result(len(times), max(times) - min(times), 0, 0, 0, 0)


def delay(cluster: Cluster, env: dict[str, str], address: Address, wallet: str, seconds: float) -> Result:
    """Measure the delay of deliveries in milliseconds, at OPERATIONS_PER_SECOND."""
    with receiver() as (url, received), subscribed(cluster, url) as db, relay(env):
        time.sleep(RELAY_START_SECONDS)
        deposit_at_a_constant_rate(address, wallet, seconds)
        wait_until_delivered(db)
    delays = sorted(received[0].delays)
    p50, p99 = statistics.median(delays), delays[int(len(delays) * 0.99)]
    return Result(len(delays), seconds, 0, p50, p99, delays[-1])


@contextmanager
def subscribed(cluster: Cluster, url: str) -> Iterator["psycopg.Connection[Any]"]:
    """Create a subscriber to new events. Yield a connection that can read its position."""
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
    process = RelayProcess(env)
    try:
        yield
    finally:
        process.stop()


def wait_until_delivered(db: "psycopg.Connection[Any]") -> None:
    """Wait until the newest operation is delivered. Raises LocalError after DELIVERY_TIMEOUT_SECONDS."""
    newest = "SELECT transaction_id FROM operation ORDER BY transaction_id DESC LIMIT 1"
    row = db.execute(newest).fetchone()
    assert row
    deadline = time.monotonic() + DELIVERY_TIMEOUT_SECONDS
    is_delivered = "SELECT begin_xid > %s::xid8 FROM subscriber WHERE name = 'bench'"
    while db.execute(is_delivered, [str(row[0])]).fetchone() != (True,):
        if time.monotonic() > deadline:
            raise LocalError(f"not all events are delivered after {DELIVERY_TIMEOUT_SECONDS:.0f} s")
        time.sleep(0.02)


def deposit_at_a_constant_rate(address: Address, wallet: str, seconds: float) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda number: deposit_as_client(address, wallet, seconds, number), range(CLIENTS)))


def deposit_as_client(address: Address, wallet: str, seconds: float, number: int) -> None:
    """Send each deposit at its due time, unless the response before it is late."""
    begin = time.monotonic() + number / OPERATIONS_PER_SECOND
    with closing(HTTPConnection(address.host, address.port)) as connection:
        for turn in range(int(seconds * OPERATIONS_PER_SECOND / CLIENTS)):
            time.sleep(max(0.0, begin + turn * CLIENTS / OPERATIONS_PER_SECOND - time.monotonic()))
            connection.request(
                "POST", f"/api/v1/wallets/{wallet}/operation", BODY, {"Content-Type": "application/json"}
            )
            if connection.getresponse().read() and connection.sock is None:
                raise LocalError("the service closed the connection")
