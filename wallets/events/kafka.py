"""Events to Kafka, the wallet's id as key: those of a wallet are in one partition, in their order.

kafka://host:port,host:port?topic=…; all else that stands behind the question mark is librdkafka's, such as
security.protocol. The producer is idempotent, so its own retries double and reorder nothing. What is not
confirmed in time is taken back, and the next page is sent by a new producer.
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

LATE: Final = f"Kafka has not confirmed within {BROKER_TIMEOUT_SECONDS:.0f} s"
DEFAULTS: Final = {
    "client.id": "walletsvc",
    "partitioner": "murmur2_random",  # as Java's clients choose
    "topic.metadata.propagation.max.ms": 10_000,  # then a topic that is missing is an error, in time
    "log_level": 0,  # a line for every attempt to connect; we say it once
}
GIVEN: Final = {
    "enable.idempotence": True,
    "acks": "all",
    "message.timeout.ms": 0,  # we end them, all at once: one that ends by itself would be overtaken
}


class Kafka:
    def __init__(self, url: str) -> None:
        servers, _, query = url.removeprefix("kafka://").partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        self._topic = options.pop("topic", EXCHANGE_OR_TOPIC)
        self._settings = {
            **DEFAULTS,
            **options,
            **GIVEN,
            "bootstrap.servers": servers,
            "error_cb": self._note,
            "logger": logger,
        }
        self._trouble = ""  # the last that was heard; messages wait meanwhile, and say nothing
        self._producer: Producer | None = self._connect()

    def deliver(
        self, subscriber: Subscriber, events: Sequence[Event], suspects: Collection[UUID] = ()
    ) -> tuple[dict[str, Failure], list[Delivery]]:
        self._producer = self._producer or self._connect()
        errors = {event.id: "" for event in events}
        for event in events:
            self._send(self._producer, event, errors)
        if why := self._flush(self._producer):
            errors = {id: error or why for id, error in errors.items()}
        if errors:
            logger.warning("events wait for Kafka: %s", next(iter(errors.values())))
            self.close()
        self._trouble = self._trouble if errors else ""
        return failures_of(events, errors), []

    def close(self) -> None:
        """What is not confirmed is taken back: else it could come after what is sent later."""
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
        """`errors` loses what is confirmed."""
        try:
            producer.produce(
                self._topic,
                event.content,
                key=str(event.wallet_id),
                headers=_headers(event),
                on_delivery=partial(_report, event.id, errors),
            )
        except (KafkaException, BufferError) as error:
            errors[event.id] = str(error)

    def _flush(self, producer: Producer) -> str:
        """Wait for what is confirmed; return why the rest will not be."""
        try:
            return (self._trouble or LATE) if producer.flush(BROKER_TIMEOUT_SECONDS) else ""
        except (KafkaException, SystemError) as error:  # fatal; raised from amidst its callbacks
            return str(error.__cause__ or error)

    def _note(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # which comes after the one that says why
            self._trouble = error.str()


def _report(id: str, errors: dict[str, str], error: KafkaError | None, _: Message) -> None:
    if error is None:
        errors.pop(id, None)
    else:
        errors[id] = error.str()


def _headers(event: Event) -> list[tuple[str, Any]]:
    return [("content-type", CONTENT_TYPE), ("ce_id", event.id), ("ce_type", event.type)]
