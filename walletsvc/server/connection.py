"""A client's socket, with a time limit for each request and a buffer for its response."""

import contextlib
import errno
import time
from collections.abc import Iterator
from typing import Any, Final

import gevent.socket

from walletsvc import settings

MAX_BUFFERED_BYTES: Final = 65_536  # of a response; a longer one is sent in several parts


class Connection:
    is_worker_stopping = False  # an event stream ends when it is set

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        # time.monotonic() by which the request body must arrive; None between requests (KEEPALIVE).
        self._deadline: float | None = None
        self._parts: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    @contextlib.contextmanager
    def in_request(self) -> Iterator[None]:
        self._deadline = time.monotonic() + settings.CLIENT_TIMEOUT
        self._sock.settimeout(settings.CLIENT_TIMEOUT)
        try:
            yield
        finally:
            self._deadline = None
            self._sock.settimeout(None)

    def recv(self, size: int) -> bytes:
        """Receive before the deadline of the whole body, which single bytes do not prolong."""
        if self._deadline is None:
            with contextlib.suppress(gevent.socket.cancel_wait_ex):
                return bytes(self._sock.recv(size))
            return bytes(
                self._sock.recv(size)
            )  # after a shutdown of the socket: the bytes that have arrived, then b""
        gevent.sleep(0)  # let other connections run if this client sends faster than we read
        with _timeout_as_reset():
            self._sock.settimeout(max(self._deadline - time.monotonic(), 0.001))
            received = bytes(self._sock.recv(size))
            self._sock.settimeout(settings.CLIENT_TIMEOUT)
        return received

    def sendall(self, data: bytes) -> None:
        self._parts.append(bytes(data))
        self._size += len(data)
        is_in_request = (
            self._deadline is not None
        )  # otherwise gunicorn sends an error response, and does not flush
        if self._size >= MAX_BUFFERED_BYTES or not is_in_request:
            self.flush()

    def sendfile(self, *args: Any, **kwargs: Any) -> Any:
        """Flush the buffer, which has the head, and send the file directly."""
        self.flush()
        with _timeout_as_reset():
            return self._sock.sendfile(*args, **kwargs)

    def close(self) -> None:
        """Discard the buffer: gunicorn closes the socket if a response fails half-way."""
        self._parts = []
        self._sock.close()

    def flush(self) -> None:
        if self._parts:
            whole = b"".join(self._parts)
            self._parts, self._size = [], 0
            with _timeout_as_reset():
                self._sock.sendall(whole)


@contextlib.contextmanager
def _timeout_as_reset() -> Iterator[None]:
    """Turn a timeout, which gunicorn would log as an error, into a connection reset by the client."""
    try:
        yield
    except TimeoutError as error:
        raise ConnectionResetError(errno.ECONNRESET, "the client is too slow") from error
