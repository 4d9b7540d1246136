"""A command that makes the database raise an error fails alone; the other commands of its batch succeed."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.conftest import TIMES, FaultTarget
from tests.support.faults.clients import CARRIED_OUT, Mix, deposit
from tests.support.faults.database import Database
from tests.support.histories.journal import ApiRequest

REFUSED_AMOUNT = "666.66"


@contextmanager
def refusing(database: Database, amount: str) -> Iterator[None]:
    """Add a table constraint on the amount that the service does not know."""
    with database.connect() as connection:
        check = f"ALTER TABLE operation ADD CONSTRAINT refused_amount CHECK (amount <> {amount}) NOT VALID"
        connection.execute(check.encode())
    try:
        yield
    finally:
        with database.connect() as connection:
            connection.execute("ALTER TABLE operation DROP CONSTRAINT refused_amount")


def test_only_the_failing_command_is_refused(target: FaultTarget) -> None:
    hot, *cold = target.open(21)
    valid = Mix(hot, cold)

    def one_in_fifty_is_refused(dice: random.Random) -> ApiRequest:
        return deposit(hot, REFUSED_AMOUNT) if dice.random() < 0.02 else valid(dice)

    with (
        target.serving(one_in_fifty_is_refused, [hot, *cold]) as load,
        refusing(target.database, REFUSED_AMOUNT),
    ):
        load.wait_for(rounds=6 * TIMES)
    failed = [sent for sent in load.journal if sent.outcome not in CARRIED_OUT]
    assert failed
    for sent in failed:
        assert sent.request.body
        assert sent.request.body["amount"] == REFUSED_AMOUNT
        assert sent.answer
        assert (sent.answer.status, sent.answer.code) == (500, "internal_error")
