"""Worker processes end: by force, for a reload, for good."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.faults.conftest import TIMES, WORKERS, House, running
from tests.support.faults.clients import CARRIED_OUT
from tests.support.faults.database import Database


@pytest.fixture
def house(database: Database) -> Iterator[House]:
    with running(House(database)) as house:
        yield house


def test_a_killed_worker_is_replaced_and_retries_find_what_became_of_its_requests(house: House) -> None:
    with house.under_load() as load:
        for _ in range(TIMES):
            before = house.workers()
            os.kill(before[0], signal.SIGKILL)
            load.wait_for()
            wait_for_other_workers(house, before[:1])
            assert before[1] in house.workers()
    load.expect_only(*CARRIED_OUT, "NoAnswer")
    assert load.outcomes()["NoAnswer"] <= TIMES * load.clients


@pytest.mark.slow
def test_a_reload_fails_no_request(house: House) -> None:
    with house.under_load() as load:
        for _ in range(TIMES):
            before = house.workers()
            house.service.process.send_signal(signal.SIGHUP)
            wait_for_other_workers(house, before)
            load.wait_for()
    load.expect_only()


@pytest.mark.slow
def test_a_stop_fails_no_request(house: House) -> None:
    with house.under_load() as load:
        for _ in range(TIMES):
            house.end()
            house.start()
            load.wait_for()
    load.expect_only(*CARRIED_OUT, "NotReached")


def wait_for_other_workers(house: House, before: list[int]) -> None:
    deadline = time.monotonic() + 30
    while len(house.workers()) != WORKERS or set(house.workers()) & set(before):
        assert time.monotonic() < deadline, "the workers are not replaced"
        time.sleep(0.05)
