"""The webhooks that there are: registered, changed and removed, by API, admin and command.

Each is one transaction that touches the named columns alone: meanwhile a relay may move the others.
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

MAX_WEBHOOKS: Final = 100  # webhooks: each is a thread in the relay
SECRET_SHOWN_FOR: Final = timedelta(hours=1)  # whose answer was lost has so long to ask for the secret again


def webhooks() -> QuerySet[Subscriber]:
    return Subscriber.objects.filter(kind=Subscriber.Kind.WEBHOOK)


def find(webhook_id: UUID) -> Subscriber:
    """Raises WebhookNotFound."""
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
        """What a repeat is compared with."""
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
    secret: str | None = field(repr=False)  # None: who asks again is too late
    replayed: bool


def register(wanted: Registration, actor: str) -> Registered:
    """Raises IdempotencyKeyReused, TooManyWebhooks or WebhookNameTaken."""
    id = wanted.id or uuid7()  # made before the first attempt: one that was cut off is found again
    try:
        webhook, is_new = retry_until_deadline(lambda: _get_or_register(id, wanted))
    except db.IntegrityError:
        raise WebhookNameTaken from None
    if is_new or wanted.id is None:
        _note(actor, "registered", webhook)
        return Registered(webhook, webhook.secret, replayed=False)
    if webhook.registered_with != wanted.as_json():
        raise IdempotencyKeyReused
    secret = _shown_again(webhook) if webhook.rotation_id is None else None
    return Registered(_as_registered(webhook), secret, replayed=True)


def _get_or_register(id: UUID, wanted: Registration) -> tuple[Subscriber, bool]:
    with transaction.atomic():
        with connection.cursor() as cursor:
            # One registration at a time: two at once could exceed MOST.
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [lock_key(LockClass.REGISTRATION)])
        if found := Subscriber.objects.filter(id=id).first():
            return found, False
        if webhooks().count() >= MAX_WEBHOOKS:
            raise TooManyWebhooks
        _require_free(wanted.name)
        is_now = wanted.begins == "now"
        new = Subscriber.objects.create(
            id=id,
            kind=Subscriber.Kind.WEBHOOK,
            name=wanted.name,
            url=wanted.url,
            types=list(wanted.types),
            batch=wanted.batch,
            secret=new_secret(),
            registered_with=wanted.as_json(),
            **(delivery_state.from_now_on() if is_now else delivery_state.from_the_beginning()),
        )
    return new, True


def _as_registered(webhook: Subscriber) -> Subscriber:
    """As the first answer showed it, whatever was changed since."""
    asked = webhook.registered_with or {}
    columns = {name: asked[name] for name in ("name", "url", "types", "batch")}
    return Subscriber(id=webhook.id, created_at=webhook.created_at, **columns)


# --- Changing ---------------------------------------------------------------------------------------
def change(webhook_id: UUID, actor: str, *, is_enabled: bool | None = None, **columns: Any) -> Subscriber:
    """The webhook with these columns changed. Another address is called at once, whatever the one before did.

    Raises WebhookNotFound or WebhookNameTaken.
    """
    try:
        webhook = retry_until_deadline(lambda: _change(webhook_id, actor, is_enabled, columns))
    except db.IntegrityError:
        raise WebhookNameTaken from None
    _note(actor, "changed", webhook)
    return webhook


def _change(webhook_id: UUID, actor: str, is_enabled: bool | None, columns: dict[str, Any]) -> Subscriber:
    with transaction.atomic():
        webhook = _locked(webhook_id)
        if "name" in columns and columns["name"] != webhook.name:
            _require_free(columns["name"])
        if columns:
            webhooks().filter(id=webhook_id).update(**columns)
        if columns.get("url", webhook.url) != webhook.url:
            delivery_state.begin_anew(webhook)
        if is_enabled is not None and is_enabled != webhook.is_enabled:
            _switch(webhook, is_enabled, actor)
        webhook.refresh_from_db()
        return webhook


def switch(subscriber: Subscriber, is_enabled: bool, actor: str) -> None:
    """Of the broker as well: who is enabled again goes on where they were."""
    retry_until_deadline(lambda: _switch(subscriber, is_enabled, actor))
    _note(actor, "enabled" if is_enabled else "disabled", subscriber)


def _switch(subscriber: Subscriber, is_enabled: bool, actor: str) -> None:
    if is_enabled:
        delivery_state.enable(subscriber)
    else:
        delivery_state.disable(subscriber, f"Disabled by {actor or 'somebody'}.")


def remove(webhook_id: UUID, actor: str) -> None:
    """With what waits for it, its dead letters and its deliveries. Raises WebhookNotFound."""
    webhook = find(webhook_id)
    retry_until_deadline(lambda: _remove(webhook_id))
    _note(actor, "removed", webhook)


def _remove(webhook_id: UUID) -> None:
    with transaction.atomic():
        # Before its events, in the order of the relay: else each might wait for the other.
        if webhooks().select_for_update().filter(id=webhook_id).first():
            webhooks().filter(id=webhook_id).delete()


# --- Its secret -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Rotated:
    webhook: Subscriber
    secret: str | None = field(repr=False)  # None: who asks again is too late
    replayed: bool


def rotate(
    webhook_id: UUID,
    actor: str,
    *,
    former_valid: timedelta,
    rotation_id: UUID | None = None,
    keyed: Keyed | None = None,
) -> Rotated:
    """A new secret; the former one signs as well for a while. With the same id or key again, it is a replay.

    Raises WebhookNotFound, IdempotencyKeyReused.
    """
    id = rotation_id or uuid7()
    webhook, done_as, is_new = retry_until_deadline(lambda: _rotate(webhook_id, id, former_valid, keyed))
    if is_new or (rotation_id is None and keyed is None):
        _note(actor, "given a new secret to", webhook)
        return Rotated(webhook, webhook.secret, replayed=False)
    secret = _shown_again(webhook) if webhook.rotation_id == done_as else None  # else there is a newer one
    return Rotated(webhook, secret, replayed=True)


def _rotate(
    webhook_id: UUID, rotation_id: UUID, former_valid: timedelta, keyed: Keyed | None
) -> tuple[Subscriber, UUID, bool]:
    with transaction.atomic():
        webhook = _locked(webhook_id)
        # In this transaction: the request of a recorded key is done, however often was rotated since.
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


def _shown_again(webhook: Subscriber) -> str | None:
    return webhook.secret if now() - webhook.secret_at < SECRET_SHOWN_FOR else None


# --- What was not delivered -------------------------------------------------------------------------
def try_out(webhook_id: UUID) -> Delivery:
    """Send it an event that means nothing. Raises WebhookNotFound."""
    webhook = find(webhook_id)
    give_back_connection()  # others need it, while the receiver takes its time
    destination = Webhook()
    try:
        return destination.test(webhook)
    except db.IntegrityError:
        raise WebhookNotFound from None  # removed meanwhile
    finally:
        destination.close()


def replay(webhook_id: UUID, actor: str) -> int:
    """Try its dead letters again; return how many there are. Raises WebhookNotFound."""
    webhook = find(webhook_id)
    found = retry_until_deadline(lambda: parking.replay(webhook))
    _note(actor, f"replayed {found} dead letters of", webhook)
    return found


def forget(webhook_id: UUID, actor: str) -> int:
    """Forget its dead letters: return how many there were. Raises WebhookNotFound."""
    webhook = find(webhook_id)
    found, _ = retry_until_deadline(parking.dead(webhook).delete)
    _note(actor, f"forgotten {found} dead letters of", webhook)
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
    """Raises WebhookNameTaken. Names that differ are kept apart by the table."""
    if name in delivery_state.BROKER_NAMES or Subscriber.objects.filter(name=name).exists():
        raise WebhookNameTaken


def _note(actor: str, deed: str, webhook: Subscriber) -> None:
    logger.info("%s has %s the webhook %s (%s)", actor or "somebody", deed, webhook.name, webhook.id)
