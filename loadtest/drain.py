"""How fast the inbox is drained: by so many processes of `manage.py process_inbox`, once they are at work."""

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

MIN_ENTRIES: Final = 20_000  # at least: what was accepted before is drained as well
DRAIN_TIMEOUT_SECONDS: Final = 120.0  # seconds for all of them
POLL_SECONDS: Final = 0.01  # seconds between two looks at how much is done


def run(cluster: Cluster, env: dict[str, str], wallets: Sequence[str], processes: int) -> Result:
    """Fill the inbox with deposits into these wallets in turn, and drain it; without what starting takes."""
    with psycopg.connect(cluster.url(SUPERUSER), autocommit=True) as db, ExitStack() as stack:
        entries = _fill(db, wallets)
        last = _one(db, "SELECT max(position) FROM inbox")
        inboxes = [InboxProcess(env) for _ in range(processes)]
        for inbox in inboxes:
            stack.callback(inbox.stop)

        def cpu() -> tuple[float, float]:
            assert cluster.process
            ours = sum(machine.cpu_seconds(inbox.process.pid) for inbox in inboxes)
            return ours, machine.cpu_seconds(cluster.process.pid)

        # Work on the first of them shows that all have started, or are about to.
        _wait(lambda: bool(_one(db, "SELECT count(*) < %s FROM inbox", entries)))
        left = _one(db, "SELECT count(*) FROM inbox")
        began, before = time.perf_counter(), cpu()
        _wait(lambda: not _one(db, "SELECT EXISTS (SELECT FROM inbox WHERE position <= %s)", last))
        seconds = time.perf_counter() - began
        service, database = (now - then for now, then in zip(cpu(), before, strict=True))
    return Result(
        requests=left,
        seconds=seconds,
        failures=0,
        p50=0,
        p99=0,
        slowest=0,
        service_cpu=service / left * 1e6,
        database_cpu=database / left * 1e6,
    )


def _fill(db: "psycopg.Connection[Any]", wallets: Sequence[str]) -> int:
    """Up to ENTRIES. Returns how many there are."""
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
