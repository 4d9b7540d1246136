"""Rate limits. All processes share the counters in the database; a limit that is not set costs nothing.

Fixed windows: one row for each subject, one statement for all requests in flight.
Source of the headers: draft-ietf-httpapi-ratelimit-headers.
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

# Requests of a caller.
KEY: Final = "key"
USER: Final = "user"
ADDRESS: Final = "address"
# Attempts from a network.
LOGIN: Final = "login"
SIGNUP: Final = "signup"
RESET: Final = "reset"  # mails with a link, by kind and recipient

IPV6_PREFIX_BITS: Final = 64  # one customer of a network
SWEEP_INTERVAL_SECONDS: Final = 600.0  # between two deletions of ended windows


@dataclass(frozen=True, slots=True)
class RateLimitState:
    """The remaining requests of a limit."""

    name: str
    rate: Rate
    hits: int
    reset: int  # seconds until the window ends

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
    """Count a request; return the RateLimit headers of its response, none if the limit is not set.

    Raises TooManyRequests beyond the limit, Unavailable or db.Error if the database stays unavailable.
    """
    rate: Rate | None = settings.RATE_LIMITS[name]
    if rate is None:
        return {}
    hits, reset = _gather().call((f"{name}:{subject}", rate.seconds))
    standing = RateLimitState(name, rate, hits, reset)
    if standing.is_over:
        raise too_many(f"More than {rate.hits} requests in {rate.seconds} seconds.", reset, standing.headers)
    return standing.headers


def too_many(detail: str, seconds: int, headers: dict[str, str] | None = None) -> TooManyRequests:
    problem = TooManyRequests(detail)
    problem.headers = {**(headers or {}), "Retry-After": str(seconds)}
    return problem


def require_of(principal: Principal, request: HttpRequest) -> dict[str, str]:
    """Count a request to the API for its caller. Returns and raises as `count` does."""
    kind, _, name = principal.actor.partition(":")
    if kind == "key":
        return require(KEY, name)
    if kind:
        return require(USER, principal.actor)
    return require(ADDRESS, network_of(request)) if settings.RATE_LIMITS[ADDRESS] else {}


# --- Where a request comes from ---------------------------------------------------------------------
def address_of(request: HttpRequest) -> str | None:
    """Return the client's IP address, from a trusted proxy if configured; None for a Unix socket."""
    given = [request.META.get("REMOTE_ADDR", "")]
    if settings.TRUST_PROXY:
        given.insert(0, request.META.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip())
    for text in given:
        try:
            address = ip_address(text)
        except ValueError:
            continue
        # A dual-stack socket shows IPv4 as ::ffff:… addresses.
        return str(getattr(address, "ipv4_mapped", None) or address)
    return None


def network_of(request: HttpRequest) -> str:
    """Return the network that a limit counts: an IPv4 address, or an IPv6 prefix of one customer."""
    address = ip_address(address_of(request) or "127.0.0.1")
    return str(address if address.version == 4 else ip_network((address, IPV6_PREFIX_BITS), strict=False))  # noqa: PLR2004


def customer_of(request: HttpRequest) -> str:
    """Return the first address of the network (AXES_CLIENT_IP_CALLABLE)."""
    return network_of(request).partition("/")[0]


# --- The count --------------------------------------------------------------------------------------
# All processes lock in one order, so that they cannot deadlock.
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
Asked = tuple[str, int]  # the subject, and the window in seconds
Counted = tuple[int, int]  # the hits including this one, and the seconds until the window ends


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
        counts[item] -= 1  # concurrent requests get consecutive numbers
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
