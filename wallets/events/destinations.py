"""The destination of each subscriber: a webhook, or the broker of EVENTS_BROKER_URL."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final
from uuid import UUID

from django.conf import settings

from wallets.events import delivery_state
from wallets.events.cloudevents import Event
from wallets.events.relay import Destination
from wallets.events.retries import BEHIND, Failure
from wallets.events.webhooks import Webhook
from wallets.models import Subscriber

DestinationFactory = Callable[[], Destination]

# The name of RabbitMQ's exchange and of Kafka's topic, unless the Kafka URL names another.
EXCHANGE_OR_TOPIC: Final = "walletsvc.events"
BROKER_TIMEOUT_SECONDS: Final = 20.0  # to connect, and again for a page of events
MAX_ERROR_CHARACTERS: Final = 500  # the size of the column last_error


def destination_for(subscriber: Subscriber) -> DestinationFactory | None:
    """Return the factory of the subscriber's destination.

    None if its broker is no longer configured: the subscriber keeps its position in the log.
    """
    if subscriber.kind == Subscriber.Kind.WEBHOOK:
        return Webhook
    return _broker() if subscriber.name == _broker_name() else None


def sign_up_broker() -> None:
    """Create the subscriber of the broker in EVENTS_BROKER_URL, if there is none yet."""
    if name := _broker_name():
        delivery_state.broker(name)


def _broker_name() -> str:
    """Name the broker by its kind: its host may change."""
    scheme = settings.EVENTS_BROKER_URL.partition("://")[0]
    return {"amqp": "rabbitmq", "amqps": "rabbitmq"}.get(scheme, scheme)


def _broker() -> DestinationFactory:
    if _broker_name() == "kafka":
        from wallets.events.kafka import Kafka

        return lambda: Kafka(settings.EVENTS_BROKER_URL)
    from wallets.events.rabbitmq import RabbitMQ

    return lambda: RabbitMQ(settings.EVENTS_BROKER_URL)


# --- What Kafka and RabbitMQ share ---
def failures_of(events: Sequence[Event], errors: Mapping[str, str]) -> dict[str, Failure]:
    """Return the failures of `events`: each event with an error, and all later events of its wallet.

    A confirmed event after an unconfirmed one of its wallet is sent again, to keep the wallet's order.
    """
    failures: dict[str, Failure] = {}
    stuck: set[UUID] = set()
    for event in events:
        if event.wallet_id in stuck:
            failures[event.id] = BEHIND
        elif event.id in errors:
            stuck.add(event.wallet_id)
            failures[event.id] = Failure(errors[event.id][:MAX_ERROR_CHARACTERS], was_tried=True)
    return failures
