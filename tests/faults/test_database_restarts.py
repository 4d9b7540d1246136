"""PostgreSQL restarts or loses backends: clients see latency but no errors, and operations count once."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.faults.conftest import IS_LONG, TIMES, FaultTarget, running
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
    """Restart slowly, but within the deadline of 10 seconds."""
    database.end(signal.SIGINT)
    time.sleep(7 if IS_LONG else 1)
    database.start()


def kill_one_backend(database: Database) -> None:
    os.kill(database.backends()[0], signal.SIGKILL)


def kill_all_backends(database: Database) -> None:
    for backend in database.backends():
        with suppress(ProcessLookupError):  # one killed backend ends all of them
            os.kill(backend, signal.SIGKILL)


Fault = Callable[[Database], None]
FAULTS = [fast, slow, immediate, crash, kill_one_backend, kill_all_backends]


@pytest.mark.parametrize(
    "fault", [fault if fault is crash else pytest.param(fault, marks=pytest.mark.slow) for fault in FAULTS]
)
def test_database_fault_causes_no_errors(target: FaultTarget, fault: Fault) -> None:
    with target.under_load() as load:
        for _ in range(TIMES):
            fault(target.database)
            load.wait_for()
    load.expect_only()


@pytest.fixture(scope="module")
def target_without_groups(database: Database) -> Iterator[FaultTarget]:
    with running(FaultTarget(database, GROUP_COMMIT="off")) as target:
        yield target


@pytest.mark.parametrize("fault", FAULTS if IS_LONG else [slow])
@pytest.mark.slow
def test_database_fault_without_group_commit_causes_no_errors(
    target_without_groups: FaultTarget, fault: Fault
) -> None:
    with target_without_groups.under_load() as load:
        for _ in range(TIMES):
            fault(target_without_groups.database)
            load.wait_for()
    load.expect_only()
