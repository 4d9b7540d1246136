"""Send events to RabbitMQ: a durable topic exchange, the event's type as routing key, publisher confirms.

All events of a page are published before the confirms are collected: to wait for each would cost a round
trip, and often a flush of RabbitMQ's disk, per event. The connection has its own thread, which answers
heartbeats between pages. An event counts as failed if its confirm is late or the connection is lost first.
"""

import logging
import threading
from collections.abc import Collection, Sequence
from itertools import count, takewhile
from typing import Any, Final
from uuid import UUID

import pika
from django.core.exceptions import ImproperlyConfigured
from pika.exceptions import AMQPError

from wallets.events.cloudevents import CONTENT_TYPE, Event
from wallets.events.destinations import BROKER_TIMEOUT_SECONDS, EXCHANGE_OR_TOPIC, failures_of
from wallets.events.retries import Failure
from wallets.models import Delivery, Subscriber

logger = logging.getLogger(__name__)

REFUSED: Final = "RabbitMQ refused the event"
CONFIRM_TIMEOUT_ERROR: Final = f"RabbitMQ has not confirmed within {BROKER_TIMEOUT_SECONDS:.0f} s"


class RabbitMQ:
    def __init__(self, url: str) -> None:
        self._parameters = _parameters(url)
        self._active_connection: _Connection | None = None

    def deliver(
        self, subscriber: Subscriber, events: Sequence[Event], suspects: Collection[UUID] = ()
    ) -> tuple[dict[str, Failure], list[Delivery]]:
        connection = self._connected()
        errors = connection.publish(events)
        if connection.error:
            logger.warning("events not confirmed by RabbitMQ: %s", connection.error)
            self.close()
        return failures_of(events, errors), []

    def close(self) -> None:
        if self._active_connection:
            self._active_connection.close()
        self._active_connection = None

    def _connected(self) -> "_Connection":
        if self._active_connection is None or self._active_connection.error:
            self.close()
            self._active_connection = _Connection(self._parameters)
            self._active_connection.start()
        return self._active_connection


class _Connection(threading.Thread):
    """A connection with a channel, which only this thread uses; `_changed` guards the shared state."""

    def __init__(self, parameters: pika.ConnectionParameters) -> None:
        super().__init__(name="rabbitmq", daemon=True)
        self.error = ""  # why the connection is unusable; empty while it works
        self._changed = threading.Condition()
        self._channel: Any = None  # None until the exchange is declared
        self._delivery_tags = count(1)  # the broker counts the messages of a channel in the same way
        self._unconfirmed: dict[int, str] = {}
        self._refused: set[str] = set()
        self._connection = pika.SelectConnection(
            parameters,
            on_open_callback=self._open_channel,
            on_open_error_callback=self._on_lost,
            on_close_callback=self._on_lost,
        )
        self._loop = self._connection.ioloop

    def run(self) -> None:
        try:
            self._loop.start()
            self._loop.close()
        finally:
            self._fail("the connection was closed")

    def publish(self, events: Sequence[Event]) -> dict[str, str]:
        """Publish the events; return, by id, why some were not confirmed."""
        with self._changed:
            self._unconfirmed = {next(self._delivery_tags): event.id for event in events}
            self._changed.wait_for(lambda: self._channel or self.error, BROKER_TIMEOUT_SECONDS)
            if self._channel and not self.error:
                self._loop.add_callback_threadsafe(lambda: self._send(events))
                self._changed.wait_for(lambda: not self._unconfirmed or self.error, BROKER_TIMEOUT_SECONDS)
            if self._unconfirmed:
                self._fail(CONFIRM_TIMEOUT_ERROR)
            errors = dict.fromkeys(self._unconfirmed.values(), self.error)
            errors |= dict.fromkeys(self._refused, REFUSED)
            self._refused.clear()
            return errors

    def close(self) -> None:
        """Close the connection, waiting one second at most: pika's timeouts end a connection that is stuck.

        A connection that is still opening is left alone, as pika fails if it is closed then.
        """
        self._fail("closed")
        self._loop.add_callback_threadsafe(self._close_if_open)
        self.join(1)

    # --- In the connection's thread -------------------------------------------------------------------
    def _open_channel(self, _: Any) -> None:
        if self.error:
            self._close_if_open()
        else:
            self._connection.channel(on_open_callback=self._declare)

    def _declare(self, channel: Any) -> None:
        channel.add_on_close_callback(self._on_channel_closed)
        channel.confirm_delivery(self._on_confirm)
        channel.exchange_declare(
            EXCHANGE_OR_TOPIC, "topic", durable=True, callback=lambda _: self._on_ready(channel)
        )

    def _on_ready(self, channel: Any) -> None:
        with self._changed:
            self._channel = channel
            self._changed.notify_all()

    def _send(self, events: Sequence[Event]) -> None:
        try:
            for event in events:
                self._channel.basic_publish(EXCHANGE_OR_TOPIC, event.type, event.content, _properties(event))
        except AMQPError as error:
            self._fail(repr(error))

    def _on_confirm(self, frame: Any) -> None:
        """Handle a confirm; with `multiple`, it is for all tags up to its own."""
        upto, is_accepted = frame.method.delivery_tag, isinstance(frame.method, pika.spec.Basic.Ack)
        with self._changed:
            is_multiple = frame.method.multiple
            tags = [*takewhile(lambda tag: tag <= upto, self._unconfirmed)] if is_multiple else [upto]
            ids = [self._unconfirmed.pop(tag) for tag in tags]
            if not is_accepted:
                self._refused.update(ids)
            if not self._unconfirmed:
                self._changed.notify_all()

    def _on_channel_closed(self, _: Any, reason: Exception) -> None:
        self._fail(repr(reason))

    def _on_lost(self, _: Any, reason: Exception) -> None:
        self._fail(repr(reason))
        self._loop.stop()

    def _fail(self, error: str) -> None:
        with self._changed:
            self.error = self.error or error
            self._changed.notify_all()

    def _close_if_open(self) -> None:
        if self._connection.is_open:
            self._connection.close()


def _parameters(url: str) -> pika.URLParameters:
    try:
        parameters = pika.URLParameters(url)
    except (ValueError, SyntaxError):  # the message of these quotes the URL, which may contain a password
        raise ImproperlyConfigured("EVENTS_BROKER_URL is not a valid AMQP URL") from None
    if parameters.blocked_connection_timeout is None:
        parameters.blocked_connection_timeout = (
            BROKER_TIMEOUT_SECONDS  # a broker without memory or disk blocks its connections
        )
    parameters.client_properties = {"connection_name": "walletsvc"}
    return parameters


def _properties(event: Event) -> pika.BasicProperties:
    return pika.BasicProperties(
        content_type=CONTENT_TYPE,
        delivery_mode=pika.DeliveryMode.Persistent,
        message_id=event.id,
        headers={"walletId": str(event.wallet_id)},
    )
