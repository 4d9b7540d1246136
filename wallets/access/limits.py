"""How often somebody may ask. All processes count together, in the database; no limit costs nothing.

The count is of fixed windows: one row for each subject, one statement for all requests in flight.
Source of the fields: draft-ietf-httpapi-ratelimit-headers.
"""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final

from django.conf import settings
from django.db import connection
from django.http import HttpRequest

from wallets.access.rights import Principal
from wallets.batching import Batcher, once
from wallets.database_retry import run_as_one_call
from wallets.problems import TooManyRequests
from walletsvc.environment import Rate

# Requests, by who sends them.
KEY: Final = "key"
USER: Final = "user"
ADDRESS: Final = "address"
# Attempts, by the address they come from.
LOGIN: Final = "login"
SIGNUP: Final = "signup"
RESET: Final = "reset"  # mails with a link, by kind and the address they go to

IPV6_PREFIX_BITS: Final = 64  # bits: what one customer of a network has
SWEEP_INTERVAL_SECONDS: Final = 600.0  # seconds between two looks for windows that are over


@dataclass(frozen=True, slots=True)
class RateLimitState:
    """What is left of a limit."""

    name: str
    rate: Rate
    hits: int
    reset: int  # seconds until the window is over

    @property
    def is_over(self) -> bool:
        return self.hits > self.rate.hits

    @property
    def headers(self) -> dict[str, str]:
        left = max(0, self.rate.hits - self.hits)
        return {
            "RateLimit-Policy": f'"{self.name}";q={self.rate.hits};w={self.rate.seconds}',
            "RateLimit": f'"{self.name}";r={left};t={self.reset}',
        }


def require(name: str, subject: str) -> dict[str, str]:
    """Count a request, and return the RateLimit fields for its answer; none where there is no such limit.

    Raises TooManyRequests where it is one too many, Unavailable or db.Error where the database stays away.
    """
    rate: Rate | None = settings.RATE_LIMITS[name]
    if rate is None:
        return {}
    hits, reset = _gather().call((f"{name}:{subject}", rate.seconds))
    standing = RateLimitState(name, rate, hits, reset)
    if standing.is_over:
        raise too_many(f"More than {rate.hits} in {rate.seconds} seconds.", reset, standing.headers)
    return standing.headers


def too_many(detail: str, seconds: int, headers: dict[str, str] | None = None) -> TooManyRequests:
    problem = TooManyRequests(detail)
    problem.headers = {**(headers or {}), "Retry-After": str(seconds)}
    return problem


def require_of(principal: Principal, request: HttpRequest) -> dict[str, str]:
    """The same for a request to the API, by who sends it."""
    kind, _, name = principal.actor.partition(":")
    if kind == "key":
        return require(KEY, name)
    if kind:
        return require(USER, principal.actor)
    return require(ADDRESS, network_of(request)) if settings.RATE_LIMITS[ADDRESS] else {}


# --- Where a request comes from ---------------------------------------------------------------------
def address_of(request: HttpRequest) -> str | None:
    """The client's address: what the proxy says if it is trusted. None for a socket of this machine."""
    given = [request.META.get("REMOTE_ADDR", "")]
    if settings.TRUST_PROXY:
        given.insert(0, request.META.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip())
    for text in given:
        try:
            address = ip_address(text)
        except ValueError:
            continue
        return str(getattr(address, "ipv4_mapped", None) or address)  # to a socket for both, IPv4 is ::ffff:…
    return None


def network_of(request: HttpRequest) -> str:
    """What a limit is for: an address, or all of those that one customer has."""
    address = ip_address(address_of(request) or "127.0.0.1")
    return str(address if address.version == 4 else ip_network((address, IPV6_PREFIX_BITS), strict=False))  # noqa: PLR2004


def customer_of(request: HttpRequest) -> str:
    """The same as an address: the first that the customer has (AXES_CLIENT_IP_CALLABLE)."""
    return network_of(request).partition("/")[0]


# --- The count --------------------------------------------------------------------------------------
# In one order everywhere, so that no two processes wait for each other.
_TAKE: Final = """
    INSERT INTO rate_limit AS kept (subject, began_at, hits)
    SELECT subject, to_timestamp(floor(extract(epoch FROM statement_timestamp()) / seconds) * seconds), hits
    FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS asked (subject, seconds, hits) ORDER BY subject
    ON CONFLICT (subject) DO UPDATE SET
        hits = excluded.hits + CASE WHEN kept.began_at = excluded.began_at THEN kept.hits ELSE 0 END,
        began_at = excluded.began_at
    RETURNING subject, hits, extract(epoch FROM statement_timestamp() - began_at)
"""
_SWEEP: Final = """
    DELETE FROM rate_limit WHERE subject IN (
        SELECT subject FROM rate_limit WHERE began_at < statement_timestamp() - make_interval(secs => %s)
        FOR UPDATE SKIP LOCKED
    )
"""
Asked = tuple[str, int]  # the subject, and its window in seconds
Counted = tuple[int, int]  # its hits, this one included, and the seconds until the window is over


@once
def _gather() -> Batcher[Asked, Counted]:
    return Batcher(
        "rate limits",
        run_as_one_call(_take),
        max_batch_size=settings.GROUP_COMMIT_BATCH,
        queue_limit=settings.GROUP_COMMIT_QUEUE,
        timeout_seconds=settings.OPERATION_DEADLINE,
    )


def _take(asked: Sequence[Asked]) -> list[Counted]:
    counts = Counter(asked)
    subjects, seconds = zip(*counts, strict=True)
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, [list(subjects), list(seconds), list(counts.values())])
        found = {subject: (hits, float(age)) for subject, hits, age in cursor.fetchall()}
        _sweep_now_and_then(cursor)
    counted = []
    for item in asked:
        hits, age = found[item[0]]
        counts[item] -= 1  # of those that came together each has its place
        counted.append((hits - counts[item], max(1, math.ceil(item[1] - age))))
    return counted


_swept_at = time.monotonic()


def _sweep_now_and_then(cursor: object) -> None:
    global _swept_at  # noqa: PLW0603
    if time.monotonic() < _swept_at + SWEEP_INTERVAL_SECONDS:
        return
    _swept_at = time.monotonic()
    longest = max((rate.seconds for rate in settings.RATE_LIMITS.values() if rate), default=0)
    cursor.execute(_SWEEP, [longest])  # type: ignore[attr-defined]
