"""Worker processes are killed while the Python client moves money: each payment is counted once."""

import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.faults.conftest import TIMES, FaultTarget, running
from tests.faults.test_workers import wait_for_other_workers
from tests.support.events import wait_until
from tests.support.faults.database import Database
from walletsvc_client import Client

THREADS = 8


@pytest.fixture
def target(database: Database) -> Iterator[FaultTarget]:
    with running(FaultTarget(database, API_ACCESS="open")) as target:
        yield target


def test_payments_count_once_although_workers_are_killed(target: FaultTarget) -> None:
    keys: list[str] = []
    http = httpx.Client(event_hooks={"request": [lambda sent: keys.append(sent.headers["idempotency-key"])]})
    host, port = target.address
    is_over = False
    with Client(f"http://{host}:{port}", http=http) as client, ThreadPoolExecutor(THREADS) as threads:
        wallet = client.create_wallet()

        def pay() -> int:
            payments = 0
            while not is_over:
                client.deposit(wallet.id, "1")
                payments += 1
            return payments

        paying = [threads.submit(pay) for _ in range(THREADS)]
        for _ in range(TIMES):
            kill_workers(target)
        is_over = True
        payments = sum(each.result() for each in paying)
        http.event_hooks = {"request": [], "response": []}
        assert payments > 0
        assert client.get_balance(wallet.id).balance == payments
    assert len(set(keys)) == payments + 1  # and the wallet's
    assert len(keys) > len(set(keys)), "no request was repeated"


def kill_workers(target: FaultTarget) -> None:
    """Stop all workers, so that the requests of all threads wait for them, then kill the workers."""
    before = target.workers()
    time.sleep(0.5)
    for end in (signal.SIGSTOP, signal.SIGKILL):
        for worker in before:
            os.kill(worker, end)
        time.sleep(0.5)
    wait_for_other_workers(target, before)
    wait_until(lambda: all(map(handles_signals, target.workers())), "the new workers do not start")


def handles_signals(worker: int) -> bool:
    """Whether the worker has its own signal handlers. Before that it would miss the signal to stop.

    The handlers that it inherits from the master include one for SIGHUP; its own do not.
    """
    caught = re.search(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{worker}/status").read_text(), re.MULTILINE)
    assert caught
    return not int(caught[1], 16) & (1 << (signal.SIGHUP - 1))
