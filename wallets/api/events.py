"""The event stream of a wallet, as server-sent events."""

import time
from collections.abc import Iterable, Iterator
from typing import Any, Final
from uuid import UUID

from django.http import StreamingHttpResponse
from rest_framework.request import Request

from wallets.access.authentication import principal
from wallets.access.rights import visible
from wallets.api.endpoint import Endpoint
from wallets.api.examples import EVENT_STREAM
from wallets.api.openapi import Declaration, header, media
from wallets.api.renderers import EventStreamRenderer
from wallets.contract.paging import single
from wallets.contract.parsing import check
from wallets.contract.request_schemas import EventsQuery
from wallets.contract.responses import StreamEvent
from wallets.events import live
from wallets.events.live import StreamItem, Watch
from wallets.ledger import read_wallet
from wallets.problems import FieldError, ValidationError, WalletNotFound

KEEPALIVE_SECONDS: Final = 15.0  # of silence; then a comment, because proxies close idle connections
CLIENT_READ_TIMEOUT_SECONDS: Final = 10.0  # after which a client that does not read is disconnected
SHUTDOWN_CHECK_SECONDS: Final = 1.0  # between two checks whether the worker stops
MAX_EVENT_ID_DIGITS: Final = 19


class WalletEvents(Endpoint):
    """/wallets/{id}/events"""

    renderer_classes = [EventStreamRenderer]

    @Declaration(
        "streamWalletEvents",
        tag="wallets",
        query=EventsQuery,
        parameters=[
            header(
                "Last-Event-ID",
                {"type": "string", "pattern": "^[0-9]{0,18}$"},
                "The id of the last event that the client received; the stream continues after it.",
            )
        ],
        further_responses=media(200, "text/event-stream", StreamEvent, "an event", EVENT_STREAM),
        refusals=[WalletNotFound],
    )
    def get(self, request: Request, wallet_id: UUID) -> StreamingHttpResponse:
        """Follow a wallet.

        Server-sent events, each a CloudEvent (see docs/asyncapi.yaml). An event may arrive more than once,
        with the same id. The stream ends after `seconds`; a browser's EventSource reconnects with Last-Event-
        ID and misses no event. The event `gap` means that the client was disconnected for too long, or read
        too slowly: read the wallet again.
        """
        seconds = check(EventsQuery, single(request.query_params)).seconds
        since = _last_event_id(request)
        visible(principal(request), read_wallet(wallet_id))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        stream: Iterable[bytes] = ()
        if request.method != "HEAD":  # a HEAD request must not wait for events
            watch = live.tail().watch(wallet_id, since, principal(request).actor)
            stream = Stream(watch, seconds, request.META.get("gunicorn.socket"))
        return StreamingHttpResponse(stream, content_type=EventStreamRenderer.media_type, headers=headers)


def _last_event_id(request: Request) -> int | None:
    given = request.META.get("HTTP_LAST_EVENT_ID", "")
    if not given:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) < MAX_EVENT_ID_DIGITS):
        raise ValidationError(errors=[FieldError("Last-Event-ID", "invalid", "must be the id of an event")])
    return int(given)


class Stream:
    """The chunks of a stream. Closing it calls `end` also if the iteration has not begun."""

    def __init__(self, watch: Watch, seconds: int, socket: Any) -> None:
        self._watch = watch
        self._ends_at = time.monotonic() + seconds
        self._socket = socket  # the server's; Django's test client has none
        if socket is not None:
            self._former = socket.gettimeout()
            socket.settimeout(CLIENT_READ_TIMEOUT_SECONDS)

    def __iter__(self) -> Iterator[bytes]:
        yield b": hello\n\n"
        silent_since = time.monotonic()
        while True:
            if self._socket is not None:
                self._socket.flush()  # otherwise the buffered response would wait for the end
            left = max(0.0, self._ends_at - time.monotonic())
            moment = self._watch.next(min(SHUTDOWN_CHECK_SECONDS, left))
            if moment is None and (not left or getattr(self._socket, "is_worker_stopping", False)):
                return
            if moment or time.monotonic() - silent_since > KEEPALIVE_SECONDS:
                silent_since = time.monotonic()
                yield _lines(moment) if moment else b":\n\n"

    def close(self) -> None:
        self._watch.close()
        if self._socket is not None:
            self._socket.settimeout(self._former)  # the connection may serve further requests


def _lines(moment: StreamItem) -> bytes:
    if moment.event is None:
        return b"id: %d\nevent: gap\ndata: {}\n\n" % moment.position
    return b"id: %d\ndata: %s\n\n" % (moment.position, moment.event.content)
