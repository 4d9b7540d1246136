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

Make = Callable[[], Destination]

# Of RabbitMQ's exchange; of Kafka's topic, unless the URL names another.
EXCHANGE_OR_TOPIC: Final = "walletsvc.events"
BROKER_TIMEOUT_SECONDS: Final = 20.0  # seconds to connect, and as many for a page of events
MAX_ERROR_CHARACTERS: Final = 500  # characters, as a subscriber has them


def destination_for(subscriber: Subscriber) -> Make | None:
    """How to make it; None for a broker that is not configured any more: it keeps its place in the log."""
    if subscriber.kind == Subscriber.Kind.WEBHOOK:
        return Webhook
    return _broker() if subscriber.name == _broker_name() else None


def sign_up_broker() -> None:
    """The broker of EVENTS_BROKER_URL is a subscriber like the others."""
    if name := _broker_name():
        delivery_state.broker(name)


def _broker_name() -> str:
    """By its kind: where it lives may change."""
    scheme = settings.EVENTS_BROKER_URL.partition("://")[0]
    return {"amqp": "rabbitmq", "amqps": "rabbitmq"}.get(scheme, scheme)


def _broker() -> Make:
    if _broker_name() == "kafka":
        from wallets.events.kafka import Kafka

        return lambda: Kafka(settings.EVENTS_BROKER_URL)
    from wallets.events.rabbitmq import RabbitMQ

    return lambda: RabbitMQ(settings.EVENTS_BROKER_URL)


# --- What Kafka and RabbitMQ share ---
def failures_of(events: Sequence[Event], errors: Mapping[str, str]) -> dict[str, Failure]:
    """Of the events in their order: those that have an error, and all behind them in the same wallet.

    What was confirmed behind one that was not is sent again, so that it comes after it once more.
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
