"""When a delivery that failed is tried again, and what a failure says."""

import random
from dataclasses import dataclass
from typing import Final

from wallets.models import Subscriber

# Seconds until the next attempt, after so many failures; from then on the last, until RETRY_DAYS are over.
RETRY_PAUSES_SECONDS: Final = (1, 5, 30, 120, 600, 1800, 3600, 7200, 14_400, 21_600)
MAX_BROKER_PAUSE_SECONDS: Final = 30
MAX_SUBSCRIBER_PAUSE_SECONDS: Final = 60  # seconds for which a whole subscriber is paused
JITTER_FRACTION: Final = 0.2  # of a pause, more or less: those that failed together do not come back together
# One refusal may be the event's fault or the subscriber's. Refusals of so many wallets in a row, with nothing
# taken in between, count as the subscriber's.
MIN_FAILED_WALLETS: Final = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an event was not delivered. It was not tried where it waits behind another, or for better times."""

    error: str
    was_tried: bool


BEHIND: Final = Failure("an earlier event of the wallet waits", was_tried=False)


def pause(failures: int, longest: float = RETRY_PAUSES_SECONDS[-1]) -> float:
    """Seconds until the next attempt."""
    exact = min(RETRY_PAUSES_SECONDS[max(0, min(failures, len(RETRY_PAUSES_SECONDS)) - 1)], longest)
    return exact * random.uniform(1 - JITTER_FRACTION, 1 + JITTER_FRACTION)  # noqa: S311


def longest_pause(subscriber: Subscriber) -> float:
    """Seconds between two attempts of the same event, at most."""
    return MAX_BROKER_PAUSE_SECONDS if subscriber.kind == Subscriber.Kind.BROKER else RETRY_PAUSES_SECONDS[-1]
