"""A wallet's row is locked: its requests wait and are then refused; other wallets are served."""

import random
import time
from collections.abc import Iterator

import pytest

from tests.faults.conftest import IS_LONG, WORKERS, FaultTarget, running
from tests.support.faults.clients import CARRIED_OUT, Mix, SentRequest, deposit, reading
from tests.support.faults.database import Database
from tests.support.histories.journal import ApiRequest

DEADLINE_SECONDS = 10 if IS_LONG else 2
LOCKED_SECONDS = 30 if IS_LONG else 5
LOCK_TIMEOUT_SECONDS = 0.5


@pytest.fixture
def target(database: Database) -> Iterator[FaultTarget]:
    target = FaultTarget(
        database, OPERATION_DEADLINE=str(DEADLINE_SECONDS), LOCK_PATIENCE=str(LOCK_TIMEOUT_SECONDS)
    )
    with running(target):
        yield target


def test_locked_wallet_is_refused_and_delays_other_wallets_once(target: FaultTarget) -> None:
    held, *others = target.open(21)

    def of_held(dice: random.Random) -> ApiRequest:
        if (number := dice.randrange(20)) == 0:
            return ApiRequest("PATCH", f"/wallets/{held}", {"label": str(dice.random())})
        return deposit(held, "1") if number < 12 else reading(held)

    with (
        target.serving(Mix(others[0], others[1:]), others, rate=400, clients=30) as on_others,
        target.serving(of_held, [held], rate=100, clients=20) as on_held,
    ):
        with target.database.locked(held):
            begin = time.monotonic()
            time.sleep(LOCKED_SECONDS)
        end = time.monotonic()
        on_held.wait_for()

    on_others.expect_only()
    operations = [sent for sent in on_others.journal if sent.is_operation]
    # Reads wait for no lock, so the slowest read shows the delay that the machine itself causes.
    noise = 2 * max(sent.seconds for sent in on_others.journal if sent.is_read)
    # Each worker waits for the lock once, and requests behind it wait too.
    assert max(sent.seconds for sent in operations) < WORKERS * LOCK_TIMEOUT_SECONDS + noise
    delayed = [sent for sent in operations if sent.seconds > max(0.8 * LOCK_TIMEOUT_SECONDS, noise)]
    assert all(
        begin - noise < sent.sent_at < begin + WORKERS * LOCK_TIMEOUT_SECONDS + noise for sent in delayed
    )

    on_held.expect_only(*CARRIED_OUT, 429)
    during = [sent for sent in on_held.journal if begin < sent.sent_at and sent.ended_at < end]
    for sent in during:
        expect_refusal_or_read(sent, noise)
    assert {sent.request.method for sent in during} == {"GET", "PATCH", "POST"}


def expect_refusal_or_read(sent: SentRequest, noise: float) -> None:
    """Assert that a read of the locked wallet succeeds at once and a change is refused at the deadline."""
    assert sent.answer
    if sent.is_read:
        assert sent.answer.status == 200
        assert sent.seconds < LOCK_TIMEOUT_SECONDS + noise
    else:
        assert sent.answer.code == "too_many_requests"
        assert sent.answer.headers["retry-after"] == "1"
        assert (
            DEADLINE_SECONDS - LOCK_TIMEOUT_SECONDS
            < sent.seconds
            < 1.25 * DEADLINE_SECONDS + LOCK_TIMEOUT_SECONDS + noise
        )
