"""Every pod is replaced under load, as by an update of the Deployment in deploy/kubernetes/."""

import pytest

from tests.faults.conftest import TIMES
from tests.support.faults.database import Database
from tests.support.faults.rollout import Balancer, Deployment


@pytest.mark.slow
def test_rolling_update_fails_no_request(database: Database) -> None:
    with Balancer() as service, Deployment(database, service) as deployment:
        with deployment.under_load() as load:
            for _ in range(2 * TIMES):
                deployment.replace(deployment.pods[0])
                load.wait_for()
        load.expect_only()
        assert all(service.led[pod.address] for pod in deployment.pods)
