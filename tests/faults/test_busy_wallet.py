"""Another session holds a wallet's row: its requests wait and are refused, the other wallets go on."""

import random
import time
from collections.abc import Iterator

import pytest

from tests.faults.conftest import IS_LONG, WORKERS, House, running
from tests.support.faults.clients import CARRIED_OUT, Asked, Mix, deposit, reading
from tests.support.faults.database import Database
from tests.support.histories.journal import Request

DEADLINE = 10 if IS_LONG else 2
HELD = 30 if IS_LONG else 5
LOCK_PATIENCE = 0.5


@pytest.fixture
def house(database: Database) -> Iterator[House]:
    house = House(database, OPERATION_DEADLINE=str(DEADLINE), LOCK_PATIENCE=str(LOCK_PATIENCE))
    with running(house):
        yield house


def test_a_held_wallet_is_refused_in_the_end_and_delays_the_others_only_once(house: House) -> None:
    held, *others = house.open(21)

    def of_held(dice: random.Random) -> Request:
        if (number := dice.randrange(20)) == 0:
            return Request("PATCH", f"/wallets/{held}", {"label": str(dice.random())})
        return deposit(held, "1") if number < 12 else reading(held)

    with (
        house.serving(Mix(others[0], others[1:]), others, rate=400, clients=30) as on_others,
        house.serving(of_held, [held], rate=100, clients=20) as on_held,
    ):
        with house.database.locked(held):
            begin = time.monotonic()
            time.sleep(HELD)
        end = time.monotonic()
        on_held.wait_for()

    on_others.expect_only()
    operations = [asked for asked in on_others.journal if asked.is_operation]
    # No lock makes a read wait: what the machine does to anybody, it does to the slowest of them too.
    noise = 2 * max(asked.seconds for asked in on_others.journal if asked.is_read)
    # Each process waits for the lock once, and may wait for one that does.
    assert max(asked.seconds for asked in operations) < WORKERS * LOCK_PATIENCE + noise
    delayed = [asked for asked in operations if asked.seconds > max(0.8 * LOCK_PATIENCE, noise)]
    assert all(begin - noise < asked.sent_at < begin + WORKERS * LOCK_PATIENCE + noise for asked in delayed)

    on_held.expect_only(*CARRIED_OUT, 429)
    during = [asked for asked in on_held.journal if begin < asked.sent_at and asked.ended_at < end]
    for asked in during:
        expect_right_end(asked, noise)
    assert {asked.request.method for asked in during} == {"GET", "PATCH", "POST"}


def expect_right_end(asked: Asked, noise: float) -> None:
    """Of a request to the held wallet."""
    assert asked.answer
    if asked.is_read:
        assert asked.answer.status == 200
        assert asked.seconds < LOCK_PATIENCE + noise
    else:
        assert asked.answer.code == "too_many_requests"
        assert asked.answer.headers["retry-after"] == "1"
        assert DEADLINE - LOCK_PATIENCE < asked.seconds < 1.25 * DEADLINE + LOCK_PATIENCE + noise
