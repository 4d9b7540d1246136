"""Which destination serves whom."""

from collections.abc import Callable

from django.conf import settings

from wallets.events import subscribers
from wallets.events.relay import Destination
from wallets.events.webhooks import Webhook
from wallets.models import Subscriber

Make = Callable[[], Destination]


def destination_for(subscriber: Subscriber) -> Make | None:
    """How to make it; None for a broker that is not configured any more: it keeps its place in the log."""
    if subscriber.kind == Subscriber.Kind.WEBHOOK:
        return Webhook
    return _broker() if subscriber.name == _broker_name() else None


def sign_up_broker() -> None:
    """The broker of EVENTS_BROKER_URL is a subscriber like the others."""
    if name := _broker_name():
        subscribers.broker(name)


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
