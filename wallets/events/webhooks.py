"""Send events over HTTP, as Standard Webhooks (standardwebhooks.com) requires: with id, time and signature.

A request connects to the address that was checked (target_policy.py), and follows no redirect.
"""

import base64
import hashlib
import secrets
import socket
import ssl
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from http import HTTPStatus
from http.client import HTTPException
from typing import Final, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

from django.utils.timezone import now
from standardwebhooks import Webhook as Signer
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError

from wallets.events.cloudevents import CONTENT_TYPE, Event, test_event
from wallets.events.retries import BEHIND, MIN_FAILED_WALLETS, Failure
from wallets.events.target_policy import check_url, resolve
from wallets.models import Delivery, Subscriber
from wallets.watchdog import cut_off_after

MAX_REQUEST_BYTES: Final = 256 * 1024  # of a request body; a single event is much smaller
SUCCESS_STATUSES: Final = range(200, 300)
REDIRECT_STATUSES: Final = range(300, 400)
MAX_SHOWN_LOCATION_CHARACTERS: Final = 200
MAX_KEPT_RESPONSE_CHARACTERS: Final = 500  # of a response body or an error
REQUEST_TIMEOUT_SECONDS: Final = 10.0  # for a whole request, with its response read
# After this time a page begins no request, so that the relay can stop or see an operator's change.
MAX_PAGE_SECONDS: Final = 10.0
MAX_CONCURRENT_REQUESTS: Final = 8  # of one subscriber; those of one wallet never overlap
BATCH_CONTENT_TYPE: Final = "application/cloudevents-batch+json"

MAX_ADDRESSES_PER_HOST: Final = 3  # of a host, tried in turn

_Endpoint = tuple[str, str, int]  # scheme, host, port
NOT_ACCEPTING: Final = Failure("the receiver accepts no events", was_tried=False)
SLOW: Final = Failure("the receiver is slow", was_tried=False)


class _Response(NamedTuple):
    """The response of a receiver."""

    status: int
    text: str  # the beginning of its body
    location: str

    def error(self) -> str:
        """Return why the receiver did not accept the request; empty if it did."""
        if self.status in SUCCESS_STATUSES:
            return ""
        if self.status in REDIRECT_STATUSES and self.location:
            location = _printable(self.location)[:MAX_SHOWN_LOCATION_CHARACTERS]
            return f"answered {self.status}: redirects are not followed; it pointed to {location}"
        return f"answered {self.status}"


# --- Signing ----------------------------------------------------------------------------------------
def new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def _secrets(subscriber: Subscriber) -> list[str]:
    """Return the secrets to sign with: for some time after a rotation, the former one too."""
    is_former_valid = subscriber.former_secret_until and subscriber.former_secret_until > now()
    return [subscriber.secret, *([subscriber.former_secret] if is_former_valid else [])]


# --- Sending ----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Message:
    """The content of one request."""

    events: tuple[Event, ...]
    is_batch: bool

    @property
    def id(self) -> str:
        """Identify the content: a retry of the same events has the same id, so the receiver can ignore it."""
        if not self.is_batch:
            return self.events[0].id
        ids = "\n".join(event.id for event in self.events)
        return f"batch:{hashlib.sha256(ids.encode()).hexdigest()[:32]}"

    @property
    def body(self) -> bytes:
        contents = [event.content for event in self.events]
        return b"[" + b",".join(contents) + b"]" if self.is_batch else contents[0]


