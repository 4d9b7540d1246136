"""When failed deliveries are retried, and what is recorded of a failure."""

import random
from dataclasses import dataclass
from typing import Final

from wallets.models import Subscriber

# The pause after the first failure, the second, and so on; the last one repeats until EVENTS_RETRY_DAYS end.
RETRY_PAUSES_SECONDS: Final = (1, 5, 30, 120, 600, 1800, 3600, 7200, 14_400, 21_600)
MAX_BROKER_PAUSE_SECONDS: Final = 30
MAX_SUBSCRIBER_PAUSE_SECONDS: Final = 60  # for all events of a subscriber
# A pause varies by this fraction, so that events that failed together are not retried together.
JITTER_FRACTION: Final = 0.2
# The cause of one refusal may be the event or the subscriber. If events of this many wallets are refused in a
# row, with none accepted in between, the cause is the subscriber.
MIN_FAILED_WALLETS: Final = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an event was not delivered. It is untried if it follows a failed event or if delivery stopped."""

    error: str
    was_tried: bool


BEHIND: Final = Failure("an earlier event of the wallet was not delivered", was_tried=False)


def pause(failures: int, max_seconds: float = RETRY_PAUSES_SECONDS[-1]) -> float:
    """Return the seconds until the next attempt, at most `max_seconds` before jitter."""
    seconds = min(RETRY_PAUSES_SECONDS[max(0, min(failures, len(RETRY_PAUSES_SECONDS)) - 1)], max_seconds)
    return seconds * random.uniform(1 - JITTER_FRACTION, 1 + JITTER_FRACTION)  # noqa: S311


def longest_pause(subscriber: Subscriber) -> float:
    """Return the maximum seconds between two attempts to deliver the same event."""
    return MAX_BROKER_PAUSE_SECONDS if subscriber.kind == Subscriber.Kind.BROKER else RETRY_PAUSES_SECONDS[-1]
