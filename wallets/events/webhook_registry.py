"""Register, change and remove webhooks, for the API, the admin and the command.

Each change is one transaction that updates only the named columns: a relay may update others meanwhile.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal
from uuid import UUID

from django import db
from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils.timezone import now
from uuid_utils.compat import uuid7

from wallets.advisory_locks import LockClass, lock_key
from wallets.apps import give_back_connection
from wallets.database_retry import retry_until_deadline
from wallets.events import delivery_state, parking
from wallets.events.webhooks import Webhook, new_secret
from wallets.keyed_requests import Keyed, record
from wallets.models import Delivery, Subscriber
from wallets.problems import IdempotencyKeyReused, TooManyWebhooks, WebhookNameTaken, WebhookNotFound

logger = logging.getLogger(__name__)

UNKNOWN_ACTOR: Final = "an unauthenticated client"
MAX_WEBHOOKS: Final = 100  # each has a thread in the relay
SECRET_SHOWN_FOR: Final = timedelta(hours=1)  # to a client that lost the response and sends the request again


def webhooks() -> QuerySet[Subscriber]:
    return Subscriber.objects.filter(kind=Subscriber.Kind.WEBHOOK)


def find(webhook_id: UUID) -> Subscriber:
    """Get the webhook. Raises WebhookNotFound."""
    return _found(retry_until_deadline(webhooks().filter(id=webhook_id).first))


# --- Registering ------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A webhook to register. With an `id` of the caller's choice, registering it again is a replay."""

    name: str
    url: str
    types: Sequence[str] = ()
    batch: int = 1
    begins: Literal["now", "beginning"] = "now"
    id: UUID | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the values that a replay must repeat."""
        return {
            "name": self.name,
            "url": self.url,
            "types": list(self.types),
            "batch": self.batch,
            "from": self.begins,
        }


@dataclass(frozen=True, slots=True)
class Registered:
    webhook: Subscriber
    secret: str | None = field(repr=False)  # None: a replay after SECRET_SHOWN_FOR, or after a later rotation
    replayed: bool


def register(registration: Registration, actor: str) -> Registered:
    """Register a webhook, or replay its registration.

    Raises IdempotencyKeyReused, TooManyWebhooks or WebhookNameTaken.
    """
    id = registration.id or uuid7()  # one id for all attempts: a commit whose result was lost is then found
    try:
        webhook, is_new = retry_until_deadline(lambda: _get_or_register(id, registration))
    except db.IntegrityError:
        raise WebhookNameTaken from None
    if is_new or registration.id is None:
        _log_action(actor, "registered", webhook)
        return Registered(webhook, webhook.secret, replayed=False)
    if webhook.registered_with != registration.as_json():
        raise IdempotencyKeyReused
    secret = _secret_for_replay(webhook) if webhook.rotation_id is None else None
    return Registered(_as_registered(webhook), secret, replayed=True)


def _get_or_register(id: UUID, registration: Registration) -> tuple[Subscriber, bool]:
    with transaction.atomic():
        with connection.cursor() as cursor:
            # One registration at a time: two at once could exceed MAX_WEBHOOKS.
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [lock_key(LockClass.REGISTRATION)])
        if found := Subscriber.objects.filter(id=id).first():
            return found, False
        if webhooks().count() >= MAX_WEBHOOKS:
            raise TooManyWebhooks
        _require_free(registration.name)
        is_now = registration.begins == "now"
        new = Subscriber.objects.create(
            id=id,
            kind=Subscriber.Kind.WEBHOOK,
            name=registration.name,
            url=registration.url,
            types=list(registration.types),
            batch=registration.batch,
            secret=new_secret(),
            registered_with=registration.as_json(),
            **(delivery_state.from_now_on() if is_now else delivery_state.from_the_beginning()),
        )
    return new, True


def _as_registered(webhook: Subscriber) -> Subscriber:
    """Return the webhook as in the first response, without later changes."""
    first = webhook.registered_with or {}
    columns = {name: first[name] for name in ("name", "url", "types", "batch")}
    return Subscriber(id=webhook.id, created_at=webhook.created_at, **columns)


# --- Changing ---------------------------------------------------------------------------------------
def change(webhook_id: UUID, actor: str, *, is_enabled: bool | None = None, **columns: Any) -> Subscriber:
    """Change these columns of the webhook and return it. A new URL starts without failures.

    Raises WebhookNotFound or WebhookNameTaken.
    """
    try:
        webhook = retry_until_deadline(lambda: _change(webhook_id, actor, is_enabled, columns))
    except db.IntegrityError:
        raise WebhookNameTaken from None
    _log_action(actor, "changed", webhook)
    return webhook


def _change(webhook_id: UUID, actor: str, is_enabled: bool | None, columns: dict[str, Any]) -> Subscriber:
    with transaction.atomic():
        webhook = _locked(webhook_id)
        if "name" in columns and columns["name"] != webhook.name:
            _require_free(columns["name"])
        if columns:
            webhooks().filter(id=webhook_id).update(**columns)
        if columns.get("url", webhook.url) != webhook.url:
            delivery_state.reset_failures(webhook)
        if is_enabled is not None and is_enabled != webhook.is_enabled:
            _switch(webhook, is_enabled, actor)
        webhook.refresh_from_db()
        return webhook


def switch(subscriber: Subscriber, is_enabled: bool, actor: str) -> None:
    """Enable or disable a webhook or the broker; an enabled subscriber resumes at its position."""
    retry_until_deadline(lambda: _switch(subscriber, is_enabled, actor))
    _log_action(actor, "enabled" if is_enabled else "disabled", subscriber)


def _switch(subscriber: Subscriber, is_enabled: bool, actor: str) -> None:
    if is_enabled:
        delivery_state.enable(subscriber)
    else:
        delivery_state.disable(subscriber, f"Disabled by {actor or UNKNOWN_ACTOR}.")


def remove(webhook_id: UUID, actor: str) -> None:
    """Remove the webhook with its waiting events, dead letters and deliveries. Raises WebhookNotFound."""
    webhook = find(webhook_id)
    retry_until_deadline(lambda: _remove(webhook_id))
    _log_action(actor, "removed", webhook)


def _remove(webhook_id: UUID) -> None:
    with transaction.atomic():
        # Lock the subscriber before its events, as the relay does: otherwise the two could deadlock.
        if webhooks().select_for_update().filter(id=webhook_id).first():
            webhooks().filter(id=webhook_id).delete()


# --- Secrets ----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Rotated:
    webhook: Subscriber
    secret: str | None = field(repr=False)  # None: a replay after SECRET_SHOWN_FOR, or after a later rotation
    replayed: bool


def rotate(
    webhook_id: UUID,
    actor: str,
    *,
    former_valid: timedelta,
    rotation_id: UUID | None = None,
    keyed: Keyed | None = None,
) -> Rotated:
    """Set a new secret; for `former_valid`, requests are also signed with the former one.

    With the `rotation_id` or key of an earlier call, it is a replay. Raises WebhookNotFound or
    IdempotencyKeyReused.
    """
    id = rotation_id or uuid7()
    webhook, recorded_id, is_new = retry_until_deadline(lambda: _rotate(webhook_id, id, former_valid, keyed))
    if is_new or (rotation_id is None and keyed is None):
        _log_action(actor, "rotated the secret of", webhook)
        return Rotated(webhook, webhook.secret, replayed=False)
    # If the ids differ, a later rotation has replaced this secret.
    secret = _secret_for_replay(webhook) if webhook.rotation_id == recorded_id else None
    return Rotated(webhook, secret, replayed=True)


def _rotate(
    webhook_id: UUID, rotation_id: UUID, former_valid: timedelta, keyed: Keyed | None
) -> tuple[Subscriber, UUID, bool]:
    with transaction.atomic():
        webhook = _locked(webhook_id)
        # Recorded in this transaction: a known key means that its rotation was done, whatever came after it.
        id, is_new = record(keyed) if keyed else (rotation_id, webhook.rotation_id != rotation_id)
        if not is_new:
            return webhook, id, False
        webhook.former_secret = webhook.secret if former_valid else ""
        webhook.former_secret_until = now() + former_valid if former_valid else None
        webhook.secret, webhook.secret_at, webhook.rotation_id = new_secret(), now(), id
        webhook.save(
            update_fields=["secret", "secret_at", "former_secret", "former_secret_until", "rotation_id"]
        )
        return webhook, id, True


def _secret_for_replay(webhook: Subscriber) -> str | None:
    return webhook.secret if now() - webhook.secret_at < SECRET_SHOWN_FOR else None


# --- Tests and dead letters -------------------------------------------------------------------------
def try_out(webhook_id: UUID) -> Delivery:
    """Send a test event to the webhook. Raises WebhookNotFound."""
    webhook = find(webhook_id)
    give_back_connection()  # other requests can use it while the receiver answers
    destination = Webhook()
    try:
        return destination.test(webhook)
    except db.IntegrityError:
        raise WebhookNotFound from None  # removed meanwhile
    finally:
        destination.close()


def replay(webhook_id: UUID, actor: str) -> int:
    """Make the webhook's dead letters due again; return their number. Raises WebhookNotFound."""
    webhook = find(webhook_id)
    found = retry_until_deadline(lambda: parking.replay(webhook))
    _log_action(actor, f"replayed {found} dead letters of", webhook)
    return found


def forget(webhook_id: UUID, actor: str) -> int:
    """Delete the webhook's dead letters; return their number. Raises WebhookNotFound."""
    webhook = find(webhook_id)
    found, _ = retry_until_deadline(parking.dead(webhook).delete)
    _log_action(actor, f"deleted {found} dead letters of", webhook)
    return found


def deliveries(webhook: Subscriber) -> QuerySet[Delivery]:
    return Delivery.objects.filter(subscriber=webhook)


def _locked(webhook_id: UUID) -> Subscriber:
    return _found(webhooks().select_for_update(no_key=True).filter(id=webhook_id).first())


def _found(webhook: Subscriber | None) -> Subscriber:
    if webhook is None:
        raise WebhookNotFound
    return webhook


def _require_free(name: str) -> None:
    """Raise WebhookNameTaken if the name is in use. The table's constraint decides between two at once."""
    if name in delivery_state.BROKER_NAMES or Subscriber.objects.filter(name=name).exists():
        raise WebhookNameTaken


def _log_action(actor: str, action: str, webhook: Subscriber) -> None:
    logger.info("%s %s the webhook %s (%s)", actor or UNKNOWN_ACTOR, action, webhook.name, webhook.id)
