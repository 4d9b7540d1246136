"""Events by HTTP, by the rules of Standard Webhooks (standardwebhooks.com): signed, dated, each with an id.

The address that was checked (target_policy.py) is the one that is connected to; nobody is redirected.
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
from typing import Final
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

MAX_REQUEST_BYTES: Final = 256 * 1024  # of a request; one event is far below
SUCCESS: Final = range(200, 300)
MAX_KEPT_RESPONSE_CHARACTERS: Final = 500  # characters of an answer that are kept
REQUEST_TIMEOUT_SECONDS: Final = 10.0  # seconds for a request as a whole, its answer read
MAX_PAGE_SECONDS: Final = (
    10.0  # seconds after which a page begins no request: a signal or an operator is to be heard
)
MAX_CONCURRENT_REQUESTS: Final = 8  # requests under way for one subscriber; those of a wallet never overlap
BATCH: Final = "application/cloudevents-batch+json"

MAX_ADDRESSES_PER_HOST: Final = 3  # of a host, that are tried one after the other

_Place = tuple[str, str, int]  # scheme, host, port
UNTRIED: Final = Failure("the receiver takes nothing", was_tried=False)
LATER: Final = Failure("the receiver takes long", was_tried=False)


# --- Signing ----------------------------------------------------------------------------------------
def new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def _secrets(subscriber: Subscriber) -> list[str]:
    """Those that sign: after a rotation the former one as well, until the receiver has had time."""
    is_former_valid = subscriber.former_secret_until and subscriber.former_secret_until > now()
    return [subscriber.secret, *([subscriber.former_secret] if is_former_valid else [])]


# --- Sending ----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Message:
    """What one request carries."""

    events: tuple[Event, ...]
    is_batch: bool

    @property
    def id(self) -> str:
        """The same for the same content, and for no other: who has seen it passes it over."""
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
        self._idle: deque[tuple[_Place, HTTPConnection]] = deque()

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
        """Send an event that means nothing; return what became of it, recorded as every delivery is."""
        delivery = self._send(subscriber, _Message((test_event(),), subscriber.batch > 1))
        delivery.save(force_insert=True)
        return delivery

    def _send(self, subscriber: Subscriber, message: _Message) -> Delivery:
        """One request; an error is told in the delivery."""
        began, clock = now(), time.monotonic()
        status, response, error = None, "", ""
        try:
            status, response = self._post(subscriber.url, _headers(subscriber, message), message.body)
            if status not in SUCCESS:
                error = f"answered {status}"
        except (OSError, HTTPError, HTTPException, ValueError) as problem:
            error = _printable(f"{type(problem).__name__}: {problem}")[:MAX_KEPT_RESPONSE_CHARACTERS]
        return Delivery(
            subscriber=subscriber,
            event_id=message.events[0].id,
            events=len(message.events),
            at=began,
            duration=timedelta(seconds=time.monotonic() - clock),
            status_code=status,
            error=error,
            response=response,
        )

    def _post(self, url: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
        check_url(url)
        parts = urlsplit(url)
        assert parts.hostname  # noqa: S101
        place = (parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        addresses = resolve(*place[1:])
        target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        headers = {"Host": parts.netloc, **headers}
        if connection := self._take_idle(place, addresses):
            # Closed meanwhile: what has not been answered is sent again.
            with suppress(ConnectionError, ssl.SSLError):
                return self._ask(place, connection, target, headers, body)
        *others, last = addresses[:MAX_ADDRESSES_PER_HOST]
        patience = REQUEST_TIMEOUT_SECONDS / (len(others) + 1)
        for address in others:
            with suppress(ConnectTimeoutError):  # nobody is there
                return self._ask(place, _to(place, address, patience), target, headers, body)
        return self._ask(place, _to(place, last, patience), target, headers, body)

    def _ask(
        self, place: _Place, connection: HTTPConnection, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, str]:
        text, is_reusable = "", False
        try:
            with _cut_off(connection):
                if not connection.is_connected:
                    connection.connect()
                    connection.timeout = REQUEST_TIMEOUT_SECONDS
                connection.request("POST", target, body, headers, preload_content=False)
                response = connection.getresponse()
                # It has answered: whatever becomes of the rest, it is for the eye.
                with suppress(OSError, HTTPError, HTTPException):
                    text = _printable(
                        response.read(MAX_KEPT_RESPONSE_CHARACTERS, decode_content=False).decode(
                            errors="replace"
                        )
                    )
                    is_reusable = response.read(1) == b"" and not connection.is_closed
        finally:
            if is_reusable:
                self._idle.append((place, connection))
            else:
                connection.close()
        return response.status, text

    def _take_idle(self, place: _Place, addresses: Sequence[str]) -> HTTPConnection | None:
        """A connection that was kept, to any of them: a name may have them in another order each time."""
        with suppress(IndexError):
            while True:
                kept, connection = self._idle.popleft()
                if kept == place and connection.host in addresses and connection.is_connected:
                    return connection
                connection.close()
        return None


class _Attempt:
    """One delivery of a page of events: chain by chain, several at once."""

    def __init__(self, subscriber: Subscriber, send: Callable[[Subscriber, _Message], Delivery]) -> None:
        self._subscriber = subscriber
        self._send = send
        self._lock = threading.Lock()
        self._failed_wallets_in_a_row = 0
        self._until = time.monotonic() + MAX_PAGE_SECONDS
        self.failures: dict[str, Failure] = {}
        self.deliveries: list[Delivery] = []

    def deliver_chain(self, chain: Sequence[_Message]) -> None:
        """Messages in their order; after an event that fails, none of the same wallet."""
        stuck: set[UUID] = set()
        for message in chain:
            if wanted := self._without(stuck, message):
                stuck |= self._deliver(wanted)

    def _without(self, stuck: set[UUID], message: _Message) -> _Message | None:
        behind = [event for event in message.events if event.wallet_id in stuck]
        self._fail(behind, BEHIND)
        events = tuple(event for event in message.events if event not in behind) if behind else message.events
        return replace(message, events=events) if events else None

    def _deliver(self, message: _Message) -> set[UUID]:
        """Send it; return the wallets that are stuck with it. Of a batch that fails, each event by itself."""
        failure = self._why_not() or self._try(message)
        if failure is None:
            return set()
        if len(message.events) > 1 and failure.was_tried and not self._why_not():
            singles = [replace(message, events=(event,)) for event in message.events]
            stuck: set[UUID] = set()
            for single in singles:
                if wanted := self._without(stuck, single):
                    stuck |= self._deliver(wanted)
            return stuck
        self._fail(message.events, failure)
        return {event.wallet_id for event in message.events}

    def _why_not(self) -> Failure | None:
        """Why nothing more is tried."""
        if self._failed_wallets_in_a_row >= MIN_FAILED_WALLETS or not self._subscriber.is_enabled:
            return UNTRIED
        return LATER if time.monotonic() > self._until else None

    def _try(self, message: _Message) -> Failure | None:
        delivery = self._send(self._subscriber, message)
        with self._lock:
            self.deliveries.append(delivery)
            if not delivery.error:
                self._failed_wallets_in_a_row = 0
            elif len(message.events) == 1:  # which event of a batch it was, its single ones show
                self._failed_wallets_in_a_row += 1
            if delivery.status_code == HTTPStatus.GONE:
                self._subscriber.is_enabled = False
        return Failure(delivery.error, was_tried=True) if delivery.error else None

    def _fail(self, events: Sequence[Event], failure: Failure) -> None:
        with self._lock:
            self.failures.update((event.id, failure) for event in events)


def _chains(events: Sequence[Event], batch: int, suspects: Collection[UUID]) -> list[list[_Message]]:
    """The events in messages: each chain in its order, several at once.

    Without batches, there is a chain for each wallet. With batches, which mix wallets, there is one chain for
    all, and one for each of the `suspects`: all events of a batch fail that is not answered in time.
    """
    by_wallet: dict[UUID | None, list[Event]] = defaultdict(list)
    for event in events:
        by_wallet[event.wallet_id if batch == 1 or event.wallet_id in suspects else None].append(event)
    if batch > 1:
        return [_batches(chain, batch) for chain in by_wallet.values()]
    return [[_Message((event,), is_batch=False) for event in chain] for chain in by_wallet.values()]


def _batches(events: Sequence[Event], most: int) -> list[_Message]:
    batches: list[list[Event]] = [[]]
    size = len("[")
    for event in events:
        size += len(event.content) + len(",")
        if batches[-1] and (len(batches[-1]) == most or size > MAX_REQUEST_BYTES):
            batches.append([])
            size = len("[") + len(event.content) + len(",")
        batches[-1].append(event)
    return [_Message(tuple(each), is_batch=True) for each in batches if each]


def _printable(text: str) -> str:
    """PostgreSQL takes no NUL, and an operator's terminal no control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _headers(subscriber: Subscriber, message: _Message) -> dict[str, str]:
    timestamp, body = now(), message.body.decode()
    signatures = [Signer(secret).sign(message.id, timestamp, body) for secret in _secrets(subscriber)]
    return {
        "Content-Type": BATCH if message.is_batch else CONTENT_TYPE,
        "User-Agent": "walletsvc",
        "Webhook-Id": message.id,
        "Webhook-Timestamp": str(int(timestamp.timestamp())),
        "Webhook-Signature": " ".join(signatures),
    }


