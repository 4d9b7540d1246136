"""A crowd of connections, each with its next request at once, and not one answer left out.

wrk forgets the requests that are still waiting when its time is over. Here a connection that was left to
starve shows: every request is waited for, and the slowest counts.
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
LAST_RESPONSE_TIMEOUT_SECONDS: Final = 30.0  # seconds for the last answers after the time is over
SAMPLE_INTERVAL_SECONDS: Final = 0.25  # seconds between two looks at the database's connections


@dataclass
class Member:
    """One connection: one request at a time, and when it was sent."""

    connection: socket.socket
    sent_at: float = 0
    answer: bytes = field(default=b"", repr=False)

    def send(self, request: bytes) -> None:
        self.answer = b""
        self.sent_at = time.perf_counter()
        self.connection.sendall(request)  # smaller than any buffer

    def has_answer(self) -> bool:
        """Whether what has arrived is a whole answer. Raises OSError where the connection is over."""
        received = self.connection.recv(65536)
        if not received:
            raise ConnectionResetError
        self.answer += received
        head, end, body = self.answer.partition(b"\r\n\r\n")
        length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        return bool(end) and len(body) >= int(length or 0)

    @property
    def is_created(self) -> bool:
        return self.answer.startswith(b"HTTP/1.1 201 ")


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
                member = Member(connection)
                self._selector.register(connection, selectors.EVENT_READ, member)
                member.send(self._request)
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
                self._hear(key.data, goes_on=now < until)
            if now > until + LAST_RESPONSE_TIMEOUT_SECONDS:
                self._give_up(now)

    def _hear(self, member: Member, goes_on: bool) -> None:
        try:
            if not member.has_answer():
                return
            self._record(member, failed=not member.is_created)
            if goes_on:
                member.send(self._request)
            else:
                self._selector.unregister(member.connection)
        except OSError:
            self._record(member, failed=True)
            self._selector.unregister(member.connection)

    def _give_up(self, now: float) -> None:
        for key in list(self._selector.get_map().values()):
            self._record(key.data, failed=True)
            self._selector.unregister(key.fileobj)

    def _record(self, member: Member, failed: bool) -> None:
        self._latencies.append((time.perf_counter() - member.sent_at) * 1000)
        self._failures += failed


@dataclass
class Sampled:
    most: int = 0


@contextmanager
def database_connections(url: str) -> Iterator[Sampled]:
    """Return the highest number of connections of the service that the database has reported."""
    sampled, is_over = Sampled(), Event()

    def sample() -> None:
        with psycopg.connect(url, autocommit=True) as db:
            while not is_over.wait(SAMPLE_INTERVAL_SECONDS):
                row = db.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'walletsvc'"
                ).fetchone()
                sampled.most = max(sampled.most, row[0] if row else 0)

    thread = Thread(target=sample)
    thread.start()
    try:
        yield sampled
    finally:
        is_over.set()
        thread.join()
