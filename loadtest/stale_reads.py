"""A client deposits into the wallet that the load reads, and checks that each read shows the deposit."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from threading import Event, Thread
from typing import Any, Final

DEPOSIT: Final = b'{"operationType":"DEPOSIT","amount":"1.50"}'
RESPONSE_TIMEOUT_SECONDS: Final = 30.0


@dataclass
class ReadChecks:
    count: int = 0
    stale: int = 0  # reads that did not show the deposit that was answered before them


@contextmanager
def deposit_and_check(address: str, wallet: str) -> Iterator[ReadChecks]:
    """Deposit into the wallet and read it in a thread, until the block ends."""
    checks, is_stopped = ReadChecks(), Event()

    def deposit_and_read() -> None:
        with closing(HTTPConnection(address, timeout=RESPONSE_TIMEOUT_SECONDS)) as connection:
            while not is_stopped.is_set():
                deposit = _send(connection, "POST", f"/api/v1/wallets/{wallet}/operation", DEPOSIT)
                read = _send(connection, "GET", f"/api/v1/wallets/{wallet}")
                checks.count += 1
                checks.stale += read["sequence"] < deposit["sequence"]

    thread = Thread(target=deposit_and_read)
    thread.start()
    try:
        yield checks
    finally:
        is_stopped.set()
        thread.join()


def _send(connection: HTTPConnection, method: str, path: str, body: bytes | None = None) -> Any:
    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    return json.loads(connection.getresponse().read())
