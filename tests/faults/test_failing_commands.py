"""A command that makes the database raise fails alone, whatever else is in its transaction."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.conftest import TIMES, House
from tests.support.faults.clients import CARRIED_OUT, Mix, deposit
from tests.support.faults.database import Database
from tests.support.histories.journal import Request

GUILTY = "666.66"


@contextmanager
def refusing(database: Database, amount: str) -> Iterator[None]:
    """A rule of the table that the service knows nothing of."""
    with database.connect() as connection:
        check = f"ALTER TABLE operation ADD CONSTRAINT guilty CHECK (amount <> {amount}) NOT VALID"
        connection.execute(check.encode())
    try:
        yield
    finally:
        with database.connect() as connection:
            connection.execute("ALTER TABLE operation DROP CONSTRAINT guilty")


def test_only_its_own_request_fails(house: House) -> None:
    hot, *cold = house.open(21)
    innocent = Mix(hot, cold)

    def one_in_fifty_is_guilty(dice: random.Random) -> Request:
        return deposit(hot, GUILTY) if dice.random() < 0.02 else innocent(dice)

    with house.serving(one_in_fifty_is_guilty, [hot, *cold]) as load, refusing(house.database, GUILTY):
        load.wait_for(rounds=6 * TIMES)
    failed = [asked for asked in load.journal if asked.outcome not in CARRIED_OUT]
    assert failed
    for asked in failed:
        assert asked.request.body
        assert asked.request.body["amount"] == GUILTY
        assert asked.answer
        assert (asked.answer.status, asked.answer.code) == (500, "internal_error")
