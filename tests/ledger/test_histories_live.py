"""A mixed load on the running service: its responses and the ledger are one consistent history."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.support.cluster import cluster
from tests.support.histories.checker import check
from tests.support.histories.ledger import read
from tests.support.histories.load import Load

MIN_CALLS = 2000


@contextmanager
def inbox_worker() -> Iterator[None]:
    worker = subprocess.Popen([sys.executable, "manage.py", "process_inbox"])
    try:
        yield
    finally:
        worker.terminate()
        worker.wait(60)


def drain() -> None:
    subprocess.run([sys.executable, "manage.py", "process_inbox", "--until-empty"], check=True, timeout=60)


def test_responses_to_many_clients_are_one_history(service: str) -> None:
    address = urlsplit(service)
    assert address.hostname
    assert address.port
    with inbox_worker(), Load((address.hostname, address.port), seed=7, rate=500, clients=30) as load:
        load.wait_for(MIN_CALLS)
    drain()
    history = load.history
    found = check(history, read(cluster.url(), history.wallet_ids))
    assert not found, "\n".join(map(str, found[:10]))
    assert load.outcomes().keys() >= {200, 201, 202, 400, 404, 409, "NoAnswer"}
