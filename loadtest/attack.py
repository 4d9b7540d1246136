"""Deposits by API key at a constant rate, and a flood of expensive requests at the same time.

The flood comes from strangers: clients without key or session. Each kind of request was among the most
expensive ones; three OpenAPI documents a second once raised the median latency of deposits from 25 ms to 6 s.
"""

import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from threading import Event
from typing import Final

from loadtest.wrk import Result
from local.service import Address

CLIENTS: Final = 10
DEPOSITS_PER_SECOND: Final = 50  # of all clients: far below the capacity of the service
STRANGERS: Final = 3  # for each kind of request; each sends one a second, one at a time
ANSWER_TIMEOUT_SECONDS: Final = 30.0
DEPOSIT: Final = json.dumps({"operationType": "DEPOSIT", "amount": "1.50"}).encode()
JSON: Final = {"Content-Type": "application/json"}
FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
MANY_KEYS: Final = json.dumps({f"{number:x}": 0 for number in range(6000)}).encode()
LONG_TEXTS: Final = json.dumps(dict.fromkeys(("email", "password", "name"), "a" * 15_000)).encode()
UNKNOWN_WALLET: Final = "/api/v1/wallets/00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class ExpensiveRequest:
    """A request of a stranger, of at most 64 KiB."""

    method: str
    path: str
    body: bytes | None = field(default=None, repr=False)
    headers: dict[str, str] = field(default_factory=dict)


EXPENSIVE: Final = {
    "document": ExpensiveRequest("GET", "/api/schema"),
    "login": ExpensiveRequest("POST", "/api/v1/login", LONG_TEXTS, JSON),
    "signup": ExpensiveRequest("POST", "/api/v1/signup", MANY_KEYS, JSON),
    "login page": ExpensiveRequest("POST", "/login", b"&".join(b"%x=" % n for n in range(9000)), FORM),
    "malformed JSON": ExpensiveRequest("POST", f"{UNKNOWN_WALLET}/operation", MANY_KEYS[:-1], JSON),
    "unknown path": ExpensiveRequest("GET", "/api/v1/nothing?" + "&".join(["a"] * 1900)),
}


# --- Deposits ---------------------------------------------------------------------------------------
def deposit_steadily(address: Address, wallet: str, api_key: str, seconds: float) -> Result:
    """Measure the latency of deposits from their due times, which late responses do not move."""
    begin = time.perf_counter()
    headers = JSON | {"Authorization": f"Bearer {api_key}"}

    def client(number: int) -> list[tuple[float, int]]:
        with closing(_connection(address)) as connection:
            return [
                _deposit(connection, f"/api/v1/wallets/{wallet}/operation", headers, due)
                for due in _due_times(begin, number, seconds)
            ]

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = [answer for of_client in pool.map(client, range(CLIENTS)) for answer in of_client]
    latencies = sorted(latency for latency, _ in answers)
    p50, p99 = statistics.median(latencies), latencies[int(len(latencies) * 0.99)]
    failures = sum(status != 201 for _, status in answers)  # noqa: PLR2004
    return Result(len(answers), seconds, failures, p50, p99, latencies[-1])


def _due_times(begin: float, number: int, seconds: float) -> Iterator[float]:
    """Wait for and yield the due time of each deposit of a client, until `seconds` are over."""
    for turn in range(int(seconds * DEPOSITS_PER_SECOND / CLIENTS)):
        due = begin + (turn * CLIENTS + number) / DEPOSITS_PER_SECOND
        time.sleep(max(0.0, due - time.perf_counter()))
        if turn and time.perf_counter() > begin + seconds:
            return
        yield due


def _deposit(connection: HTTPConnection, path: str, headers: dict[str, str], due: float) -> tuple[float, int]:
    """Return the latency in milliseconds, and the status."""
    connection.request("POST", path, DEPOSIT, headers)
    response = connection.getresponse()
    response.read()
    return (time.perf_counter() - due) * 1000, response.status


# --- The flood --------------------------------------------------------------------------------------
@contextmanager
def flood(address: Address) -> Iterator[Counter[tuple[str, int]]]:
    """Send the flood during the block. Yield the number of responses by kind and status; 0: no response."""
    answers: Counter[tuple[str, int]] = Counter()
    is_stopped = Event()

    def stranger(name: str) -> None:
        due = time.perf_counter()
        while not is_stopped.wait(max(0.0, due - time.perf_counter())):
            answers[name, _status(address, EXPENSIVE[name])] += 1
            due = max(due + 1, time.perf_counter())

    with ThreadPoolExecutor(len(EXPENSIVE) * STRANGERS) as pool:
        strangers = [pool.submit(stranger, name) for name in EXPENSIVE for _ in range(STRANGERS)]
        try:
            yield answers
        finally:
            is_stopped.set()
            _raise_failure(strangers)


def _raise_failure(strangers: list[Future[None]]) -> None:
    for each in strangers:
        each.result()


def _status(address: Address, request: ExpensiveRequest) -> int:
    with closing(_connection(address)) as connection:
        try:
            connection.request(request.method, request.path, request.body, request.headers)
            response = connection.getresponse()
            response.read()
        except (OSError, HTTPException):
            return 0
        return response.status


def _connection(address: Address) -> HTTPConnection:
    return HTTPConnection(address.host, address.port, timeout=ANSWER_TIMEOUT_SECONDS)
