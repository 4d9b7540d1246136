"""The connection to PostgreSQL ends around a COMMIT: what has become of it is found out, not guessed."""

from collections.abc import Iterator

import pytest

from tests.faults.conftest import IS_LONG, TIMES, House, running
from tests.support.faults.database import Database
from tests.support.faults.proxy import Loss, Proxy

SETTINGS = {"OPERATION_DEADLINE": "6"}  # who is not told that a connection has ended finds out in half of it


@pytest.fixture(scope="module")
def proxy(database: Database) -> Iterator[Proxy]:
    with Proxy(database.cluster.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def house(database: Database, proxy: Proxy) -> Iterator[House]:
    with running(House(database, proxy.port, **SETTINGS)) as house:
        yield house


@pytest.mark.parametrize(
    "loss", [loss if loss is Loss.ANSWER else pytest.param(loss, marks=pytest.mark.slow) for loss in Loss]
)
def test_the_end_of_a_commit_is_found_out(house: House, proxy: Proxy, loss: Loss) -> None:
    lose_commits(house, proxy, loss)


@pytest.fixture(scope="module")
def house_without_groups(database: Database, proxy: Proxy) -> Iterator[House]:
    with running(House(database, proxy.port, GROUP_COMMIT="off", **SETTINGS)) as house:
        yield house


@pytest.mark.parametrize("loss", Loss if IS_LONG else [Loss.ANSWER])
@pytest.mark.slow
def test_the_same_without_group_commit(house_without_groups: House, proxy: Proxy, loss: Loss) -> None:
    lose_commits(house_without_groups, proxy, loss)


def lose_commits(house: House, proxy: Proxy, loss: Loss) -> None:
    with house.under_load() as load:
        for _ in range(TIMES):
            proxy.lose(loss)
            load.wait_for()
        assert proxy.has_lost_all
    load.expect_only()
