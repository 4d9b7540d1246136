"""Views that manage webhooks."""

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from wallets.access.authentication import principal
from wallets.api.endpoint import Endpoint, id_of_new, keyed
from wallets.api.examples import WALLET_ID
from wallets.api.openapi import Declaration
from wallets.contract import responses
from wallets.contract.paging import NumberCursor, Page
from wallets.contract.parsing import read, read_optional
from wallets.contract.request_schemas import PageQuery, SecretToRotate, WebhookChanges, WebhookToRegister
from wallets.database_retry import retry_until_deadline
from wallets.events import cloudevents, parking, webhook_registry
from wallets.events.delivery_state import DeliveryState, standings
from wallets.events.webhook_registry import Registration
from wallets.models import Delivery, ParkedEvent, Subscriber
from wallets.problems import IdempotencyKeyReused, TooManyWebhooks, WebhookNameTaken, WebhookNotFound


class Webhooks(Endpoint):
    """/webhooks"""

    @Declaration(
        "registerWebhook",
        request=WebhookToRegister,
        examples={
            "balances": {
                "name": "shop",
                "url": "https://shop.example.com/wallet-events",
                "types": ["wallet.balance.changed"],
            }
        },
        status=201,
        response=responses.RegisteredWebhookBody,
        refusals=[IdempotencyKeyReused, TooManyWebhooks, WebhookNameTaken],
    )
    def post(self, request: Request) -> Response:
        """Register a webhook.

        The service posts events to its `url`, signed as Standard Webhooks defines with the `secret` of the
        response, which is shown once. With an `id` of your choice or an Idempotency-Key a retry is safe.
        """
        asked = read(request, WebhookToRegister)
        registered = webhook_registry.register(
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
        body = responses.RegisteredWebhookBody.of(registered.webhook) | {"secret": registered.secret}
        headers = {"Location": f"/api/v1/webhooks/{registered.webhook.id}"} | responses.replay_header(
            registered
        )
        return Response(body, status=201, headers=headers)

    @Declaration("listWebhooks", query=PageQuery, response=responses.WebhookPage)
    def get(self, request: Request) -> Response:
        """List webhooks, newest first.

        With their delivery state, without their secrets.
        """
        page = Page(request.query_params, PageQuery, "webhooks")
        return page.respond(webhook_registry.webhooks(), with_standing)


class WebhookById(Endpoint):
    """/webhooks/{id}"""

    @Declaration("getWebhook", response=responses.WebhookBody, refusals=[WebhookNotFound])
    def get(self, request: Request, webhook_id: UUID) -> Response:
        """Read a webhook.

        With its delivery state, without its secret.
        """
        return webhook_answer(webhook_registry.find(webhook_id))

    @Declaration(
        "updateWebhook",
        request=WebhookChanges,
        examples={"disable": {"isEnabled": False}},
        response=responses.WebhookBody,
        example={"isEnabled": False, "disabledBecause": "Disabled by key:abcd1234."},
        refusals=[WebhookNotFound, WebhookNameTaken],
    )
    def patch(self, request: Request, webhook_id: UUID) -> Response:
        """Change, disable or enable a webhook.

        A webhook that is enabled again continues where it stopped. Pending events are sent at once after that
        or to a changed `url`. Changed `types` apply to events that have not been read yet.
        """
        asked = read(request, WebhookChanges)
        return webhook_answer(webhook_registry.change(webhook_id, principal(request).actor, **asked.given()))

    @Declaration("deleteWebhook", no_content="It is gone.", refusals=[WebhookNotFound])
    def delete(self, request: Request, webhook_id: UUID) -> Response:
        """Remove a webhook.

        With its pending events, its dead letters and its deliveries.
        """
        webhook_registry.remove(webhook_id, principal(request).actor)
        return Response(status=204)


class WebhookRotation(Endpoint):
    """/webhooks/{id}/rotation"""

    @Declaration(
        "rotateWebhookSecret",
        request=SecretToRotate,
        examples={"two days to change it": {"formerValidHours": 48}},
        response=responses.SecretBody,
        refusals=[WebhookNotFound, IdempotencyKeyReused],
    )
    def post(self, request: Request, webhook_id: UUID) -> Response:
        """Rotate a webhook's secret.

        The new secret is shown once. For `formerValidHours` the former secret signs too, so that a request
        has two signatures. With an `id` of your choice or an Idempotency-Key a retry is safe.
        """
        asked = read_optional(request, SecretToRotate)
        rotated = webhook_registry.rotate(
            webhook_id,
            principal(request).actor,
            rotation_id=asked.id,
            keyed=keyed(request, f"POST /webhooks/{webhook_id}/rotation", asked),
            former_valid=timedelta(hours=asked.former_valid_hours),
        )
        return Response(responses.SecretBody.of(rotated), headers=responses.replay_header(rotated))


class WebhookTest(Endpoint):
    """/webhooks/{id}/test"""

    @Declaration(
        "testWebhook",
        response=responses.DeliveryBody,
        example={"eventId": f"{WALLET_ID}:test"},
        refusals=[WebhookNotFound],
    )
    def post(self, request: Request, webhook_id: UUID) -> Response:
        """Send a test event to a webhook.

        An event of the type `webhook.test`, also to a disabled webhook. The response describes the delivery.
        """
        return Response(delivery_body(webhook_registry.try_out(webhook_id)))


class WebhookDeliveries(Endpoint):
    """/webhooks/{id}/deliveries"""

    @Declaration(
        "listDeliveries", query=PageQuery, response=responses.DeliveryPage, refusals=[WebhookNotFound]
    )
    def get(self, request: Request, webhook_id: UUID) -> Response:
        """List a webhook's deliveries, newest first.

        All requests to it, including failed ones. The newest 1,000 are kept.
        """
        return _listed(
            request,
            webhook_id,
            "deliveries",
            webhook_registry.deliveries,
            lambda found: map(delivery_body, found),
        )


class WebhookDeadLetters(Endpoint):
    """/webhooks/{id}/dead-letters"""

    @Declaration(
        "listDeadLetters",
        query=PageQuery,
        response=responses.DeadLetterPage,
        refusals=[WebhookNotFound],
    )
    def get(self, request: Request, webhook_id: UUID) -> Response:
        """List a webhook's dead letters, newest first.

        Events whose delivery failed in every attempt.
        """
        return _listed(request, webhook_id, "dead_letters", parking.dead, dead_letter_bodies)

    @Declaration("deleteDeadLetters", no_content="They are gone.", refusals=[WebhookNotFound])
    def delete(self, request: Request, webhook_id: UUID) -> Response:
        """Delete a webhook's dead letters.

        All of them; this cannot be undone.
        """
        webhook_registry.forget(webhook_id, principal(request).actor)
        return Response(status=204)


class WebhookReplay(Endpoint):
    """/webhooks/{id}/replay"""

    @Declaration("replayDeadLetters", response=responses.ReplayBody, refusals=[WebhookNotFound])
    def post(self, request: Request, webhook_id: UUID) -> Response:
        """Replay a webhook's dead letters.

        All of them, with as many attempts as new events; the events of a wallet in their order.
        """
        return Response({"replayed": webhook_registry.replay(webhook_id, principal(request).actor)})


def _listed(
    request: Request,
    webhook_id: UUID,
    list_name: str,
    kept: Callable[[Subscriber], QuerySet[Any]],
    render: Callable[[list[Any]], Iterable[Any]],
) -> Response:
    """Respond with a page of the webhook's rows."""
    page = Page(request.query_params, PageQuery, f"{list_name} of {webhook_id}", NumberCursor)
    return page.respond(kept(webhook_registry.find(webhook_id)), render)


def with_standing(webhooks: Sequence[Subscriber]) -> list[dict[str, Any]]:
    """Return each webhook with its delivery state, without those that were removed or renamed meanwhile."""
    names = [webhook.name for webhook in webhooks]
    by_name = {standing.name: standing for standing in retry_until_deadline(lambda: standings(names))}
    return [_webhook_body(webhook, by_name[webhook.name]) for webhook in webhooks if webhook.name in by_name]


def _webhook_body(webhook: Subscriber, standing: DeliveryState) -> dict[str, Any]:
    found = {"lag": round(standing.lag, 3), "parked": standing.parked, "dead": standing.dead}
    return responses.WebhookBody.of(webhook) | found


def webhook_answer(webhook: Subscriber) -> Response:
    for body in with_standing([webhook]):
        return Response(body)
    raise WebhookNotFound


def delivery_body(delivery: Delivery) -> dict[str, Any]:
    return responses.DeliveryBody.of(delivery) | {
        "durationMs": round(delivery.duration.total_seconds() * 1000)
    }


def dead_letter_bodies(letters: Sequence[ParkedEvent]) -> list[dict[str, Any]]:
    """Return the dead letters with their events, which are built again from the log."""
    wallets = {letter.event_id: letter.wallet_id for letter in letters}
    events = retry_until_deadline(lambda: cloudevents.find(wallets))
    return [
        responses.DeadLetterBody.of(letter) | {"event": orjson.loads(events[letter.event_id].content)}
        for letter in letters
    ]
