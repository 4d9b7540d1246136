"""A client's socket, with a time limit for each request and a buffer for its response."""

import contextlib
import errno
import time
from collections.abc import Iterator
from typing import Any, Final

import gevent.socket

from walletsvc import settings

MAX_BUFFERED_BYTES: Final = 65_536  # of a response; a longer one is sent as it grows


class Connection:
    is_last = False  # the worker stops: an endless response has to end

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._deadline: float | None = (
            None  # of the request's body; None: KEEPALIVE limits the wait for a request
        )
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
        """Receive within the time that the whole body has: single bytes do not prolong it."""
        if self._deadline is None:
            with contextlib.suppress(gevent.socket.cancel_wait_ex):
                return bytes(self._sock.recv(size))
            return bytes(self._sock.recv(size))  # shut down: first what has arrived, then nothing
        gevent.sleep(0)  # a client that sends faster than we read would keep the others waiting
        with _slow_as_gone():
            self._sock.settimeout(max(self._deadline - time.monotonic(), 0.001))
            received = bytes(self._sock.recv(size))
            self._sock.settimeout(settings.CLIENT_TIMEOUT)
        return received

    def sendall(self, data: bytes) -> None:
        self._parts.append(bytes(data))
        self._size += len(data)
        is_in_request = self._deadline is not None  # otherwise gunicorn reports an error, and flushes nothing
        if self._size >= MAX_BUFFERED_BYTES or not is_in_request:
            self.flush()

    def sendfile(self, *args: Any, **kwargs: Any) -> Any:
        """Send a file past the buffer, after the head that is in it."""
        self.flush()
        with _slow_as_gone():
            return self._sock.sendfile(*args, **kwargs)

    def close(self) -> None:
        """Discard the buffer: gunicorn closes the socket in the middle of a response that has failed."""
        self._parts = []
        self._sock.close()

    def flush(self) -> None:
        if self._parts:
            whole = b"".join(self._parts)
            self._parts, self._size = [], 0
            with _slow_as_gone():
                self._sock.sendall(whole)


@contextlib.contextmanager
def _slow_as_gone() -> Iterator[None]:
    """Turn a timeout, which gunicorn would log as an error, into a connection reset by the client."""
    try:
        yield
    except TimeoutError as error:
        raise ConnectionResetError(errno.ECONNRESET, "the client is too slow") from error
