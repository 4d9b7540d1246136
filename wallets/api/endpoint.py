"""What all views have in common. A view makes one call into the ledger and speaks only HTTP."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from wallets import ledger
from wallets.access import rights
from wallets.access.authentication import principal
from wallets.access.rights import Principal
from wallets.access.throttles import CallerThrottle
from wallets.api.fields import Schema
from wallets.api.parsing import idempotency_key, prefers
from wallets.api.renderers import JSONRenderer
from wallets.database_retry import retry_until_deadline
from wallets.keyed_requests import Keyed, digest_of, record
from wallets.ledger.commands import Command
from wallets.ledger.decisions import Posted
from wallets.ledger.tables import PENDING
from wallets.problems import FieldError, ValidationError

REPLAYED = {"Idempotent-Replayed": "true"}
_RENDERER = JSONRenderer()


class Endpoint(APIView):
    http_method_names = ["get", "head", "post", "patch", "delete"]
    throttle_classes: Sequence[type[BaseThrottle]] = [CallerThrottle]
    # Of a body, before it is parsed (wallets/api/parsing.py). MAX_BODY_BYTES bounds the length everywhere.
    max_body_bytes = 65_536  # texts and metadata take 20,000 with every character escaped
    max_values = 2_100  # 4,096 bytes of metadata hold fewer

    @property
    def default_response_headers(self) -> dict[str, str]:
        return {}  # DRF would tell every caller which methods are allowed; a 405 does

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        if request.META.get("HTTP_ACCEPT", "*/*") in ("*/*", "application/json"):
            return _RENDERER, _RENDERER.media_type  # as DRF would find out, for almost every request
        return super().perform_content_negotiation(request, force)


# --- From a request to a command --------------------------------------------------------------------
def naming(request: Request, chosen_id: UUID | None) -> dict[str, Any]:
    """Who sends the request's command, and what it is to be known by: its header's key, or its body's id."""
    caller = principal(request)
    return rights.sent_by(caller) | named(caller, _only_key(request, chosen_id), chosen_id)


def _only_key(request: Request, chosen_id: UUID | None) -> str | None:
    """The header's key. Raises ValidationError if the body has an id as well."""
    key = idempotency_key(request)
    if chosen_id and key:
        raise ValidationError(
            errors=[FieldError("id", "conflict", "give either an id or an Idempotency-Key")]
        )
    return key


def named(caller: Principal, key: str | None, chosen_id: UUID | None) -> dict[str, Any]:
    if chosen_id:
        return {"id": chosen_id, "key": caller.stored_key(str(chosen_id)), "client_chose_id": True}
    return {"key": caller.stored_key(key)}


def movement_fields(asked: Any) -> dict[str, Any]:
    """The fields that every command to move money has from its request."""
    return {"amount": asked.amount, "description": asked.description, "metadata": asked.metadata}


def deferrable_fields(request: Request, chosen_id: UUID | None) -> dict[str, Any]:
    """The fields of a command that can be carried out later: as `naming`, and whether it is to be."""
    return naming(request, chosen_id) | {"is_async": is_async(request)}


def is_async(request: Request) -> bool:
    """Whether the client would rather not wait."""
    return prefers(request, "respond-async")


def keyed(request: Request, request_line: str, body: Schema) -> Keyed | None:
    """The checked request with its Idempotency-Key, to be recorded; None without a key."""
    key = _only_key(request, getattr(body, "id", None))
    if key is None:
        return None
    return Keyed(principal(request).key_domain, key, digest_of(request_line, body))


def id_of_new(request: Request, request_line: str, body: Schema) -> UUID | None:
    """The id of what the request makes: the one in its body, or that of its Idempotency-Key.

    Raises IdempotencyKeyReused. All other checks of the form come before: the key stands for the request from
    here on.
    """
    first = keyed(request, request_line, body)
    return retry_until_deadline(lambda: record(first))[0] if first else getattr(body, "id", None)


def carry_out(request: Request, command: Command) -> Posted:
    """Raises Forbidden, or as ledger.submit does."""
    rights.require(principal(request), command)
    return ledger.submit(command)


# --- From an outcome to an answer -------------------------------------------------------------------
def replay_header(outcome: Any) -> dict[str, str]:
    """The header that tells a replay from a first answer."""
    return dict(REPLAYED) if outcome.replayed else {}


def answer(posted: Posted, body: dict[str, Any], path: str) -> Response:
    """201 with the new thing at `path`, or 202 with where its operation will be."""
    headers = replay_header(posted)
    if posted.operation.status == PENDING:
        headers["Location"] = f"/api/v1/operations/{posted.operation.id}"
        headers["Preference-Applied"] = "respond-async"
        return Response(body, status=202, headers=headers)
    headers["Location"] = f"/api/v1/{path}"
    return Response(body, status=201, headers=headers)
