"""Measures how fast processes of `manage.py process_inbox` drain the inbox, without their start."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final

import psycopg

from loadtest import machine
from loadtest.wrk import Result
from local import LocalError
from local.postgres import SUPERUSER, Cluster
from local.service import InboxProcess

MIN_ENTRIES: Final = 20_000  # including the entries of earlier rows
DRAIN_TIMEOUT_SECONDS: Final = 120.0  # for all entries
POLL_SECONDS: Final = 0.01  # between two counts of the entries


def run(cluster: Cluster, env: dict[str, str], wallets: Sequence[str], processes: int) -> Result:
    """Fill the inbox with deposits into the wallets in turn, drain it, and return the rate of draining."""
    with psycopg.connect(cluster.url(SUPERUSER), autocommit=True) as db, ExitStack() as stack:
        entries = _fill(db, wallets)
        last = _one(db, "SELECT max(position) FROM inbox")
        inboxes = [InboxProcess(env) for _ in range(processes)]
        for inbox in inboxes:
            stack.callback(inbox.stop)

        def cpu() -> tuple[float, float]:
            assert cluster.process
            service = sum(machine.cpu_seconds(inbox.process.pid) for inbox in inboxes)
            return service, machine.cpu_seconds(cluster.process.pid)

        # When the first entry is done, all processes have started, or soon will.
        _wait(lambda: bool(_one(db, "SELECT count(*) < %s FROM inbox", entries)))
        remaining = _one(db, "SELECT count(*) FROM inbox")
        began, before = time.perf_counter(), cpu()
        _wait(lambda: not _one(db, "SELECT EXISTS (SELECT FROM inbox WHERE position <= %s)", last))
        seconds = time.perf_counter() - began
        service, database = (now - then for now, then in zip(cpu(), before, strict=True))
    return Result(
        requests=remaining,
        seconds=seconds,
        failures=0,
        p50=0,
        p99=0,
        slowest=0,
        service_cpu=service / remaining * 1e6,
        database_cpu=database / remaining * 1e6,
    )


def _fill(db: "psycopg.Connection[Any]", wallets: Sequence[str]) -> int:
    """Add entries up to MIN_ENTRIES; return the number of all entries."""
    db.execute(
        "INSERT INTO inbox (id, wallet_id, type, amount, created_at)"
        " SELECT uuidv7(), (%s::uuid[])[1 + n %% %s], 'DEPOSIT', 1.5, clock_timestamp()"
        " FROM generate_series((SELECT count(*) FROM inbox) + 1, %s) AS n",
        [list(wallets), len(wallets), MIN_ENTRIES],
    )
    db.execute("ANALYZE inbox")
    return int(_one(db, "SELECT count(*) FROM inbox"))


def _one(db: "psycopg.Connection[Any]", sql: str, *parameters: Any) -> Any:
    row = db.execute(sql.encode(), parameters or None).fetchone()
    assert row
    return row[0]


def _wait(is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DRAIN_TIMEOUT_SECONDS
    while not is_done():
        if time.monotonic() > deadline:
            raise LocalError(f"the inbox is not drained after {DRAIN_TIMEOUT_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)