class Webhook:
    """The destination of one subscriber."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MAX_CONCURRENT_REQUESTS, thread_name_prefix="webhook")
        self._idle: deque[tuple[_Endpoint, HTTPConnection]] = deque()

    def deliver(
        self, subscriber: Subscriber, events: Sequence[Event], suspects: Collection[UUID] = ()
    ) -> tuple[dict[str, Failure], list[Delivery]]:
        attempt = _Attempt(subscriber, self._send)
        list(self._threads.map(attempt.deliver_chain, _chains(events, subscriber.batch, suspects)))
        return attempt.failures, attempt.deliveries

    def close(self) -> None:
        self._threads.shutdown()
        while self._idle:
            self._idle.pop()[1].close()

    def test(self, subscriber: Subscriber) -> Delivery:
        """Send a test event; return the delivery, which is recorded like any other."""
        delivery = self._send(subscriber, _Message((test_event(),), subscriber.batch > 1))
        delivery.save(force_insert=True)
        return delivery

    def _send(self, subscriber: Subscriber, message: _Message) -> Delivery:
        """Send one request; an error is recorded in the delivery, not raised."""
        started_at, started_monotonic = now(), time.monotonic()
        status, response, error = None, "", ""
        try:
            answer = self._post(subscriber.url, _headers(subscriber, message), message.body)
            status, response = answer.status, answer.text
            error = answer.error()
        except (OSError, HTTPError, HTTPException, ValueError) as problem:
            error = _printable(f"{type(problem).__name__}: {problem}")[:MAX_KEPT_RESPONSE_CHARACTERS]
        return Delivery(
            subscriber=subscriber,
            event_id=message.events[0].id,
            events=len(message.events),
            at=started_at,
            duration=timedelta(seconds=time.monotonic() - started_monotonic),
            status_code=status,
            error=error,
            response=response,
        )

    def _post(self, url: str, headers: dict[str, str], body: bytes) -> _Response:
        check_url(url)
        parts = urlsplit(url)
        assert parts.hostname  # noqa: S101
        endpoint = (parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        addresses = resolve(*endpoint[1:])
        target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        headers = {"Host": parts.netloc, **headers}
        if connection := self._take_idle(endpoint, addresses):
            # The receiver may have closed the idle connection: then send the request over a new one.
            with suppress(ConnectionError, ssl.SSLError):
                return self._request(endpoint, connection, target, headers, body)
        *others, last = addresses[:MAX_ADDRESSES_PER_HOST]
        connect_timeout_seconds = REQUEST_TIMEOUT_SECONDS / (len(others) + 1)
        for address in others:
            with suppress(ConnectTimeoutError):  # this address accepts no connection: try the next one
                return self._request(
                    endpoint,
                    _connection_to(endpoint, address, connect_timeout_seconds),
                    target,
                    headers,
                    body,
                )
        return self._request(
            endpoint, _connection_to(endpoint, last, connect_timeout_seconds), target, headers, body
        )

    def _request(
        self,
        endpoint: _Endpoint,
        connection: HTTPConnection,
        target: str,
        headers: dict[str, str],
        body: bytes,
    ) -> _Response:
        text, is_reusable = "", False
        try:
            with _time_limited(connection):
                if not connection.is_connected:
                    connection.connect()
                    connection.timeout = REQUEST_TIMEOUT_SECONDS
                connection.request("POST", target, body, headers, preload_content=False)
                response = connection.getresponse()
                # The status decides; the body is only shown to users, so errors in it do not matter.
                with suppress(OSError, HTTPError, HTTPException):
                    text = _printable(
                        response.read(MAX_KEPT_RESPONSE_CHARACTERS, decode_content=False).decode(
                            errors="replace"
                        )
                    )
                    is_reusable = response.read(1) == b"" and not connection.is_closed
        finally:
            if is_reusable:
                self._idle.append((endpoint, connection))
            else:
                connection.close()
        return _Response(response.status, text, response.headers.get("Location", ""))

    def _take_idle(self, endpoint: _Endpoint, addresses: Sequence[str]) -> HTTPConnection | None:
        """Return an idle connection to any of the addresses: their order may differ from call to call."""
        with suppress(IndexError):
            while True:
                idle_endpoint, connection = self._idle.popleft()
                if idle_endpoint == endpoint and connection.host in addresses and connection.is_connected:
                    return connection
                connection.close()
        return None


class _Attempt:
    """One delivery of a page of events, in chains of messages, of which several run at once."""

    def __init__(self, subscriber: Subscriber, send: Callable[[Subscriber, _Message], Delivery]) -> None:
        self._subscriber = subscriber
        self._send = send
        self._lock = threading.Lock()
        self._failed_wallets_in_a_row = 0
        self._deadline = time.monotonic() + MAX_PAGE_SECONDS
        self.failures: dict[str, Failure] = {}
        self.deliveries: list[Delivery] = []

    def deliver_chain(self, chain: Sequence[_Message]) -> None:
        """Send the messages in order; after an event fails, send no later one of its wallet."""
        failed_wallets: set[UUID] = set()
        for message in chain:
            if remaining := self._without_wallets(failed_wallets, message):
                failed_wallets |= self._deliver(remaining)

    def _without_wallets(self, failed_wallets: set[UUID], message: _Message) -> _Message | None:
        behind = [event for event in message.events if event.wallet_id in failed_wallets]
        self._fail(behind, BEHIND)
        events = tuple(event for event in message.events if event not in behind) if behind else message.events
        return replace(message, events=events) if events else None

    def _deliver(self, message: _Message) -> set[UUID]:
        """Send a message; return the wallets that failed. If a batch fails, send each of its events alone."""
        failure = self._stop_reason() or self._send_and_count(message)
        if failure is None:
            return set()
        if len(message.events) > 1 and failure.was_tried and not self._stop_reason():
            singles = [replace(message, events=(event,)) for event in message.events]
            failed_wallets: set[UUID] = set()
            for single in singles:
                if remaining := self._without_wallets(failed_wallets, single):
                    failed_wallets |= self._deliver(remaining)
            return failed_wallets
        self._fail(message.events, failure)
        return {event.wallet_id for event in message.events}

    def _stop_reason(self) -> Failure | None:
        """Return why no further request is sent, or None."""
        if self._failed_wallets_in_a_row >= MIN_FAILED_WALLETS or not self._subscriber.is_enabled:
            return NOT_ACCEPTING
        return SLOW if time.monotonic() > self._deadline else None

    def _send_and_count(self, message: _Message) -> Failure | None:
        delivery = self._send(self._subscriber, message)
        with self._lock:
            self.deliveries.append(delivery)
            if not delivery.error:
                self._failed_wallets_in_a_row = 0
            elif len(message.events) == 1:  # a failed batch is sent again as single events, which are counted
                self._failed_wallets_in_a_row += 1
            if delivery.status_code == HTTPStatus.GONE:
                self._subscriber.is_enabled = False
        return Failure(delivery.error, was_tried=True) if delivery.error else None

    def _fail(self, events: Sequence[Event], failure: Failure) -> None:
        with self._lock:
            self.failures.update((event.id, failure) for event in events)


def _chains(events: Sequence[Event], batch: int, suspects: Collection[UUID]) -> list[list[_Message]]:
    """Group the events into messages, and the messages into chains, which may run concurrently.

    Without batches, each wallet has a chain. With batches, which mix wallets, there is one chain for all
    wallets, and one for each of the `suspects`, as one slow event makes its whole batch fail.
    """
    by_wallet: dict[UUID | None, list[Event]] = defaultdict(list)
    for event in events:
        by_wallet[event.wallet_id if batch == 1 or event.wallet_id in suspects else None].append(event)
    if batch > 1:
        return [_batches(chain, batch) for chain in by_wallet.values()]
    return [[_Message((event,), is_batch=False) for event in chain] for chain in by_wallet.values()]


def _batches(events: Sequence[Event], max_events: int) -> list[_Message]:
    batches: list[list[Event]] = [[]]
    size = len("[")
    for event in events:
        size += len(event.content) + len(",")
        if batches[-1] and (len(batches[-1]) == max_events or size > MAX_REQUEST_BYTES):
            batches.append([])
            size = len("[") + len(event.content) + len(",")
        batches[-1].append(event)
    return [_Message(tuple(each), is_batch=True) for each in batches if each]


def _printable(text: str) -> str:
    """Replace control characters: PostgreSQL rejects NUL, and others could change an operator's terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _headers(subscriber: Subscriber, message: _Message) -> dict[str, str]:
    timestamp, body = now(), message.body.decode()
    signatures = [Signer(secret).sign(message.id, timestamp, body) for secret in _secrets(subscriber)]
    return {
        "Content-Type": BATCH_CONTENT_TYPE if message.is_batch else CONTENT_TYPE,
        "User-Agent": "walletsvc",
        "Webhook-Id": message.id,
        "Webhook-Timestamp": str(int(timestamp.timestamp())),
        "Webhook-Signature": " ".join(signatures),
    }


