"""The server's worker: gunicorn's for gevent, with our errors and an end that cuts nobody off.

Nothing here may import Django or psycopg: the master process loads this before gevent has patched anything.
"""

import contextlib
import socket
import time
from http import HTTPStatus
from typing import Any, Final

import gevent
import gunicorn.util
import orjson
from gunicorn.workers.ggevent import GeventWorker
from uuid_utils.compat import uuid7

from wallets.problems import CONTENT_TYPE, BadRequest, InternalError

MAX_BUFFERED: Final = 65_536  # bytes of an answer kept back; a streamed one goes out as it grows
LINGER: Final = 1.0  # seconds for clients in conversation to hear "Connection: close" with their next answer


class Answer:
    """The client's socket, with head and body of an answer sent as one: each send wakes the client."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._parts: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def sendall(self, data: bytes) -> None:
        self._parts.append(bytes(data))
        self._size += len(data)
        if self._size >= MAX_BUFFERED:
            self.flush()

    def flush(self) -> None:
        if self._parts:
            whole = b"".join(self._parts)
            self._parts, self._size = [], 0
            self._sock.sendall(whole)


class Worker(GeventWorker):  # type: ignore[misc]
    """Stops in three steps: accepts no more, ends conversations with their next answer, hangs up."""

    def init_process(self) -> None:
        self.idle: set[Any] = set()
        super().init_process()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        self.idle.add(client)
        try:
            super().handle(listener, client, addr)
        finally:
            self.idle.discard(client)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        self.idle.discard(sock)
        answer = Answer(sock)
        try:
            super().handle_request(listener_name, req, answer, addr)
        finally:
            answer.flush()
            self.idle.add(sock)
        # A client that has sent its next request already would be served on and on, and the others starve.
        gevent.sleep(0)

    def handle_exit(self, sig: Any, frame: Any) -> None:
        super().handle_exit(sig, frame)
        gevent.spawn(self._hang_up_on_idle)

    def _hang_up_on_idle(self) -> None:
        time.sleep(LINGER)
        for client in list(self.idle):
            # What has arrived is still read and answered; then the connection ends.
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RD)


def write_problem(sock: Any, status: int, reason: str, message: str) -> None:
    """What is not even HTTP never reaches Django; it is answered in our form all the same."""
    is_ours = status == HTTPStatus.INTERNAL_SERVER_ERROR
    problem = InternalError() if is_ours else BadRequest(f"{reason}: {message}")
    request_id = str(uuid7())
    content = orjson.dumps(problem.as_json(request_id))
    head = (
        f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n"
        f"Connection: close\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(content)}\r\n"
        f"X-Request-ID: {request_id}\r\n\r\n"
    )
    gunicorn.util.write_nonblock(sock, head.encode() + content)


gunicorn.util.write_error = write_problem
