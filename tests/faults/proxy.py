"""A proxy in front of PostgreSQL that loses what is said around a COMMIT.

It understands just enough of the protocol: a message is a type byte, a length and a body. Only what a client
says first has no type.
"""

import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from typing import BinaryIO, Self

READY = b"Z"  # the server has done what it was asked
COMMIT = re.compile(rb"\bCOMMIT\b", re.IGNORECASE)


class Loss(Enum):
    """What becomes of a COMMIT and of its answer."""

    COMMIT = auto()  # it does not reach the server, and the connection ends
    ANSWER = auto()  # it is carried out; the answer does not reach the client, and the connection ends
    SILENT_COMMIT = auto()  # it does not reach the server, and neither side is told
    SILENT_ANSWER = auto()  # it is carried out; the answer does not reach the client, who is not told


class Proxy:
    """Listens on a port of its own for as long as the block lasts; `lose` says what becomes of commits."""

    def __init__(self, port: int) -> None:
        self._upstream = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._losses: list[Loss] = []
        self._lock = threading.Lock()
        self._links: list[Link] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._spawn(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for link in self._links:
            link.cut()
        for thread in self._threads:
            thread.join()
        self._listener.close()
        for link in self._links:
            link.close()

    def lose(self, *losses: Loss) -> None:
        """Let this happen to the next commits, each on whatever connection it comes."""
        with self._lock:
            self._losses += losses

    @property
    def has_lost_all(self) -> bool:
        return not self._losses

    def next_loss(self) -> Loss | None:
        with self._lock:
            return self._losses.pop(0) if self._losses else None

    def _listen(self) -> None:
        with suppress(OSError):  # the end of the block
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._upstream)
                except OSError:
                    client.close()
                    continue
                for side in (client, server):
                    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                link = Link(self, client, server)
                self._links.append(link)
                self._spawn(link.carry_questions)
                self._spawn(link.carry_answers)

    def _spawn(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work)
        self._threads.append(thread)
        thread.start()


class Link:
    """One client's connection through the proxy."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._loss: Loss | None = None

    def carry_questions(self) -> None:
        with suppress(OSError), self._client.makefile("rb") as questions:
            self._server.sendall(_message(questions, is_typed=False))
            while message := _message(questions):
                if message[:1] in (b"Q", b"P") and COMMIT.search(message):
                    self._loss = self._proxy.next_loss()
                if self._loss is Loss.COMMIT:
                    break
                if self._loss is Loss.SILENT_COMMIT:
                    return
                self._server.sendall(message)
        self.cut()

    def carry_answers(self) -> None:
        with suppress(OSError), self._server.makefile("rb") as answers:
            while message := _message(answers):
                if self._loss is None:
                    self._client.sendall(message)
                elif message[:1] == READY:  # the commit is done
                    break
        if self._loss is not Loss.SILENT_ANSWER:
            self.cut()

    def cut(self) -> None:
        for side in (self._client, self._server):
            with suppress(OSError):  # it has ended by itself
                side.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._client.close()
        self._server.close()


def _message(file: BinaryIO, *, is_typed: bool = True) -> bytes:
    """The next one, whole; empty where the connection has ended."""
    head = file.read(5 if is_typed else 4)
    length = int.from_bytes(head[-4:], "big")
    return head + file.read(length - 4) if length else b""
