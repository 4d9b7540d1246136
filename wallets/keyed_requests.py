"""Which request an Idempotency-Key stands for: of a bulk, and of what opens, registers or rotates.

The first request under a key is recorded with its digest before it is carried out, and gets an id. What it
makes has this id, so the same request again finds it; a crash in between leaves a record from which the same
request goes on. Another request under the key is refused. Records stay: a replay has no time limit.
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
    """A request with its key, in the namespace of its caller (Principal.key_domain)."""

    domain: str
    key: str
    digest: bytes


def digest_of(request_line: str, body: BaseModel) -> bytes:
    """SHA-256 of a checked request: equal for equal requests, however their amounts are spelled.

    Defaults are left out, so that a field that a later version adds changes no digest. Names are those of the
    API, which stay.
    """
    fields = body.model_dump(by_alias=True, exclude_defaults=True)
    return sha256(orjson.dumps([request_line, fields], _plain, orjson.OPT_SORT_KEYS)).digest()


def record(request: Keyed) -> tuple[UUID, bool]:
    """Record the request, in the caller's transaction if there is one. Return its id and whether it is new.

    Raises IdempotencyKeyReused if the key stands for another request.
    """
    first, is_new = KeyedRequest.objects.get_or_create(
        domain=request.domain, key=request.key, defaults={"id": uuid7(), "digest": request.digest}
    )
    if bytes(first.digest) != request.digest:
        raise IdempotencyKeyReused
    return first.id, is_new


def _plain(value: object) -> str:
    """A Decimal without the zeros at the end of its fraction: 1.50 and 1.5 are one amount."""
    if not isinstance(value, Decimal):
        raise TypeError(type(value).__name__)
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
