"""Verification of webhooks, by the rules of https://www.standardwebhooks.com."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

TOLERANCE_SECONDS = (
    300.0  # between the clocks of sender and receiver; an older request may be a replay attack
)


class InvalidWebhook(ValueError):
    """The request is not from the service, or is too old: respond with 401."""


@dataclass(frozen=True, slots=True)
class Event:
    """A CloudEvent 1.0. A repeated event has the same id: apply each id once."""

    id: str
    type: str
    source: str
    subject: str | None  # the id of the wallet
    time: datetime
    data: dict[str, Any]  # amounts are strings, as in the API


def verify_webhook(
    body: bytes,
    headers: Mapping[str, str],
    secret: str,
    *,
    tolerance_seconds: float = TOLERANCE_SECONDS,
) -> list[Event]:
    """Return the events of a webhook's request.

    `body` is the body as it was received, byte by byte; `headers` may have names in any case. One request
    has several events if the webhook was registered with a `batch` of more than one.

    Raises: InvalidWebhook.
    """
    given = {name.lower(): value for name, value in headers.items()}
    id, timestamp, signatures = (
        given.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
    )
    if not (timestamp.isascii() and timestamp.isdecimal()):
        raise InvalidWebhook("Webhook-Timestamp is missing or malformed")
    if abs(time.time() - int(timestamp)) > tolerance_seconds:
        raise InvalidWebhook("Webhook-Timestamp is too old, or in the future")
    digest = hmac.digest(_key(secret), f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
    expected = b"v1," + base64.b64encode(digest)
    # After a rotation of the secret there are two signatures.
    if not any(hmac.compare_digest(expected, signature.encode()) for signature in signatures.split()):
        raise InvalidWebhook("no signature is valid")
    content = json.loads(body)
    return [_event(event) for event in (content if isinstance(content, list) else [content])]


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        key = b""
    if not key:  # anyone can sign with an empty key
        raise ValueError("the secret of a webhook is whsec_ and base64")
    return key


def _event(content: Mapping[str, Any]) -> Event:
    return Event(
        content["id"],
        content["type"],
        content["source"],
        content.get("subject"),
        datetime.fromisoformat(content["time"]),
        content["data"],
    )
