"""A proxy in front of PostgreSQL that loses messages around a COMMIT and simulates other network faults.

It reads only the framing of the protocol: a message is a type byte, a length and a body. Only the first
message of a client has no type.
"""

import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from typing import BinaryIO, Self

READY = b"Z"  # ReadyForQuery: the server has completed the command
COMMIT = re.compile(rb"\bCOMMIT\b", re.IGNORECASE)


class Loss(Enum):
    """The part of a COMMIT that is lost: the command or its response."""

    COMMIT = auto()  # the command is lost, and the connection ends
    ANSWER = auto()  # the response is lost, and the connection ends
    SILENT_COMMIT = auto()  # the command is lost, and the connection stays open
    SILENT_ANSWER = auto()  # the response is lost, and the connection stays open


class Proxy:
    """A proxy that listens on its own port during the block. `lose` sets the loss of commits."""

    def __init__(self, port: int) -> None:
        self.upstream = port  # the port that new connections are forwarded to
        self.delay = 0.0  # seconds added to every message
        self.is_closed = False  # new connections are refused
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._losses: list[Loss] = []
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self._links: set[Link] = set()
        self._threads: set[threading.Thread] = set()

    def __enter__(self) -> Self:
        self._spawn(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._flows.set()
        while threads := self._threads.copy():
            self.cut()  # a connection may have been opened since
            threads.pop().join(0.1)
        self._listener.close()

    def lose(self, *losses: Loss) -> None:
        """Lose the next commits in this way, on any connection."""
        with self._lock:
            self._losses += losses

    @property
    def has_lost_all(self) -> bool:
        return not self._losses

    def next_loss(self) -> Loss | None:
        with self._lock:
            return self._losses.pop(0) if self._losses else None

    def cut(self) -> None:
        """Close all connections on both sides."""
        for link in self._links.copy():
            link.cut()

    def stall(self) -> None:
        """Hold back all messages until `flow`, which delivers them."""
        self._flows.clear()

    def flow(self) -> None:
        self._flows.set()

    def silence(self) -> list["Link"]:
        """Make all connections half open: messages are discarded, and neither side gets an error."""
        links = list(self._links)
        for link in links:
            link.is_silent = True
        return links

    def pause(self) -> None:
        """Delay a message before it is forwarded."""
        self._flows.wait()
        if self.delay:
            time.sleep(self.delay)

    def forget(self, link: "Link") -> None:
        self._links.discard(link)

    def _listen(self) -> None:
        with suppress(OSError):  # the listener was closed at the end of the block
            while True:
                client, _ = self._listener.accept()
                if not self.is_closed:
                    self._lead(client)
                else:
                    client.close()

    def _lead(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.upstream))
        except OSError:
            client.close()
            return
        for side in (client, server):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Link(self, client, server)
        self._links.add(link)
        self._spawn(link.carry_questions)
        self._spawn(link.carry_answers)

    def _spawn(self, work: Callable[[], None]) -> None:
        def run() -> None:
            work()
            self._threads.discard(thread)

        thread = threading.Thread(target=run)
        self._threads.add(thread)
        thread.start()


class Link:
    """One client's connection through the proxy."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self.is_silent = False
        self._proxy = proxy
        self._client = client
        self._server = server
        self._loss: Loss | None = None
        self._carriers = 2
        self._lock = threading.Lock()

    def carry_questions(self) -> None:
        with suppress(OSError), self._client.makefile("rb") as questions:
            self._pass_on(_message(questions, is_typed=False), self._server)
            while message := _message(questions):
                if message[:1] in (b"Q", b"P") and COMMIT.search(message):
                    self._loss = self._proxy.next_loss()
                if self._loss in (Loss.COMMIT, Loss.SILENT_COMMIT):
                    break
                self._pass_on(message, self._server)
        self._end(is_told=self._loss is not Loss.SILENT_COMMIT)

    def carry_answers(self) -> None:
        with suppress(OSError), self._server.makefile("rb") as answers:
            while message := _message(answers):
                if self._loss is None:
                    self._pass_on(message, self._client)
                elif message[:1] == READY:  # the commit is done
                    break
        self._end(is_told=self._loss is not Loss.SILENT_ANSWER)

    def _pass_on(self, message: bytes, to: socket.socket) -> None:
        self._proxy.pause()
        if not self.is_silent:
            to.sendall(message)

    def _end(self, *, is_told: bool) -> None:
        """End one direction. Close the sockets when both directions have ended."""
        if is_told and not self.is_silent:
            self.cut()
        with self._lock:
            self._carriers -= 1
            if not self._carriers:
                self.close()

    def cut(self) -> None:
        for side in (self._client, self._server):
            with suppress(OSError):  # the socket is closed already
                side.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._client.close()
        self._server.close()
        self._proxy.forget(self)


def _message(file: BinaryIO, *, is_typed: bool = True) -> bytes:
    """Return the next complete message, or no bytes if the connection has ended."""
    head = file.read(5 if is_typed else 4)
    length = int.from_bytes(head[-4:], "big")
    return head + file.read(length - 4) if length else b""