# --- Connections ------------------------------------------------------------------------------------
@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _to(place: _Place, address: str, patience: float) -> HTTPConnection:
    """To the address, in the name of the host. Not connected yet: for that it has so many seconds."""
    scheme, host, port = place
    if scheme == "http":
        return HTTPConnection(address, port, timeout=patience)
    # Not `assert_hostname`: urllib3 would switch off in the context, which all share, that OpenSSL checks it.
    return HTTPSConnection(address, port, timeout=patience, ssl_context=_tls(), server_hostname=host)


@contextmanager
def _cut_off(connection: HTTPConnection) -> Iterator[None]:
    """Allow PATIENCE seconds for connecting, the request and its response together."""
    began = time.monotonic()
    try:
        with cut_off_after(REQUEST_TIMEOUT_SECONDS, lambda: _shut_down(connection)):
            yield
    except (OSError, HTTPError, HTTPException):
        if time.monotonic() < began + REQUEST_TIMEOUT_SECONDS:
            raise
        raise TimeoutError(f"no whole answer within {REQUEST_TIMEOUT_SECONDS:.0f} s") from None


def _shut_down(connection: HTTPConnection) -> None:
    with suppress(OSError, TypeError):  # not connected yet, or not any more
        # Not TLS's own shutdown: it would take away what the other thread reads from.
        socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
