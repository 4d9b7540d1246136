"""The connection to PostgreSQL ends around a COMMIT: the service finds out whether it was committed."""

from collections.abc import Iterator

import pytest

from tests.faults.conftest import IS_LONG, TIMES, FaultTarget, running
from tests.support.faults.database import Database
from tests.support.faults.proxy import Loss, Proxy

SETTINGS = {"OPERATION_DEADLINE": "6"}  # a silent loss is noticed within half of it


@pytest.fixture(scope="module")
def proxy(database: Database) -> Iterator[Proxy]:
    with Proxy(database.cluster.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def target(database: Database, proxy: Proxy) -> Iterator[FaultTarget]:
    with running(FaultTarget(database, proxy.port, **SETTINGS)) as target:
        yield target


@pytest.mark.parametrize(
    "loss", [loss if loss is Loss.ANSWER else pytest.param(loss, marks=pytest.mark.slow) for loss in Loss]
)
def test_outcome_of_a_lost_commit_is_found(target: FaultTarget, proxy: Proxy, loss: Loss) -> None:
    lose_commits(target, proxy, loss)


@pytest.fixture(scope="module")
def target_without_groups(database: Database, proxy: Proxy) -> Iterator[FaultTarget]:
    with running(FaultTarget(database, proxy.port, GROUP_COMMIT="off", **SETTINGS)) as target:
        yield target


@pytest.mark.parametrize("loss", Loss if IS_LONG else [Loss.ANSWER])
@pytest.mark.slow
def test_outcome_of_a_lost_commit_without_group_commit_is_found(
    target_without_groups: FaultTarget, proxy: Proxy, loss: Loss
) -> None:
    lose_commits(target_without_groups, proxy, loss)


def lose_commits(target: FaultTarget, proxy: Proxy, loss: Loss) -> None:
    with target.under_load() as load:
        for _ in range(TIMES):
            proxy.lose(loss)
            load.wait_for()
        assert proxy.has_lost_all
    load.expect_only()
