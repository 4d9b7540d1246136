"""Clients that go on asking while something breaks, and the journal of what they were told."""

import json
import random
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self
from uuid import uuid4

from tests.client import Answer

PATIENCE = 60.0  # seconds for one answer: far more than any deadline of the service


class NotReached(Exception):
    """There was no connection: nothing was sent."""


class NoAnswer(Exception):
    """The request was sent, and the connection ended without an answer."""


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    body: dict[str, Any] | None = None
    key: str | None = None
    wallet_id: str = ""  # of an operation, or of a wallet that is read: what group commit and group read do

    def encode(self) -> bytes:
        content = b"" if self.body is None else json.dumps(self.body).encode()
        head = f"{self.method} /api/v1{self.path} HTTP/1.1\r\nHost: localhost\r\n"
        if self.body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        if self.key is not None:
            head += f"Idempotency-Key: {self.key}\r\n"
        return f"{head}\r\n".encode() + content


class Connection:
    """Keep-alive as a careful client does it: opened again where the server has hung up between requests."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    def ask(self, request: Request) -> Answer:
        """Raises NotReached or NoAnswer."""
        connected = self._connected()
        try:
            connected.sendall(request.encode())
            answer = _receive(connected)
        except OSError as error:
            self.close()
            raise NoAnswer(repr(error)) from error
        if answer.headers.get("connection") == "close":
            self.close()
        return answer

    def close(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        if self._socket and select.select([self._socket], [], [], 0)[0]:
            self.close()  # nothing was asked, so this is the end of the connection
        if self._socket is None:
            try:
                self._socket = socket.create_connection(self._address, timeout=PATIENCE)
            except OSError as error:
                raise NotReached(repr(error)) from error
        return self._socket


def _receive(connected: socket.socket) -> Answer:
    received = b""
    while b"\r\n\r\n" not in received:
        received += _some(connected)
    head, _, content = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(content) < int(headers["content-length"]):
        content += _some(connected)
    return Answer(int(first.split()[1]), headers, content)


def _some(connected: socket.socket) -> bytes:
    received = connected.recv(65_536)
    if not received:
        raise ConnectionResetError("the server hung up")
    return received


# --- What they ask ----------------------------------------------------------------------------------
Choose = Callable[[random.Random], Request]


def deposit(wallet_id: str, amount: str) -> Request:
    return operation(wallet_id, "DEPOSIT", amount)


def operation(wallet_id: str, kind: str, amount: str) -> Request:
    body = {"operationType": kind, "amount": amount}
    return Request("POST", f"/wallets/{wallet_id}/operation", body, str(uuid4()), wallet_id)


def reading(wallet_id: str) -> Request:
    return Request("GET", f"/wallets/{wallet_id}", wallet_id=wallet_id)


def opening() -> Request:
    return Request("POST", "/wallets", {"id": str(uuid4())})


@dataclass(frozen=True)
class Mix:
    """Half of it on one hot wallet, the rest spread over cold ones: operations, reads and `others` in 100."""

    hot: str
    cold: Sequence[str]
    others: int = 6

    def __call__(self, dice: random.Random) -> Request:
        wallet_id = self.hot if dice.random() < 0.5 else dice.choice(self.cold)
        if (number := dice.randrange(100)) < self.others:
            return self._other(dice, wallet_id)
        if number < 70:
            kind = "DEPOSIT" if dice.random() < 0.6 else "WITHDRAW"
            return operation(wallet_id, kind, f"{dice.randint(1, 100_000) / 100:.2f}")
        return reading(wallet_id)

    def _other(self, dice: random.Random, wallet_id: str) -> Request:
        match dice.randrange(4):
            case 0:
                return Request("GET", f"/wallets/{wallet_id}/operations?limit=5")
            case 1:
                return Request("GET", "/wallets?limit=5")
            case 2:
                return Request("PATCH", f"/wallets/{wallet_id}", {"label": f"label {dice.random()}"})
            case _:
                return opening()


# --- What they were told ----------------------------------------------------------------------------
CARRIED_OUT = (200, 201, 409)


@dataclass(slots=True)
class Asked:
    """One request and its end; without an answer, `lost` says why."""

    request: Request
    sent_at: float
    answer: Answer | None = None
    lost: NoAnswer | NotReached | None = None
    ended_at: float = float("inf")
    again: "Asked | None" = None  # the same request, sent once more when the fault was over

    @property
    def outcome(self) -> int | str:
        return self.answer.status if self.answer else type(self.lost).__name__

    @property
    def seconds(self) -> float:
        return self.ended_at - self.sent_at

    @property
    def is_operation(self) -> bool:
        return self.request.key is not None

    @property
    def is_read(self) -> bool:
        """Of a wallet: what group read does."""
        return bool(self.request.wallet_id) and not self.is_operation

    @property
    def is_settled(self) -> bool:
        """Whether the client knows what has become of its operation."""
        return self.answer is not None and self.answer.status in (201, 409)

    @property
    def known(self) -> Answer:
        """The answer that the client has in the end."""
        last = self.again or self
        assert last.answer, last
        return last.answer


def ask(connection: Connection, request: Request) -> Asked:
    asked = Asked(request, time.monotonic())
    try:
        asked.answer = connection.ask(request)
    except (NoAnswer, NotReached) as error:
        asked.lost = error
    asked.ended_at = time.monotonic()
    return asked


@dataclass
class Load:
    """`clients` that ask for `rate` requests a second together, each waiting for its answer."""

    address: tuple[str, int]
    choose: Choose
    rate: float = 500
    clients: int = 40

    def __enter__(self) -> Self:
        self._stopped = threading.Event()
        self._journals: list[list[Asked]] = [[] for _ in range(self.clients)]
        self._threads = [
            threading.Thread(target=self._ask, args=(random.Random(seed), journal))  # noqa: S311
            for seed, journal in enumerate(self._journals)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, dice: random.Random, journal: list[Asked]) -> None:
        interval = self.clients / self.rate
        connection = Connection(self.address)
        due = time.monotonic() + dice.random() * interval
        while not self._stopped.wait(max(0, due - time.monotonic())):
            journal.append(ask(connection, self.choose(dice)))
            pause = 0.5 if isinstance(journal[-1].lost, NotReached) else interval
            due = max(time.monotonic(), due + pause)
        connection.close()

    @property
    def journal(self) -> list[Asked]:
        return [asked for journal in self._journals for asked in journal]

    def wait_for(self, rounds: int = 4) -> None:
        """Return when so many requests of every client, sent from now on, have been carried out."""
        since = time.monotonic()
        while not all(_carried_out(journal, since) >= rounds for journal in self._journals):
            assert time.monotonic() < since + PATIENCE, f"not all go on: {self.outcomes(since)}"
            time.sleep(0.02)

    def outcomes(self, since: float = 0) -> Counter[int | str]:
        return Counter(asked.outcome for asked in self.journal if asked.sent_at >= since)

    def expect_only(self, *outcomes: int | str) -> None:
        """These at most; without any: every request was carried out, or refused by a rule."""
        others = [asked for asked in self.journal if asked.outcome not in (outcomes or CARRIED_OUT)]
        assert not others, f"{self.outcomes()}: {others[:3]}"


def _carried_out(journal: Sequence[Asked], since: float) -> int:
    return sum(asked.sent_at >= since and asked.outcome in CARRIED_OUT for asked in list(journal))
