"""Webhooks: who is told what happens."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from wallets.access.authentication import principal
from wallets.api import openapi
from wallets.api.bodies import DeadLetterBody, DeliveryBody, RegisteredWebhookBody, SecretBody, WebhookBody
from wallets.api.endpoint import REPLAYED, Endpoint, id_of_new, keyed
from wallets.api.paging import NumberedPage, Page
from wallets.api.requests import read, read_optional
from wallets.api.shapes import PageQuery, SecretToRotate, WebhookChanges, WebhookToRegister
from wallets.events import cloudevents, parking, registry
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
            RegisteredWebhookBody.of(registered.webhook) | {"secret": registered.secret},
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
        return Response(SecretBody.of(rotated), headers=REPLAYED if rotated.replayed else {})


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
    return [_webhook_body(webhook, by_name[webhook.name]) for webhook in webhooks if webhook.name in by_name]


def _webhook_body(webhook: Subscriber, standing: Standing) -> dict[str, Any]:
    found = {"lag": round(standing.lag, 3), "parked": standing.parked, "dead": standing.dead}
    return WebhookBody.of(webhook) | found


def webhook_answer(webhook: Subscriber) -> Response:
    for body in with_standing([webhook]):
        return Response(body)
    raise WebhookNotFound


def delivery_bodies(deliveries: Sequence[Delivery]) -> list[dict[str, Any]]:
    return [delivery_body(each) for each in deliveries]


def delivery_body(delivery: Delivery) -> dict[str, Any]:
    return DeliveryBody.of(delivery) | {"durationMs": round(delivery.duration.total_seconds() * 1000)}


def dead_letter_bodies(letters: Sequence[ParkedEvent]) -> list[dict[str, Any]]:
    """With the events, which are made anew from the log."""
    wallets = {letter.event_id: letter.wallet_id for letter in letters}
    events = until_deadline(lambda: cloudevents.find(wallets))
    return [
        DeadLetterBody.of(letter) | {"event": orjson.loads(events[letter.event_id].content)}
        for letter in letters
    ]
