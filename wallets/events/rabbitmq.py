"""Events to RabbitMQ: a durable topic exchange, the event's type as routing key, each event confirmed.

A page of events is sent at once and its confirms are collected: one after the other would be a round trip,
and often a flush of RabbitMQ's disk, for each. The connection has a thread of its own, which keeps it alive
while nothing happens; what is not confirmed in time, or before it is lost, is not delivered.
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

REFUSED: Final = "RabbitMQ has refused the event"
LATE: Final = f"RabbitMQ has not confirmed within {BROKER_TIMEOUT_SECONDS:.0f} s"


class RabbitMQ:
    def __init__(self, url: str) -> None:
        self._parameters = _parameters(url)
        self._line: _Line | None = None

    def deliver(
        self, subscriber: Subscriber, events: Sequence[Event], suspects: Collection[UUID] = ()
    ) -> tuple[dict[str, Failure], list[Delivery]]:
        line = self._connected()
        errors = line.publish(events)
        if line.trouble:
            logger.warning("events wait for RabbitMQ: %s", line.trouble)
            self.close()
        return failures_of(events, errors), []

    def close(self) -> None:
        if self._line:
            self._line.close()
        self._line = None

    def _connected(self) -> "_Line":
        if self._line is None or self._line.trouble:
            self.close()
            self._line = _Line(self._parameters)
            self._line.start()
        return self._line


class _Line(threading.Thread):
    """A connection with a channel. Its thread alone touches them; `_changed` guards what others look at."""

    def __init__(self, parameters: pika.ConnectionParameters) -> None:
        super().__init__(name="rabbitmq", daemon=True)
        self.trouble = ""  # why it is of no use any more
        self._changed = threading.Condition()
        self._channel: Any = None  # once the exchange is there
        self._numbers = count(1)  # as the broker counts what it is sent
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
            self._give_up("the connection has ended")

    def publish(self, events: Sequence[Event]) -> dict[str, str]:
        """Why events were not confirmed, by their ids."""
        with self._changed:
            self._unconfirmed = {next(self._numbers): event.id for event in events}
            self._changed.wait_for(lambda: self._channel or self.trouble, BROKER_TIMEOUT_SECONDS)
            if self._channel and not self.trouble:
                self._loop.add_callback_threadsafe(lambda: self._send(events))
                self._changed.wait_for(lambda: not self._unconfirmed or self.trouble, BROKER_TIMEOUT_SECONDS)
            if self._unconfirmed:
                self._give_up(LATE)
            errors = dict.fromkeys(self._unconfirmed.values(), self.trouble)
            errors |= dict.fromkeys(self._refused, REFUSED)
            self._refused.clear()
            return errors

    def close(self) -> None:
        """Without waiting for it where the broker is stuck: then one of pika's timeouts ends it.

        Nor is one that is being opened disturbed, which pika does not survive.
        """
        self._give_up("closed")
        self._loop.add_callback_threadsafe(self._hang_up)
        self.join(1)

    # --- In its thread --------------------------------------------------------------------------------
    def _open_channel(self, _: Any) -> None:
        if self.trouble:
            self._hang_up()
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
            self._give_up(repr(error))

    def _on_confirm(self, frame: Any) -> None:
        """Several at once where the broker says so: all up to this one."""
        upto, is_taken = frame.method.delivery_tag, isinstance(frame.method, pika.spec.Basic.Ack)
        with self._changed:
            several = frame.method.multiple
            numbers = [*takewhile(lambda number: number <= upto, self._unconfirmed)] if several else [upto]
            ids = [self._unconfirmed.pop(number) for number in numbers]
            if not is_taken:
                self._refused.update(ids)
            if not self._unconfirmed:
                self._changed.notify_all()

    def _on_channel_closed(self, _: Any, reason: Exception) -> None:
        self._give_up(repr(reason))

    def _on_lost(self, _: Any, reason: Exception) -> None:
        self._give_up(repr(reason))
        self._loop.stop()

    def _give_up(self, why: str) -> None:
        with self._changed:
            self.trouble = self.trouble or why
            self._changed.notify_all()

    def _hang_up(self) -> None:
        if self._connection.is_open:
            self._connection.close()


def _parameters(url: str) -> pika.URLParameters:
    try:
        parameters = pika.URLParameters(url)
    except (ValueError, SyntaxError):  # they quote it, and a password may be in what they quote
        raise ImproperlyConfigured("EVENTS_BROKER_URL is no address that pika takes") from None
    if parameters.blocked_connection_timeout is None:
        parameters.blocked_connection_timeout = (
            BROKER_TIMEOUT_SECONDS  # a broker that is out of memory or disk
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