# --- Connections ------------------------------------------------------------------------------------
@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _connection_to(endpoint: _Endpoint, address: str, connect_timeout_seconds: float) -> HTTPConnection:
    """Make an unconnected connection to the address, with the host's name for TLS."""
    scheme, host, port = endpoint
    if scheme == "http":
        return HTTPConnection(address, port, timeout=connect_timeout_seconds)
    # Not `assert_hostname`: with it, urllib3 disables OpenSSL's own check in the context, which all share.
    return HTTPSConnection(
        address, port, timeout=connect_timeout_seconds, ssl_context=_tls(), server_hostname=host
    )


@contextmanager
def _time_limited(connection: HTTPConnection) -> Iterator[None]:
    """Shut down the connection if connecting, request and response exceed REQUEST_TIMEOUT_SECONDS."""
    started = time.monotonic()
    try:
        with cut_off_after(REQUEST_TIMEOUT_SECONDS, lambda: _shut_down(connection)):
            yield
    except (OSError, HTTPError, HTTPException):
        if time.monotonic() < started + REQUEST_TIMEOUT_SECONDS:
            raise
        raise TimeoutError(f"no complete response within {REQUEST_TIMEOUT_SECONDS:.0f} s") from None


def _shut_down(connection: HTTPConnection) -> None:
    with suppress(OSError, TypeError):  # not connected, or already closed
        # Not SSLSocket.shutdown: it would remove the TLS object that the other thread is reading from.
        socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
