"""Overload, and a database that is unavailable for longer than the operation deadline."""

import math
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.faults.conftest import IS_LONG, TIMES, FaultTarget, running
from tests.support.faults.clients import CARRIED_OUT, SentRequest
from tests.support.faults.database import Database

DEADLINE_SECONDS = 10 if IS_LONG else 2
GRACE_SECONDS = 1  # past the deadline, for commands that have begun
NOISE_SECONDS = 1.5  # added by other work on the machine
MAX_MEDIAN_SECONDS = 0.5  # of a refusal, even on a busy machine


def test_full_queue_refuses_at_once(database: Database) -> None:
    with (
        running(FaultTarget(database, GROUP_COMMIT_QUEUE="5")) as target,
        target.under_load(others=0) as load,
    ):
        for _ in range(TIMES):
            with database.frozen():
                time.sleep(1)
            load.wait_for()
    load.expect_only(*CARRIED_OUT, 429)
    refused = [sent for sent in load.journal if sent.outcome == 429]
    assert statistics.median(sent.seconds for sent in refused) < MAX_MEDIAN_SECONDS
    for sent in refused:
        expect_refusal(sent, "too_many_requests", max_seconds=NOISE_SECONDS)


@contextmanager
def stopped(database: Database) -> Iterator[None]:
    database.end(signal.SIGINT)
    try:
        yield
    finally:
        database.start()


@pytest.fixture(scope="module", params=["on", "off"] if IS_LONG else ["on"])
def target(request: pytest.FixtureRequest, database: Database) -> Iterator[FaultTarget]:
    settings = {"OPERATION_DEADLINE": str(DEADLINE_SECONDS), "GROUP_COMMIT": request.param}
    with running(FaultTarget(database, **settings)) as target:
        yield target


@pytest.mark.parametrize("absence", [stopped, Database.frozen])
@pytest.mark.slow
def test_unavailable_database_gives_503_until_it_returns(
    target: FaultTarget, absence: Callable[[Database], AbstractContextManager[None]]
) -> None:
    with target.under_load() as load:
        with absence(target.database):
            time.sleep(DEADLINE_SECONDS + GRACE_SECONDS + NOISE_SECONDS)
        load.wait_for()
    load.expect_only(*CARRIED_OUT, 503)
    refused = [sent for sent in load.journal if sent.outcome == 503]
    assert refused
    for sent in refused:
        # A request on a frozen connection of the pool may wait until the database continues.
        limit = (
            1.25 * DEADLINE_SECONDS + GRACE_SECONDS + NOISE_SECONDS if sent.request.wallet_id else math.inf
        )
        expect_refusal(sent, "unavailable", max_seconds=limit)


def expect_refusal(sent: SentRequest, code: str, max_seconds: float) -> None:
    assert sent.answer
    assert sent.answer.code == code
    assert sent.answer.headers["retry-after"] == "1"
    assert sent.seconds < max_seconds
