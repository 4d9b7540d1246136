"""The journal of the clients: requests and responses with their times."""

import json
import select
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.support.client import Answer

ANSWER_TIMEOUT_SECONDS = 60.0  # far longer than any deadline of the service
NEVER = float("inf")


class NotReached(Exception):
    """No connection was made, so nothing was sent."""


class NoAnswer(Exception):
    """The request was sent, and the connection ended without an answer."""


@dataclass(frozen=True, slots=True)
class ApiRequest:
    method: str
    path: str
    body: dict[str, Any] | None = None
    key: str | None = None
    wallet_id: str = ""  # of an operation or a wallet read, as batched by the service
    is_async: bool = False

    def encode(self) -> bytes:
        content = b"" if self.body is None else json.dumps(self.body).encode()
        head = f"{self.method} /api/v1{self.path} HTTP/1.1\r\nHost: localhost\r\n"
        if self.body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        if self.key is not None:
            head += f"Idempotency-Key: {self.key}\r\n"
        if self.is_async:
            head += "Prefer: respond-async\r\n"
        return f"{head}\r\n".encode() + content

    def __str__(self) -> str:
        body = "" if self.body is None else f" {json.dumps(self.body)}"
        key = "" if self.key is None else f" key={self.key}"
        return f"{self.method} {self.path}{body}{key}{' respond-async' if self.is_async else ''}"


class Connection:
    """A keep-alive connection. It reconnects if the server has closed it between requests."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    def ask(self, request: ApiRequest, timeout_seconds: float = ANSWER_TIMEOUT_SECONDS) -> Answer:
        """Send the request and return the response. Raises NotReached or NoAnswer."""
        connected = self._connected()
        try:
            connected.settimeout(timeout_seconds)
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
            self.close()  # no request is pending, so the server has closed it
        if self._socket is None:
            try:
                self._socket = socket.create_connection(self._address, timeout=ANSWER_TIMEOUT_SECONDS)
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


@dataclass(slots=True)
class Call:
    """One request and its response; without a response, `lost` says why."""

    client: int
    request: ApiRequest
    began: float
    ended: float = NEVER  # time of the response; without one, the command may happen at any time
    answer: Answer | None = None
    lost: NoAnswer | NotReached | None = None

    @property
    def outcome(self) -> int | str:
        return self.answer.status if self.answer else type(self.lost).__name__

    @property
    def may_have_happened(self) -> bool:
        """Return whether the outcome is unknown. A request without a connection was not sent."""
        if self.answer is None:
            return not isinstance(self.lost, NotReached)
        return self.answer.status >= 500

    @property
    def is_replay(self) -> bool:
        return self.answer is not None and self.answer.headers.get("idempotent-replayed") == "true"

    def __str__(self) -> str:
        content = self.answer.content.decode() if self.answer else str(self.lost)
        return (
            f"client {self.client}, {self.began:.6f} to {self.ended:.6f}: {self.request}"
            f" -> {self.outcome} {content}"
        )


def call(
    connection: Connection, client: int, request: ApiRequest, timeout_seconds: float = ANSWER_TIMEOUT_SECONDS
) -> Call:
    made = Call(client, request, time.monotonic())
    try:
        made.answer = connection.ask(request, timeout_seconds)
        made.ended = time.monotonic()
    except (NoAnswer, NotReached) as error:
        made.lost = error
    return made


@dataclass(frozen=True, slots=True)
class History:
    """All calls of some clients, with times of one monotonic clock."""

    calls: Sequence[Call]
    wallet_ids: Sequence[str] = field(default=())  # all wallets that the calls name
    epoch: float = 0.0  # wall clock minus the monotonic clock, in seconds

    def moment(self, at: float) -> datetime:
        """Convert a time of the calls to the wall clock, which the database uses."""
        return datetime.fromtimestamp(min(self.epoch + at, 253_402_300_799), UTC)

    def __iter__(self) -> Iterator[Call]:
        return iter(self.calls)
