"""A client deposits into the wallet that the load reads, and checks that each read shows the deposit."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from threading import Event, Thread
from typing import Any, Final

DEPOSIT: Final = b'{"operationType":"DEPOSIT","amount":"1.50"}'
RESPONSE_TIMEOUT_SECONDS: Final = 30.0  # seconds for one answer


@dataclass
class Looks:
    number: int = 0
    stale: int = 0  # those that did not show what had been answered before


@contextmanager
def meanwhile(address: str, wallet: str) -> Iterator[Looks]:
    looks, is_over = Looks(), Event()

    def pay_and_look() -> None:
        with closing(HTTPConnection(address, timeout=RESPONSE_TIMEOUT_SECONDS)) as connection:
            while not is_over.is_set():
                paid = _ask(connection, "POST", f"/api/v1/wallets/{wallet}/operation", DEPOSIT)
                seen = _ask(connection, "GET", f"/api/v1/wallets/{wallet}")
                looks.number += 1
                looks.stale += seen["sequence"] < paid["sequence"]

    thread = Thread(target=pay_and_look)
    thread.start()
    try:
        yield looks
    finally:
        is_over.set()
        thread.join()


def _ask(connection: HTTPConnection, method: str, path: str, body: bytes | None = None) -> Any:
    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    return json.loads(connection.getresponse().read())
