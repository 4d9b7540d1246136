"""PostgreSQL goes and comes back: clients see latency, no errors, and everything is there once."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.faults.conftest import IS_LONG, TIMES, House, running
from tests.support.faults.database import Database


def restart(database: Database, number: signal.Signals) -> None:
    database.end(number)
    database.start()


def fast(database: Database) -> None:
    restart(database, signal.SIGINT)


def immediate(database: Database) -> None:
    restart(database, signal.SIGQUIT)


def crash(database: Database) -> None:
    restart(database, signal.SIGKILL)


def slow(database: Database) -> None:
    """Still within the deadline of 10 seconds."""
    database.end(signal.SIGINT)
    time.sleep(7 if IS_LONG else 1)
    database.start()


def kill_one_backend(database: Database) -> None:
    os.kill(database.backends()[0], signal.SIGKILL)


def kill_all_backends(database: Database) -> None:
    for backend in database.backends():
        with suppress(ProcessLookupError):  # they all end when one of them is killed
            os.kill(backend, signal.SIGKILL)


Fault = Callable[[Database], None]
FAULTS = [fast, slow, immediate, crash, kill_one_backend, kill_all_backends]


@pytest.mark.parametrize(
    "fault", [fault if fault is crash else pytest.param(fault, marks=pytest.mark.slow) for fault in FAULTS]
)
def test_a_fault_costs_latency_and_no_errors(house: House, fault: Fault) -> None:
    with house.under_load() as load:
        for _ in range(TIMES):
            fault(house.database)
            load.wait_for()
    load.expect_only()


@pytest.fixture(scope="module")
def house_without_groups(database: Database) -> Iterator[House]:
    with running(House(database, GROUP_COMMIT="off")) as house:
        yield house


@pytest.mark.parametrize("fault", FAULTS if IS_LONG else [slow])
@pytest.mark.slow
def test_the_same_without_group_commit(house_without_groups: House, fault: Fault) -> None:
    with house_without_groups.under_load() as load:
        for _ in range(TIMES):
            fault(house_without_groups.database)
            load.wait_for()
    load.expect_only()
