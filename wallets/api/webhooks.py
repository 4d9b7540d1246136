"""Webhooks: who is told what happens."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from wallets.access.authentication import principal
from wallets.api import openapi
from wallets.api.endpoint import REPLAYED, Endpoint, id_of_new, keyed
from wallets.api.paging import NumberedPage, Page
from wallets.api.requests import read, read_optional
from wallets.api.shapes import PageQuery, SecretToRotate, WebhookChanges, WebhookToRegister
from wallets.api.values import format_time
from wallets.events import cloudevents, parking, registry
from wallets.events.cloudevents import Event
from wallets.events.registry import Registration
from wallets.events.subscribers import Standing, standings
from wallets.ledger.recovery import until_deadline
from wallets.models import Delivery, ParkedEvent, Subscriber
from wallets.problems import WebhookNotFound


class Webhooks(Endpoint):
    """/webhooks"""

    @openapi.register_webhook
    def post(self, request: Request) -> Response:
        asked = read(request, WebhookToRegister)
        registered = registry.register(
            Registration(
                name=asked.name,
                url=asked.url,
                types=asked.types,
                batch=asked.batch,
                begins=asked.from_,
                id=id_of_new(request, "POST /webhooks", asked),
            ),
            principal(request).actor,
        )
        return Response(
            registered_webhook_body(registered.webhook, registered.secret),
            status=201,
            headers={"Location": f"/api/v1/webhooks/{registered.webhook.id}"}
            | (REPLAYED if registered.replayed else {}),
        )

    @openapi.list_webhooks
    def get(self, request: Request) -> Response:
        page = Page(request.query_params, PageQuery, "webhooks")
        webhooks, next_cursor = until_deadline(lambda: page.of(registry.webhooks()))
        return Response({"items": with_standing(webhooks), "nextCursor": next_cursor})


class WebhookById(Endpoint):
    """/webhooks/{id}"""

    @openapi.read_webhook
    def get(self, request: Request, webhook_id: UUID) -> Response:
        return webhook_answer(registry.find(webhook_id))

    @openapi.change_webhook
    def patch(self, request: Request, webhook_id: UUID) -> Response:
        asked = read(request, WebhookChanges)
        given = {name: getattr(asked, name) for name in asked.model_fields_set}
        return webhook_answer(registry.change(webhook_id, principal(request).actor, **given))

    @openapi.remove_webhook
    def delete(self, request: Request, webhook_id: UUID) -> Response:
        registry.remove(webhook_id, principal(request).actor)
        return Response(status=204)


class WebhookRotation(Endpoint):
    """/webhooks/{id}/rotation"""

    @openapi.rotate_secret
    def post(self, request: Request, webhook_id: UUID) -> Response:
        asked = read_optional(request, SecretToRotate)
        rotated = registry.rotate(
            webhook_id,
            principal(request).actor,
            rotation_id=asked.id,
            keyed=keyed(request, f"POST /webhooks/{webhook_id}/rotation", asked),
            former_valid=timedelta(hours=asked.former_valid_hours),
        )
        until = rotated.webhook.former_secret_until
        body = {"secret": rotated.secret, "formerSecretUntil": format_time(until) if until else None}
        return Response(body, headers=REPLAYED if rotated.replayed else {})


class WebhookTest(Endpoint):
    """/webhooks/{id}/test"""

    @openapi.test_webhook
    def post(self, request: Request, webhook_id: UUID) -> Response:
        return Response(delivery_body(registry.try_out(webhook_id)))


class WebhookDeliveries(Endpoint):
    """/webhooks/{id}/deliveries"""

    @openapi.list_deliveries
    def get(self, request: Request, webhook_id: UUID) -> Response:
        return _listed(request, webhook_id, "deliveries", registry.deliveries, delivery_bodies)


class WebhookDeadLetters(Endpoint):
    """/webhooks/{id}/dead-letters"""

    @openapi.list_dead_letters
    def get(self, request: Request, webhook_id: UUID) -> Response:
        return _listed(request, webhook_id, "dead_letters", parking.dead, dead_letter_bodies)

    @openapi.forget_dead_letters
    def delete(self, request: Request, webhook_id: UUID) -> Response:
        registry.forget(webhook_id, principal(request).actor)
        return Response(status=204)


class WebhookReplay(Endpoint):
    """/webhooks/{id}/replay"""

    @openapi.replay_dead_letters
    def post(self, request: Request, webhook_id: UUID) -> Response:
        return Response({"replayed": registry.replay(webhook_id, principal(request).actor)})


def _listed(
    request: Request,
    webhook_id: UUID,
    list_name: str,
    kept: Callable[[Subscriber], QuerySet[Any]],
    bodies: Callable[[Sequence[Any]], list[dict[str, Any]]],
) -> Response:
    """What is kept of the webhook."""
    page = NumberedPage(request.query_params, PageQuery, f"{list_name} of {webhook_id}")
    webhook = registry.find(webhook_id)
    found, next_cursor = until_deadline(lambda: page.of(kept(webhook)))
    return Response({"items": bodies(found), "nextCursor": next_cursor})


def with_standing(webhooks: Sequence[Subscriber]) -> list[dict[str, Any]]:
    """Each with how it fares; without those that were removed or renamed in this moment."""
    names = [webhook.name for webhook in webhooks]
    by_name = {standing.name: standing for standing in until_deadline(lambda: standings(names))}
    return [webhook_body(webhook, by_name[webhook.name]) for webhook in webhooks if webhook.name in by_name]


def webhook_answer(webhook: Subscriber) -> Response:
    for body in with_standing([webhook]):
        return Response(body)
    raise WebhookNotFound


# --- The bodies of the answers, by hand (bodies.py has their shapes) ---------------------------------
def registered_webhook_body(webhook: Subscriber, secret: str | None) -> dict[str, Any]:
    return _head_of(webhook) | {"secret": secret, "createdAt": format_time(webhook.created_at)}


def webhook_body(webhook: Subscriber, standing: Standing) -> dict[str, Any]:
    return _head_of(webhook) | {
        "isEnabled": webhook.is_enabled,
        "disabledBecause": webhook.disabled_because,
        "failingSince": _time(webhook.failing_since),
        "lastError": webhook.last_error,
        "retryAt": _time(webhook.retry_at),
        "deliveredAt": _time(webhook.delivered_at),
        "formerSecretUntil": _time(webhook.former_secret_until),
        "lag": round(standing.lag, 3),
        "parked": standing.parked,
        "dead": standing.dead,
        "createdAt": format_time(webhook.created_at),
    }


def _head_of(webhook: Subscriber) -> dict[str, Any]:
    return {
        "id": str(webhook.id),
        "name": webhook.name,
        "url": webhook.url,
        "types": webhook.types,
        "batch": webhook.batch,
    }


def delivery_bodies(deliveries: Sequence[Delivery]) -> list[dict[str, Any]]:
    return [delivery_body(each) for each in deliveries]


def delivery_body(delivery: Delivery) -> dict[str, Any]:
    return {
        "eventId": delivery.event_id,
        "events": delivery.events,
        "at": format_time(delivery.at),
        "durationMs": round(delivery.duration.total_seconds() * 1000),
        "statusCode": delivery.status_code,
        "error": delivery.error,
        "response": delivery.response,
    }


def dead_letter_bodies(letters: Sequence[ParkedEvent]) -> list[dict[str, Any]]:
    """With the events, which are made anew from the log."""
    wallets = {letter.event_id: letter.wallet_id for letter in letters}
    events = until_deadline(lambda: cloudevents.find(wallets))
    return [dead_letter_body(letter, events[letter.event_id]) for letter in letters]


def dead_letter_body(letter: ParkedEvent, event: Event) -> dict[str, Any]:
    return {
        "eventId": letter.event_id,
        "type": letter.type,
        "walletId": str(letter.wallet_id),
        "attempts": letter.attempts,
        "lastError": letter.last_error,
        "createdAt": format_time(letter.created_at),
        "event": orjson.loads(event.content),
    }


def _time(given: datetime | None) -> str | None:
    return None if given is None else format_time(given)
