"""Records the request of an Idempotency-Key: of a bulk, and of a request that creates or rotates something.

The first request under a key is recorded with its digest before it is executed, and gets an id. The object
that it creates has this id, so a replay finds it. After a crash between the two, the same request continues
from the record. A different request under the key is refused. Records are kept, so a replay has no time
limit.
"""

from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from uuid import UUID

import orjson
from pydantic import BaseModel
from uuid_utils.compat import uuid7

from wallets.models import KeyedRequest
from wallets.problems import IdempotencyKeyReused


@dataclass(frozen=True, slots=True)
class Keyed:
    """A request with its key, in the key namespace of its client (Principal.key_domain)."""

    domain: str
    key: str
    digest: bytes


def digest_of(request_line: str, body: BaseModel) -> bytes:
    """Return the SHA-256 of a checked request: equal for equal requests, however their amounts are written.

    Defaults are left out, so that a field that a later version adds changes no digest.
    """
    fields = body.model_dump(by_alias=True, exclude_defaults=True)
    return sha256(orjson.dumps([request_line, fields], _plain, orjson.OPT_SORT_KEYS)).digest()


def record(request: Keyed) -> tuple[UUID, bool]:
    """Record the request, in the open transaction if there is one. Return its id and whether it is new.

    Raises IdempotencyKeyReused if a different request has the key.
    """
    first, is_new = KeyedRequest.objects.get_or_create(
        domain=request.domain, key=request.key, defaults={"id": uuid7(), "digest": request.digest}
    )
    if bytes(first.digest) != request.digest:
        raise IdempotencyKeyReused
    return first.id, is_new


def _plain(value: object) -> str:
    """Return a Decimal without trailing zeros in its fraction: 1.50 and 1.5 are the same amount."""
    if not isinstance(value, Decimal):
        raise TypeError(type(value).__name__)
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
