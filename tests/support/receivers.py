"""HTTP servers that receive webhooks, with a configurable behaviour."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    connection: int  # number of the connection, from 1

    @property
    def events(self) -> list[dict[str, Any]]:
        content = orjson.loads(self.body)
        return content if isinstance(content, list) else [content]

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.events]


# Handles a request: it may write to the socket; False closes the connection.
Behaviour = Callable[[socket.socket, Request], bool]


def answering(status: int, body: bytes = b"", *headers: str) -> Behaviour:
    head = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers]
    answer = "\r\n".join(head).encode() + b"\r\n\r\n" + body

    def behave(connection: socket.socket, request: Request) -> bool:
        connection.sendall(answer)
        return True

    return behave


def saying(raw: bytes) -> Behaviour:
    """Send these bytes and close the connection."""

    def behave(connection: socket.socket, request: Request) -> bool:
        connection.sendall(raw)
        return False

    return behave


def dripping(raw: bytes, pause: float = 0.3) -> Behaviour:
    """Send single bytes with pauses, then close the connection."""

    def behave(connection: socket.socket, request: Request) -> bool:
        for byte in raw:
            connection.sendall(bytes([byte]))
            time.sleep(pause)
        return False

    return behave


def hanging(connection: socket.socket, request: Request) -> bool:
    connection.recv(1)  # until the client closes the connection
    return False


take = answering(200, b"ok")
fail = answering(500, b"no")


def refusing(*wallet_ids: str) -> Behaviour:
    """Fail requests with events of these wallets, accept all others."""

    def behave(connection: socket.socket, request: Request) -> bool:
        is_refused = any(event["subject"] in wallet_ids for event in request.events)
        return (fail if is_refused else take)(connection, request)

    return behave


@dataclass
class Receiver:
    """A server on 127.0.0.1. `behave` may be changed at any time."""

    behave: Behaviour = take
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._connections = 0
        self._arrived = threading.Condition()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def url(self, path: str = "/events", host: str = "127.0.0.1") -> str:
        return f"http{'s' if self.tls else ''}://{host}:{self.port}{path}"

    @property
    def events(self) -> list[dict[str, Any]]:
        """All received events, in order of arrival."""
        return [event for request in list(self.requests) for event in request.events]

    def of(self, wallet_id: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("subject") == wallet_id]

    def ids_of(self, wallet_id: str) -> list[str]:
        return [event["id"] for event in self.of(wallet_id)]

    def sequences(self, wallet_id: str) -> list[int]:
        """Return the sequences of the wallet's completed operations, in order of first arrival."""
        completed = [each for each in self.of(wallet_id) if each["type"] == "wallet.operation.completed"]
        return list(dict.fromkeys(each["data"]["sequence"] for each in completed))

    def wait_until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        with self._arrived:
            assert self._arrived.wait_for(condition, seconds), [request.ids for request in self.requests]

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def drop_connections(self) -> None:
        """Close all connections, like a server that closes idle ones."""
        for connection in list(self._open):
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections += 1
                thread = threading.Thread(target=self._serve, args=[connection, self._connections])
                self._threads.append(thread)
                thread.start()

    def _serve(self, plain: socket.socket, number: int) -> None:
        connection = plain
        with suppress(OSError, ValueError):
            self._open.add(plain)
            if self.tls:
                connection = self.tls.wrap_socket(plain, server_side=True)
                self._open.add(connection)
            with connection.makefile("rb") as stream:
                while request := _read(stream, number):
                    with self._arrived:
                        self.requests.append(request)
                        self._arrived.notify_all()
                    if not self.behave(connection, request):
                        break
        self._open -= {plain, connection}
        connection.close()
        plain.close()


def _read(stream: Any, number: int) -> Request | None:
    line = stream.readline().decode()
    if not line:
        return None
    headers: dict[str, str] = {}
    while text := stream.readline().decode().rstrip("\r\n"):
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()
    length = int(headers.get("content-length", -1))
    body = stream.read(max(length, 0))
    if len(body) != length:
        return None  # a killed relay sends incomplete requests
    return Request(line.split()[1], headers, body, number)


@contextmanager
def receiver(behave: Behaviour = take, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    server = Receiver(behave, tls)
    try:
        yield server
    finally:
        server.close()


def is_in_order(expected: Sequence[Any], arrived: Sequence[Any]) -> bool:
    """Whether `arrived` has exactly the expected items, with first arrivals in order; repeats are allowed."""
    return list(dict.fromkeys(arrived)) == list(expected)
