"""Many connections that each send the next request at once; every response is waited for.

wrk does not count requests that have no response when its time is over. Here they count, so a connection that
the service neglects appears as the slowest response.
"""

import selectors
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Final

import psycopg

from loadtest.wrk import Result

BODY: Final = b'{"operationType":"DEPOSIT","amount":"1.50"}'
LAST_RESPONSE_TIMEOUT_SECONDS: Final = 30.0  # for the last responses, after the time is over
SAMPLE_INTERVAL_SECONDS: Final = 0.25  # between two counts of the database's connections


@dataclass
class ClientConnection:
    """A connection with at most one request in flight."""

    connection: socket.socket
    sent_at: float = 0  # time.perf_counter()
    response: bytes = field(default=b"", repr=False)

    def send(self, request: bytes) -> None:
        self.response = b""
        self.sent_at = time.perf_counter()
        self.connection.sendall(request)  # smaller than the socket's buffer

    def receive(self) -> bool:
        """Receive once; return whether the response is complete. Raises OSError if the connection ends."""
        received = self.connection.recv(65536)
        if not received:
            raise ConnectionResetError
        self.response += received
        head, end, body = self.response.partition(b"\r\n\r\n")
        length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        return bool(end) and len(body) >= int(length or 0)

    @property
    def is_created(self) -> bool:
        return self.response.startswith(b"HTTP/1.1 201 ")


class Crowd:
    def __init__(self, host: str, port: int, path: str) -> None:
        self._address = (host, port)
        self._request = (
            f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(BODY)}\r\n\r\n"
        ).encode() + BODY
        self._selector = selectors.DefaultSelector()
        self._latencies: list[float] = []
        self._failures = 0

    def run(self, size: int, seconds: float) -> Result:
        with ExitStack() as stack:
            started = time.perf_counter()
            for _ in range(size):
                connection = stack.enter_context(closing(socket.create_connection(self._address)))
                client = ClientConnection(connection)
                self._selector.register(connection, selectors.EVENT_READ, client)
                client.send(self._request)
            self._serve(until=started + seconds)
        cuts = statistics.quantiles(self._latencies, n=100)
        return Result(
            requests=len(self._latencies),
            seconds=seconds,
            failures=self._failures,
            p50=cuts[49],
            p99=cuts[98],
            slowest=max(self._latencies),
        )

    def _serve(self, until: float) -> None:
        while self._selector.get_map():
            ready = self._selector.select(timeout=1)
            now = time.perf_counter()
            for key, _ in ready:
                self._receive(key.data, send_next=now < until)
            if now > until + LAST_RESPONSE_TIMEOUT_SECONDS:
                self._give_up(now)

    def _receive(self, client: ClientConnection, send_next: bool) -> None:
        try:
            if not client.receive():
                return
            self._record(client, failed=not client.is_created)
            if send_next:
                client.send(self._request)
            else:
                self._selector.unregister(client.connection)
        except OSError:
            self._record(client, failed=True)
            self._selector.unregister(client.connection)

    def _give_up(self, now: float) -> None:
        for key in list(self._selector.get_map().values()):
            self._record(key.data, failed=True)
            self._selector.unregister(key.fileobj)

    def _record(self, client: ClientConnection, failed: bool) -> None:
        self._latencies.append((time.perf_counter() - client.sent_at) * 1000)
        self._failures += failed


@dataclass
class ConnectionSample:
    maximum: int = 0


@contextmanager
def database_connections(url: str) -> Iterator[ConnectionSample]:
    """Sample the service's database connections during the block. The yielded object has the maximum."""
    sampled, is_stopped = ConnectionSample(), Event()

    def sample() -> None:
        with psycopg.connect(url, autocommit=True) as db:
            while not is_stopped.wait(SAMPLE_INTERVAL_SECONDS):
                row = db.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'walletsvc'"
                ).fetchone()
                sampled.maximum = max(sampled.maximum, row[0] if row else 0)

    thread = Thread(target=sample)
    thread.start()
    try:
        yield sampled
    finally:
        is_stopped.set()
        thread.join()
