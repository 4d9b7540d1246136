"""What the brokers have in common."""

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from wallets.events.cloudevents import Event
from wallets.events.retries import BEHIND, Failure

NAME: Final = "walletsvc.events"  # of RabbitMQ's exchange; of Kafka's topic, unless the address has another
PATIENCE: Final = 20.0  # seconds to connect, and as many for a page of events
MOST_OF_ERROR: Final = 500  # characters, as a subscriber has them


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
            failures[event.id] = Failure(errors[event.id][:MOST_OF_ERROR], was_tried=True)
    return failures
