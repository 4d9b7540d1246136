"""More than can be done, and a database that is gone for longer than anybody waits."""

import math
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.faults.conftest import IS_LONG, TIMES, House, running
from tests.support.faults.clients import CARRIED_OUT, Asked
from tests.support.faults.database import Database

DEADLINE = 10 if IS_LONG else 2
GRACE = 1  # seconds past the deadline for what has begun
NOISE = 1.5  # seconds that anything may take on a machine with other work
AT_ONCE = 0.5  # seconds that most answers take at most, even there


def test_a_full_queue_refuses_at_once_and_applies_nothing(database: Database) -> None:
    with running(House(database, GROUP_COMMIT_QUEUE="5")) as house, house.under_load(others=0) as load:
        for _ in range(TIMES):
            with database.frozen():
                time.sleep(1)
            load.wait_for()
    load.expect_only(*CARRIED_OUT, 429)
    refused = [asked for asked in load.journal if asked.outcome == 429]
    assert statistics.median(asked.seconds for asked in refused) < AT_ONCE
    for asked in refused:
        expect_refusal(asked, "too_many_requests", max_seconds=NOISE)


@contextmanager
def stopped(database: Database) -> Iterator[None]:
    database.end(signal.SIGINT)
    try:
        yield
    finally:
        database.start()


@pytest.fixture(scope="module", params=["on", "off"] if IS_LONG else ["on"])
def house(request: pytest.FixtureRequest, database: Database) -> Iterator[House]:
    settings = {"OPERATION_DEADLINE": str(DEADLINE), "GROUP_COMMIT": request.param}
    with running(House(database, **settings)) as house:
        yield house


@pytest.mark.parametrize("absence", [stopped, Database.frozen])
@pytest.mark.slow
def test_a_long_absence_is_a_503_and_ends_by_itself(
    house: House, absence: Callable[[Database], AbstractContextManager[None]]
) -> None:
    with house.under_load() as load:
        with absence(house.database):
            time.sleep(DEADLINE + GRACE + NOISE)
        load.wait_for()
    load.expect_only(*CARRIED_OUT, 503)
    refused = [asked for asked in load.journal if asked.outcome == 503]
    assert refused
    for asked in refused:
        # What a frozen connection of the pool was given to may wait for the thaw.
        limit = 1.25 * DEADLINE + GRACE + NOISE if asked.request.wallet_id else math.inf
        expect_refusal(asked, "unavailable", max_seconds=limit)


def expect_refusal(asked: Asked, code: str, max_seconds: float) -> None:
    assert asked.answer
    assert asked.answer.code == code
    assert asked.answer.headers["retry-after"] == "1"
    assert asked.seconds < max_seconds
