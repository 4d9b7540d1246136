"""The service with a cache of wallets in the Redis of REDIS_URL, as a WSGI application.

It measures what a fast cache would gain: the cache has the response body, so that nothing is decoded or
rendered; all greenlets of a process share a pool of connections, the parser is in C, and a miss is read as
the service reads. An operation deletes the entry of its wallet after the commit, as is usual, and the TTL
bounds a lost deletion. A hit checks no permission: the benchmark's API is open.

REDIS_CLIENT is `django`, Django's cache framework, which pickles even bytes, or `raw`, redis-py alone.
"""

import os
from typing import Any, Final, Protocol
from uuid import UUID

import orjson
import redis
from django.core.cache.backends.redis import RedisCache
from django.http import HttpResponse
from rest_framework.request import Request

from walletsvc.wsgi import application

# These need Django, which the import above has set up.
from wallets import ledger  # isort: skip
from wallets.access.authentication import principal  # isort: skip
from wallets.access.rights import visible  # isort: skip
from wallets.contract.responses import etag, wallet_body  # isort: skip
from wallets.contract.parsing import names_tag  # isort: skip
from wallets.api.wallets import WalletById  # isort: skip
from wallets.ledger.decisions import Posted  # isort: skip
from wallets.ledger.commands import Command  # isort: skip
from wallets.ledger.reader import read_wallet  # isort: skip

__all__ = ["application"]

TTL_SECONDS: Final = 300


class Store(Protocol):
    def get(self, key: str) -> Any: ...
    def set(self, key: str, value: bytes, ttl: int, /) -> Any: ...
    def delete(self, key: str) -> Any: ...


def store(url: str, client: str) -> Store:
    # Not Django's `cache`: it creates a cache, with a pool, for each greenlet.
    return RedisCache(url, {}) if client == "django" else redis.Redis.from_url(url)


STORE: Final = store(os.environ["REDIS_URL"], os.environ["REDIS_CLIENT"])


def get(view: WalletById, request: Request, wallet_id: UUID) -> HttpResponse:
    """Respond as the service does, with the ETag and the body from the cache."""
    found: bytes | None = STORE.get(f"wallet:{wallet_id}")
    tag, _, body = (found or _read(request, wallet_id)).partition(b"\n")
    if names_tag(request.META.get("HTTP_IF_NONE_MATCH"), tag.decode()):
        return HttpResponse(status=304, headers={"ETag": tag.decode()})
    return HttpResponse(body, headers={"ETag": tag.decode()}, content_type="application/json")


def _read(request: Request, wallet_id: UUID) -> bytes:
    wallet = visible(principal(request), read_wallet(wallet_id))
    value = b"\n".join((etag(wallet).encode(), orjson.dumps(wallet_body(wallet))))
    STORE.set(f"wallet:{wallet_id}", value, TTL_SECONDS)
    return value


_submit = ledger.submit


def submit(command: Command) -> Posted:
    posted = _submit(command)
    for wallet_id in command.wallet_ids:
        STORE.delete(f"wallet:{wallet_id}")
    return posted


WalletById.get = get  # type: ignore[method-assign, assignment]
ledger.submit = submit
