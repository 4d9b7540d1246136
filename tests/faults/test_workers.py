"""Worker processes are killed, reloaded and stopped."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.faults.conftest import TIMES, WORKERS, FaultTarget, running
from tests.support.faults.clients import CARRIED_OUT
from tests.support.faults.database import Database


@pytest.fixture
def target(database: Database) -> Iterator[FaultTarget]:
    with running(FaultTarget(database)) as target:
        yield target


def test_retries_find_the_requests_of_a_killed_worker(target: FaultTarget) -> None:
    with target.under_load() as load:
        for _ in range(TIMES):
            before = target.workers()
            os.kill(before[0], signal.SIGKILL)
            load.wait_for()
            wait_for_other_workers(target, before[:1])
            assert before[1] in target.workers()
    load.expect_only(*CARRIED_OUT, "NoAnswer")
    assert load.outcomes()["NoAnswer"] <= TIMES * load.clients


@pytest.mark.slow
def test_reload_fails_no_request(target: FaultTarget) -> None:
    with target.under_load() as load:
        for _ in range(TIMES):
            before = target.workers()
            target.service.process.send_signal(signal.SIGHUP)
            wait_for_other_workers(target, before)
            load.wait_for()
    load.expect_only()


@pytest.mark.slow
def test_graceful_shutdown_fails_no_request(target: FaultTarget) -> None:
    with target.under_load() as load:
        for _ in range(TIMES):
            target.end()
            target.start()
            load.wait_for()
    load.expect_only(*CARRIED_OUT, "NotReached")


def wait_for_other_workers(target: FaultTarget, before: list[int]) -> None:
    deadline = time.monotonic() + 30
    while len(target.workers()) != WORKERS or set(target.workers()) & set(before):
        assert time.monotonic() < deadline, "the workers are not replaced"
        time.sleep(0.05)
