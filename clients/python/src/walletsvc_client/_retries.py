"""Which requests are sent again, and when."""

import random
import time
from dataclasses import dataclass, field

import httpx

TOO_MANY_REQUESTS = 429
UNAVAILABLE = frozenset({502, 503, 504})  # a proxy in front of the service may send 502 and 504
# There is no response. Other errors of httpx are errors of the program.
LOST = (
    httpx.TimeoutException,
    httpx.NetworkError,
    httpx.RemoteProtocolError,
    httpx.ProxyError,
    httpx.DecodingError,
)
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
Outcome = httpx.Response | Exception  # the response, or why there is none


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and for how long a request is repeated.

    The pause before the first retry is between half of `first_pause_seconds` and the whole of it, and doubles
    each time up to `max_pause_seconds`. `Retry-After` makes it longer. No retry begins later than
    `total_seconds` after the first request.
    """

    attempts: int = 6  # requests, the first one included; 1 never retries
    total_seconds: float = 60
    first_pause_seconds: float = 0.2
    max_pause_seconds: float = 10

    def pause(self, attempt: int) -> float:
        """Return a random pause after this attempt, counted from 1."""
        longest = min(self.max_pause_seconds, self.first_pause_seconds * 2.0 ** min(attempt - 1, 60))
        return longest * random.uniform(0.5, 1)  # noqa: S311


@dataclass(slots=True)
class Attempts:
    """The attempts of one request."""

    retries: Retries
    is_repeatable: bool
    count: int = 0
    outcome_is_unknown: bool = False  # after the latest attempt
    started: float = field(default_factory=time.monotonic)

    def pause_after(self, outcome: Outcome) -> float | None:
        """Record the outcome of an attempt. Return the pause before the next one, or None if it is final."""
        self.count += 1
        self.outcome_is_unknown = _is_unknown(outcome) or (
            self.outcome_is_unknown and _decides_nothing(outcome)
        )
        if self.count >= self.retries.attempts or not self._may_repeat(outcome):
            return None
        pause = max(self.retries.pause(self.count), _retry_after(outcome))
        is_in_time = time.monotonic() + pause < self.started + self.retries.total_seconds
        return pause if is_in_time else None

    def _may_repeat(self, outcome: Outcome) -> bool:
        if not isinstance(outcome, httpx.Response):
            return self.is_repeatable or isinstance(outcome, NOT_SENT)
        if outcome.status_code == TOO_MANY_REQUESTS:
            return True  # nothing was applied
        return self.is_repeatable and outcome.status_code in UNAVAILABLE


def _is_unknown(outcome: Outcome) -> bool:
    """Whether the service may have carried out this attempt."""
    if isinstance(outcome, httpx.Response):
        return outcome.is_server_error
    return not isinstance(outcome, NOT_SENT)


def _decides_nothing(outcome: Outcome) -> bool:
    """Whether this attempt does not show what happened to the attempts before it."""
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in {401, 403, TOO_MANY_REQUESTS}
    return True


def _retry_after(outcome: Outcome) -> float:
    value = outcome.headers.get("retry-after", "") if isinstance(outcome, httpx.Response) else ""
    return float(value) if value.isascii() and value.isdecimal() else 0.0
