"""API keys: create, revoke and verify.

A key is `wk_<prefix>_<secret>`. The prefix identifies it; the table has only the SHA-256 of the secret, which
has 256 bits. Each process caches a key for CACHE_SECONDS: a revoked key works for less than five seconds.
"""

import hmac
import logging
import math
import re
import secrets
import string
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from queue import Empty, SimpleQueue
from typing import Final

from django import db
from django.conf import settings
from django.db import connection
from django.db.models import Q
from django.db.models.functions import Now

from wallets.access.rights import ADMIN, ANONYMOUS, SCOPES, Principal
from wallets.batching import Batcher, once
from wallets.database_retry import run_as_one_call
from wallets.models import ApiKey, User

logger = logging.getLogger(__name__)

START: Final = "wk_"
PREFIX_LENGTH: Final = 8
CACHE_SECONDS: Final = 4.0
MAX_CACHED_PREFIXES: Final = 10_000  # bounds the memory that invented prefixes can take
LAST_USE_INTERVAL_SECONDS: Final = 60.0  # between two records of a key's last use
_KEY_PATTERN: Final = re.compile(r"wk_([a-z0-9]{8})_([A-Za-z0-9_-]{43})")
_PREFIX_ALPHABET: Final = string.ascii_lowercase + string.digits


# --- Creation and revocation ------------------------------------------------------------------------
def new_text() -> str:
    """Generate the text of a new key."""
    prefix = "".join(secrets.choice(_PREFIX_ALPHABET) for _ in range(PREFIX_LENGTH))
    return f"{START}{prefix}_{secrets.token_urlsafe(32)}"


def make(  # noqa: PLR0913
    text: str,
    *,
    name: str,
    scopes: Collection[str],
    owner: User | None = None,
    is_restricted: bool = False,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, bool]:
    """Store the key; return it and whether it is new. An existing key stays unchanged, also if revoked.

    Raises ValueError if the text is not a key, or if another key has its prefix.
    """
    match = _KEY_PATTERN.fullmatch(text)
    if match is None:
        raise ValueError("a key is wk_, 8 of a-z and 0-9, _, and 43 of A-Z, a-z, 0-9, - and _")
    digest = _digest(match[2])
    key, is_new = ApiKey.objects.get_or_create(
        prefix=match[1],
        defaults={
            "digest": digest,
            "name": name,
            "scopes": [scope for scope in SCOPES if scope in scopes],
            "owner": owner,
            "is_restricted_to_owner": is_restricted,
            "expires_at": expires_at,
        },
    )
    if not hmac.compare_digest(bytes(key.digest), digest):
        raise ValueError("another key has this prefix")
    _cache.pop(key.prefix, None)
    return key, is_new


def revoke(prefix: str) -> bool:
    """Revoke the key permanently. Return False if no unrevoked key has this prefix."""
    revoked = ApiKey.objects.filter(prefix=prefix, revoked_at=None).update(revoked_at=Now())
    _cache.pop(prefix, None)  # other processes notice when their cache expires
    return bool(revoked)


# --- Authentication ---------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _CachedKey:
    """The key that has a prefix, or the fact that no valid key has it."""

    digest: bytes  # empty if no valid key has the prefix: no secret has this digest
    principal: Principal
    expires_at: float  # wall-clock time
    stale_at: float  # time.monotonic()


_cache: Final[dict[str, _CachedKey]] = {}
_last_use_recorded_at: Final[dict[str, float]] = {}  # time.monotonic() by prefix


def principal_of(text: str) -> Principal | None:
    """Return the principal of the key; None if it is invalid, revoked, expired, or its owner inactive.

    Raises Unavailable or db.Error if the database stays unavailable, TooManyRequests if too many requests
    wait.
    """
    match = _KEY_PATTERN.fullmatch(text)
    if match is None:
        return None
    prefix, secret = match.groups()
    now = time.monotonic()
    cached = _cache.get(prefix)
    if cached is None or cached.stale_at <= now:
        cached = _batcher().call(prefix)
    if not hmac.compare_digest(_digest(secret), cached.digest):
        return None
    if cached.expires_at <= time.time():
        return None
    if _last_use_recorded_at.get(prefix, -math.inf) + LAST_USE_INTERVAL_SECONDS <= now:
        _last_use_recorded_at[prefix] = now
        _used_prefixes().put(prefix)
    return cached.principal


def _digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()


@once
def _batcher() -> Batcher[str, _CachedKey]:
    """Return the batcher of this process: one query for the prefixes of all requests in flight."""
    return Batcher(
        "keys",
        run_as_one_call(_load_into_cache),
        max_batch_size=MAX_CACHED_PREFIXES,
        queue_limit=MAX_CACHED_PREFIXES,  # more than the connections of a process
        timeout_seconds=settings.OPERATION_DEADLINE,
    )


def _load_into_cache(prefixes: Sequence[str]) -> list[_CachedKey]:
    found = _load(set(prefixes))
    if len(_cache) + len(found) > MAX_CACHED_PREFIXES:
        _cache.clear()
    _cache.update(found)
    return [found[prefix] for prefix in prefixes]


def _load(prefixes: Collection[str]) -> dict[str, _CachedKey]:
    stale_at = time.monotonic() + CACHE_SECONDS  # since before the query, which may miss a later change
    keys = ApiKey.objects.filter(Q(owner=None) | Q(owner__is_active=True), revoked_at=None)
    found = {key.prefix: _cached_key_of(key, stale_at) for key in keys.filter(prefix__in=list(prefixes))}
    return dict.fromkeys(prefixes, _CachedKey(b"", ANONYMOUS, 0, stale_at)) | found


def _cached_key_of(key: ApiKey, stale_at: float) -> _CachedKey:
    principal = Principal(
        actor=f"key:{key.prefix}",
        scopes=frozenset(SCOPES if ADMIN in key.scopes else key.scopes),
        owner_restriction=key.owner_id if key.is_restricted_to_owner else None,
    )
    expires_at = math.inf if key.expires_at is None else key.expires_at.timestamp()
    return _CachedKey(bytes(key.digest), principal, expires_at, stale_at)


# --- Last use ---------------------------------------------------------------------------------------
# SKIP LOCKED, so that processes that record the same keys do not wait for each other.
_RECORD_LAST_USE: Final = """
    UPDATE api_key SET last_used_at = statement_timestamp() WHERE prefix IN (
        SELECT prefix FROM api_key WHERE prefix = ANY(%s) FOR NO KEY UPDATE SKIP LOCKED
    )
"""


@once
def _used_prefixes() -> "SimpleQueue[str]":
    """Return the queue of a thread that records the last use of keys, so that no request waits for it."""
    queue: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_record_last_uses, args=[queue], name="last use of keys", daemon=True).start()
    return queue


def _record_last_uses(queue: "SimpleQueue[str]") -> None:
    while True:
        prefixes = [queue.get()]
        with suppress(Empty):
            while len(prefixes) < MAX_CACHED_PREFIXES:
                prefixes.append(queue.get_nowait())
        try:
            with connection.cursor() as cursor:
                cursor.execute(_RECORD_LAST_USE, [prefixes])
        except db.Error as error:
            logger.warning("the last use of %d API keys was not recorded: %s", len(prefixes), error)
        finally:
            connection.close()
