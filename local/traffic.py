"""Clients of a running service that send one request after the other, and the operations they record."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from itertools import cycle
from threading import Event
from typing import Any, Final
from uuid import uuid4

from local import LocalError

CLIENTS: Final = 4
RESPONSE_TIMEOUT_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.01  # between two checks of the number of responses

# Each client repeats these in order, so its wallet always has enough money.
MOVEMENTS: Final = (
    ("wallets/{own}/operation", {"operationType": "DEPOSIT", "amount": "20.00"}),
    ("wallets/{own}/operation", {"operationType": "WITHDRAW", "amount": "5.00"}),
    ("transfers", {"sourceWalletId": "{own}", "targetWalletId": "{shared}", "amount": "5.00"}),
    ("wallets/{own}/holds", {"amount": "1.00"}),
)


class Traffic:
    """Records the operation ids, which the clients choose, before a request and after its response."""

    def __init__(self, address: str) -> None:
        self.sent: set[str] = set()
        self.answered: set[str] = set()
        self.is_stopped = Event()
        self.clients: list[Future[None]] = []
        self._address = address

    def wait_for(self, more: int) -> None:
        """Wait until `more` further operations are answered. Raises LocalError if a request has failed."""
        goal = len(self.answered) + more
        while len(self.answered) < goal:
            for client in self.clients:
                if client.done():
                    client.result()
            time.sleep(POLL_SECONDS)

    def client(self, shared: str) -> None:
        with closing(HTTPConnection(self._address, timeout=RESPONSE_TIMEOUT_SECONDS)) as connection:
            wallets = {"own": open_wallet(connection), "shared": shared}
            for path, movement in cycle(MOVEMENTS):
                if self.is_stopped.is_set():
                    return
                body = {name: value.format(**wallets) for name, value in movement.items()}
                self._send(connection, path.format(**wallets), {"id": str(uuid4()), **body})

    def _send(self, connection: HTTPConnection, path: str, body: dict[str, str]) -> None:
        self.sent.add(body["id"])
        post(connection, path, body)
        self.answered.add(body["id"])


@contextmanager
def traffic(address: str) -> Iterator[Traffic]:
    with closing(HTTPConnection(address, timeout=RESPONSE_TIMEOUT_SECONDS)) as connection:
        shared = open_wallet(connection)
    with ThreadPoolExecutor(CLIENTS) as pool:
        running = Traffic(address)
        running.clients = [pool.submit(running.client, shared) for _ in range(CLIENTS)]
        try:
            yield running
        finally:
            running.is_stopped.set()
    for client in running.clients:
        client.result()


def open_wallet(connection: HTTPConnection) -> str:
    return str(post(connection, "wallets", {"currency": "EUR", "label": "drill"})["id"])


def post(connection: HTTPConnection, path: str, body: dict[str, str]) -> Any:
    try:
        connection.request("POST", f"/api/v1/{path}", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
    except (OSError, HTTPException) as error:
        raise LocalError(f"the service does not answer: {error!r}") from error
    if response.status != HTTPStatus.CREATED:
        raise LocalError(f"POST {path} was answered {response.status}: {content.decode()}")
    return json.loads(content)
