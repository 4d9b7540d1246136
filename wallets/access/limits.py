"""Rate limits. All processes share the counters in the database; a limit that is off sends no query.

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

# Limits of requests, by caller.
KEY: Final = "key"
USER: Final = "user"
ADDRESS: Final = "address"
# Limits of attempts, by network.
LOGIN: Final = "login"
SIGNUP: Final = "signup"
RESET: Final = "reset"  # mails with a link, by kind and recipient

IPV6_PREFIX_BITS: Final = 64  # a provider gives one customer at least this network
DELETION_INTERVAL_SECONDS: Final = 600.0  # between two deletions of ended windows


@dataclass(frozen=True, slots=True)
class RateLimitState:
    """How much of a limit a subject has used in its current window."""

    name: str
    rate: Rate
    hits: int
    reset: int  # seconds until the window ends

    @property
    def is_exceeded(self) -> bool:
        return self.hits > self.rate.hits

    @property
    def headers(self) -> dict[str, str]:
        remaining = max(0, self.rate.hits - self.hits)
        return {
            "RateLimit-Policy": f'"{self.name}";q={self.rate.hits};w={self.rate.seconds}',
            "RateLimit": f'"{self.name}";r={remaining};t={self.reset}',
        }


def require(name: str, subject: str) -> dict[str, str]:
    """Count a request of the subject; return the RateLimit headers, or {} if the limit is off.

    Raises TooManyRequests beyond the limit, Unavailable or db.Error if the database stays unavailable.
    """
    rate: Rate | None = settings.RATE_LIMITS[name]
    if rate is None:
        return {}
    hits, reset = _batcher().call((f"{name}:{subject}", rate.seconds))
    state = RateLimitState(name, rate, hits, reset)
    if state.is_exceeded:
        raise too_many(f"More than {rate.hits} requests in {rate.seconds} seconds.", reset, state.headers)
    return state.headers


def too_many(detail: str, retry_after_seconds: int, headers: dict[str, str] | None = None) -> TooManyRequests:
    """Return the problem with a Retry-After header."""
    problem = TooManyRequests(detail)
    problem.headers = {**(headers or {}), "Retry-After": str(retry_after_seconds)}
    return problem


def require_for_caller(principal: Principal, request: HttpRequest) -> dict[str, str]:
    """Count a request to the API for its caller. Returns and raises as `require` does."""
    kind, _, name = principal.actor.partition(":")
    if kind == "key":
        return require(KEY, name)
    if kind:
        return require(USER, principal.actor)
    return require(ADDRESS, network_of(request)) if settings.RATE_LIMITS[ADDRESS] else {}


# --- Client addresses -------------------------------------------------------------------------------
def address_of(request: HttpRequest) -> str | None:
    """Return the client's IP address, as a trusted proxy gives it if configured; None for a Unix socket."""
    candidates = [request.META.get("REMOTE_ADDR", "")]
    if settings.TRUST_PROXY:
        candidates.insert(0, request.META.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip())
    for text in candidates:
        try:
            address = ip_address(text)
        except ValueError:
            continue
        # A dual-stack socket shows IPv4 as ::ffff:… addresses.
        return str(getattr(address, "ipv4_mapped", None) or address)
    return None


def network_of(request: HttpRequest) -> str:
    """Return the network that limits count for: an IPv4 address, or the IPv6 network of one customer."""
    address = ip_address(address_of(request) or "127.0.0.1")
    return str(address if address.version == 4 else ip_network((address, IPV6_PREFIX_BITS), strict=False))  # noqa: PLR2004


def lockout_address(request: HttpRequest) -> str:
    """Return the first address of the client's network, for axes (AXES_CLIENT_IP_CALLABLE)."""
    return network_of(request).partition("/")[0]


# --- Counting ---------------------------------------------------------------------------------------
# ORDER BY: all processes lock the rows in the same order, so that they cannot deadlock.
_COUNT: Final = """
    INSERT INTO rate_limit AS stored (subject, began_at, hits)
    SELECT subject, to_timestamp(floor(extract(epoch FROM statement_timestamp()) / seconds) * seconds), hits
    FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS counted (subject, seconds, hits) ORDER BY subject
    ON CONFLICT (subject) DO UPDATE SET
        hits = excluded.hits + CASE WHEN stored.began_at = excluded.began_at THEN stored.hits ELSE 0 END,
        began_at = excluded.began_at
    RETURNING subject, hits, extract(epoch FROM statement_timestamp() - began_at)
"""
_DELETE_ENDED: Final = """
    DELETE FROM rate_limit WHERE subject IN (
        SELECT subject FROM rate_limit WHERE began_at < statement_timestamp() - make_interval(secs => %s)
        FOR UPDATE SKIP LOCKED
    )
"""
Window = tuple[str, int]  # the subject, and the length of the window in seconds
WindowState = tuple[int, int]  # the hits including this request, and the seconds until the window ends


@once
def _batcher() -> Batcher[Window, WindowState]:
    return Batcher(
        "rate limits",
        run_as_one_call(_count_requests),
        max_batch_size=settings.GROUP_COMMIT_BATCH,
        queue_limit=settings.GROUP_COMMIT_QUEUE,
        timeout_seconds=settings.OPERATION_DEADLINE,
    )


def _count_requests(windows: Sequence[Window]) -> list[WindowState]:
    counts = Counter(windows)
    subjects, seconds = zip(*counts, strict=True)
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, [list(subjects), list(seconds), list(counts.values())])
        found = {subject: (hits, float(age)) for subject, hits, age in cursor.fetchall()}
        _delete_ended_if_due(cursor)
    states = []
    for window in windows:
        hits, age = found[window[0]]
        counts[window] -= 1  # concurrent requests get consecutive numbers
        states.append((hits - counts[window], max(1, math.ceil(window[1] - age))))
    return states


_last_deletion_at = time.monotonic()


def _delete_ended_if_due(cursor: object) -> None:
    global _last_deletion_at  # noqa: PLW0603
    if time.monotonic() < _last_deletion_at + DELETION_INTERVAL_SECONDS:
        return
    _last_deletion_at = time.monotonic()
    longest = max((rate.seconds for rate in settings.RATE_LIMITS.values() if rate), default=0)
    cursor.execute(_DELETE_ENDED, [longest])  # type: ignore[attr-defined]
