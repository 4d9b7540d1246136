"""Send events to Kafka with the wallet's id as key: one partition has a wallet's events, in order.

The URL is kafka://host:port,host:port?topic=…; its other query parameters are options of librdkafka, such as
security.protocol. The producer is idempotent, so its own retries neither duplicate nor reorder messages.
Unconfirmed messages are purged after a timeout, and a new producer sends the next page.
"""

import logging
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl
from uuid import UUID

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from django.core.exceptions import ImproperlyConfigured

from wallets.events.cloudevents import CONTENT_TYPE, Event
from wallets.events.destinations import BROKER_TIMEOUT_SECONDS, EXCHANGE_OR_TOPIC, failures_of
from wallets.events.retries import Failure
from wallets.models import Delivery, Subscriber

logger = logging.getLogger(__name__)

CONFIRM_TIMEOUT_ERROR: Final = f"Kafka has not confirmed within {BROKER_TIMEOUT_SECONDS:.0f} s"
DEFAULT_OPTIONS: Final = {
    "client.id": "walletsvc",
    "partitioner": "murmur2_random",  # the partitioner of the Java client
    "topic.metadata.propagation.max.ms": 10_000,  # reports a missing topic before our own timeout
    "log_level": 0,  # librdkafka would log each attempt to connect; walletsvc logs once
}
FIXED_OPTIONS: Final = {
    "enable.idempotence": True,
    "acks": "all",
    "message.timeout.ms": 0,  # close() purges all at once: if one expired alone, later ones would overtake it
}


class Kafka:
    def __init__(self, url: str) -> None:
        servers, _, query = url.removeprefix("kafka://").partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        self._topic = options.pop("topic", EXCHANGE_OR_TOPIC)
        self._settings = {
            **DEFAULT_OPTIONS,
            **options,
            **FIXED_OPTIONS,
            "bootstrap.servers": servers,
            "error_cb": self._on_error,
            "logger": logger,
        }
        self._connection_error = ""  # the last error of the connection; queued messages report none
        self._producer: Producer | None = self._connect()

    def deliver(
        self, subscriber: Subscriber, events: Sequence[Event], suspects: Collection[UUID] = ()
    ) -> tuple[dict[str, Failure], list[Delivery]]:
        self._producer = self._producer or self._connect()
        errors = {event.id: "" for event in events}
        for event in events:
            self._send(self._producer, event, errors)
        if flush_error := self._flush(self._producer):
            errors = {id: error or flush_error for id, error in errors.items()}
        if errors:
            logger.warning("events not confirmed by Kafka: %s", next(iter(errors.values())))
            self.close()
        self._connection_error = self._connection_error if errors else ""
        return failures_of(events, errors), []

    def close(self) -> None:
        """Purge unconfirmed messages: otherwise they could arrive after later ones."""
        producer, self._producer = self._producer, None
        if producer:
            producer.purge()
            producer.close()

    def _connect(self) -> Producer:
        try:
            return Producer(self._settings)
        except KafkaException as error:
            raise ImproperlyConfigured(f"EVENTS_BROKER_URL: {error.args[0].str()}") from None

    def _send(self, producer: Producer, event: Event, errors: dict[str, str]) -> None:
        """Queue the event; its confirmation removes its id from `errors`."""
        try:
            producer.produce(
                self._topic,
                event.content,
                key=str(event.wallet_id),
                headers=_headers(event),
                on_delivery=partial(_on_delivery, event.id, errors),
            )
        except (KafkaException, BufferError) as error:
            errors[event.id] = str(error)

    def _flush(self, producer: Producer) -> str:
        """Wait for confirmations; return why some are missing, or an empty text."""
        try:
            return (
                (self._connection_error or CONFIRM_TIMEOUT_ERROR)
                if producer.flush(BROKER_TIMEOUT_SECONDS)
                else ""
            )
        except (KafkaException, SystemError) as error:  # a fatal error, raised inside a callback
            return str(error.__cause__ or error)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # follows the error that has the cause
            self._connection_error = error.str()


def _on_delivery(id: str, errors: dict[str, str], error: KafkaError | None, _: Message) -> None:
    if error is None:
        errors.pop(id, None)
    else:
        errors[id] = error.str()


def _headers(event: Event) -> list[tuple[str, Any]]:
    return [("content-type", CONTENT_TYPE), ("ce_id", event.id), ("ce_type", event.type)]
