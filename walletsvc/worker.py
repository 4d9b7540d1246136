"""The server's worker: gunicorn's for gevent, with our errors and an end that cuts nobody off.

Nothing here may import Django or psycopg: the master process loads this before gevent has patched anything.
"""

import contextlib
import errno
import socket
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

import gevent.socket
import gunicorn.util
import orjson
from gevent.server import StreamServer
from gunicorn.http.errors import ParseException
from gunicorn.workers import ggevent
from uuid_utils.compat import uuid7

from wallets.observability import current
from wallets.problems import CONTENT_TYPE, BadRequest, InternalError
from walletsvc import census, settings

MAX_BUFFERED: Final = 65_536  # bytes of an answer kept back; a streamed one goes out as it grows
AT_THE_DOOR: Final = 65_536  # connections: more than any backlog
AT_ONCE: Final = 64  # connections that a worker takes before it looks after those it has
SLACK: Final = 1  # connections that a worker may have more than another, and a quarter on top
PAUSE: Final = 0.002  # seconds in which another worker may take a connection
PATIENCE: Final = 10  # such pauses
SKIPPED: Final = 65_536  # bytes of a body that nobody wants, at a time
LINGER: Final = 1.0  # seconds for clients in conversation to hear "Connection: close" with their next answer


class Client:
    """The client's socket. While a request is served, the client is waited for, but not for ever."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._until: float | None = None  # None: it has KEEPALIVE for its next request

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    @contextlib.contextmanager
    def in_request(self) -> Iterator[None]:
        self._until = time.monotonic() + settings.CLIENT_TIMEOUT
        self._sock.settimeout(settings.CLIENT_TIMEOUT)
        try:
            yield
        finally:
            self._until = None
            self._sock.settimeout(None)

    def recv(self, size: int) -> bytes:
        """The time is for a body in all: a byte now and then does not prolong it."""
        if self._until is None:
            with contextlib.suppress(gevent.socket.cancel_wait_ex):
                return bytes(self._sock.recv(size))
            return bytes(self._sock.recv(size))  # we have hung up: what has arrived, then nothing
        gevent.sleep(0)  # who sends faster than we read would keep the others from their turn
        with _slow_as_gone():
            self._sock.settimeout(max(self._until - time.monotonic(), 0.001))
            received = bytes(self._sock.recv(size))
            self._sock.settimeout(settings.CLIENT_TIMEOUT)
        return received


@contextlib.contextmanager
def _slow_as_gone() -> Iterator[None]:
    """To gunicorn a timeout of a socket would be a fault of ours."""
    try:
        yield
    except TimeoutError as error:
        raise ConnectionResetError(errno.ECONNRESET, "the client is too slow") from error


class Answer:
    """The client's socket, with head and body of an answer sent as one: each send wakes the client."""

    is_last = False  # the worker stops: an answer that could go on for ever had better end

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

    def sendfile(self, *args: Any, **kwargs: Any) -> Any:
        """A file goes past the buffer, and the head before it."""
        self.flush()
        with _slow_as_gone():
            return self._sock.sendfile(*args, **kwargs)

    def close(self) -> None:
        """gunicorn cuts off an answer that has failed on its way: the rest stays unsaid."""
        self._parts = []
        self._sock.close()

    def flush(self) -> None:
        if self._parts:
            whole = b"".join(self._parts)
            self._parts, self._size = [], 0
            with _slow_as_gone():
                self._sock.sendall(whole)


class Worker(ggevent.GeventWorker):  # type: ignore[misc]
    """Stops in three steps: accepts no more, ends conversations with their next answer, hangs up."""

    def init_process(self) -> None:
        self.idle: dict[Any, float] = {}  # since when
        self.connections = 0
        census.report(self.age, 0)
        Listener.worker = self.age
        super().init_process()

    def handle(self, listener: Any, sock: Any, addr: Any) -> None:
        client = Client(sock)
        self.idle[client] = time.monotonic()
        self._count(1)
        try:
            # It is asked for our address. The listener may be closed by now; the connection knows as well.
            super().handle(client, client, addr)
        finally:
            self.idle.pop(client, None)
            self._count(-1)

    def _count(self, change: int) -> None:
        self.connections += change
        if self.alive:
            census.report(self.age, self.connections)

    def handle_request(self, listener_name: Any, req: Any, client: Any, addr: Any) -> None:
        self.idle.pop(client, None)
        answer = Answer(client)
        with client.in_request():
            try:
                super().handle_request(listener_name, req, answer, addr)
            finally:
                answer.flush()
                self.idle[client] = time.monotonic()
                current.request.set(None)
            skip_rest(req.body)
        # A client that has sent its next request already would be served on and on, and the others starve.
        gevent.sleep(0)

    def handle_exit(self, sig: Any, frame: Any) -> None:
        super().handle_exit(sig, frame)
        Answer.is_last = True
        census.leave(self.age)
        gevent.spawn(self._hang_up_on_idle)

    def _hang_up_on_idle(self) -> None:
        began = time.monotonic()
        while True:
            time.sleep(LINGER / 10)
            late = time.monotonic() - LINGER
            for client in [client for client, since in self.idle.items() if max(since, began) < late]:
                # What has arrived is still read and answered; then the connection ends.
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RD)


class Listener(StreamServer):  # type: ignore[misc]
    """Leaves new connections to a worker that has fewer, and at the end turns nobody away."""

    worker = 0  # whose this is
    is_closing = False
    patience = PATIENCE

    @property
    def max_accept(self) -> int:
        return AT_THE_DOOR if self.is_closing else AT_ONCE

    @max_accept.setter
    def max_accept(self, _: int) -> None:
        """gunicorn sets 1 for several workers, which makes many wait that connect together."""

    def do_read(self) -> Any:
        if self.patience and not self.is_closing and self._has_enough():
            # Another worker's turn. Should it be stuck, this one takes the connection after all.
            self.patience -= 1
            self.stop_accepting()
            self._timer = self.loop.timer(PAUSE)
            self._timer.start(self._start_accepting_if_started)
            return None
        self.patience = PATIENCE
        connection = super().do_read()
        if connection:
            census.report(self.worker, len(self.pool) + 1)
        return connection

    def _has_enough(self) -> bool:
        fewest = census.fewest_elsewhere(self.worker)
        return fewest is not None and len(self.pool) >= fewest + fewest // 4 + SLACK

    def close(self) -> None:
        """Lets everybody in who stands at the door: the kernel would turn them away unheard."""
        if not self.is_closing:
            self.is_closing = True
            self._do_read()
        super().close()


def skip_rest(body: Any) -> None:
    """What nobody has read of a body is in the way of the next request."""
    try:
        while not body.failed and body.read(SKIPPED):
            pass
    except ParseException:
        # A second answer to one request would be taken for that to the next.
        raise StopIteration from None


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
    _count(problem.status)
    gunicorn.util.write_nonblock(sock, head.encode() + content)


def _count(status: int) -> None:
    from django.conf import settings

    from wallets.observability import metrics

    if settings.METRICS:
        metrics.count_unreadable(status)


gunicorn.util.write_error = write_problem
ggevent.StreamServer = Listener
