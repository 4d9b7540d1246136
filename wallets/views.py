"""The API. A view makes one call into the ledger and speaks only HTTP."""

from typing import Any
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from wallets import ledger, openapi
from wallets.ledger.commands import COMMANDS
from wallets.ledger.reader import read_wallet
from wallets.ledger.recovery import until_deadline
from wallets.ledger.wallets import Change, Opening, change_wallet, open_wallet
from wallets.models import Operation, Wallet
from wallets.paging import Page
from wallets.problems import (
    FieldError,
    OperationNotFound,
    PreconditionFailed,
    ValidationError,
    WalletNotFound,
)
from wallets.renderers import JSONRenderer
from wallets.requests import idempotency_key, read
from wallets.shapes import (
    OperationQuery,
    OperationToPost,
    PageQuery,
    WalletChanges,
    WalletOperationToPost,
    WalletToOpen,
    operation_body,
    wallet_body,
)

REPLAYED = {"Idempotent-Replayed": "true"}
_RENDERER = JSONRenderer()


class Endpoint(APIView):
    """What all of them have in common."""

    http_method_names = ["get", "head", "post", "patch"]

    @property
    def default_response_headers(self) -> dict[str, str]:
        return {}  # DRF would tell every caller which methods are allowed; a 405 does

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        if request.META.get("HTTP_ACCEPT", "*/*") in ("*/*", "application/json"):
            return _RENDERER, _RENDERER.media_type  # as DRF would find out, for almost every request
        return super().perform_content_negotiation(request, force)


# --- Wallets ----------------------------------------------------------------------------------------
class OpenWallet(Endpoint):
    """/wallet/create"""

    @openapi.open_wallet
    def post(self, request: Request) -> Response:
        asked = read(request, WalletToOpen)
        opened = open_wallet(Opening(**{name: getattr(asked, name) for name in WalletToOpen.model_fields}))
        headers = {"Location": f"/api/v1/wallets/{opened.wallet.id}", "ETag": etag(opened.wallet)}
        return Response(
            wallet_body(opened.wallet), status=201, headers=headers | (REPLAYED if opened.replayed else {})
        )


class Wallets(OpenWallet):
    """/wallets"""

    @openapi.list_wallets
    def get(self, request: Request) -> Response:
        page = Page(request.query_params, PageQuery)
        wallets, next_cursor = until_deadline(lambda: page.of(Wallet.objects.all()))
        return Response({"items": [wallet_body(wallet) for wallet in wallets], "nextCursor": next_cursor})


class WalletById(Endpoint):
    """/wallets/{id}"""

    @openapi.read_wallet
    def get(self, request: Request, wallet_id: UUID) -> Response:
        wallet = read_wallet(wallet_id)
        if wallet is None:
            raise WalletNotFound
        tag = etag(wallet)
        if matches(request.META.get("HTTP_IF_NONE_MATCH"), tag):
            return Response(status=304, headers={"ETag": tag})
        return Response(wallet_body(wallet), headers={"ETag": tag})

    @openapi.change_wallet
    def patch(self, request: Request, wallet_id: UUID) -> Response:
        asked = read(request, WalletChanges)
        expected = request.META.get("HTTP_IF_MATCH")

        def as_expected(wallet: Wallet) -> None:
            if expected is not None and not matches(expected, etag(wallet)):
                raise PreconditionFailed

        change = Change(**{name: getattr(asked, name) for name in asked.model_fields_set})
        wallet = change_wallet(wallet_id, change, precondition=as_expected)
        return Response(wallet_body(wallet), headers={"ETag": etag(wallet)})


def etag(wallet: Wallet) -> str:
    """Changes with every operation and change: no two of them share a time."""
    return f'"{wallet.sequence}-{wallet.updated_at.timestamp():.6f}"'


def matches(header: str | None, tag: str) -> bool:
    """Whether an If-Match or If-None-Match header names the tag."""
    if header is None:
        return False
    return header.strip() == "*" or tag in (item.strip().removeprefix("W/") for item in header.split(","))


# --- Operations -------------------------------------------------------------------------------------
def post_operation(request: Request, wallet_id: UUID, asked: OperationToPost) -> Response:
    key = idempotency_key(request)
    if asked.id and key:
        detail = "give either an id or an Idempotency-Key"
        raise ValidationError(errors=[FieldError("id", "conflict", detail)])
    chosen = {"id": asked.id, "key": str(asked.id), "client_chose_id": True} if asked.id else {"key": key}
    posted = ledger.submit(
        COMMANDS[asked.operation_type](
            wallet_id=wallet_id,
            amount=asked.amount,
            description=asked.description,
            metadata=asked.metadata,
            **chosen,
        )
    )
    headers = {"Location": f"/api/v1/operations/{posted.operation.id}"}
    return Response(
        operation_body(posted.operation, posted.currency),
        status=201,
        headers=headers | (REPLAYED if posted.replayed else {}),
    )


class WalletOperation(Endpoint):
    """/wallets/{id}/operation"""

    @openapi.post_operation
    def post(self, request: Request, wallet_id: UUID) -> Response:
        return post_operation(request, wallet_id, read(request, OperationToPost))


class WalletOperationInBody(Endpoint):
    """/wallet"""

    @openapi.post_wallet_operation
    def post(self, request: Request) -> Response:
        asked = read(request, WalletOperationToPost)
        return post_operation(request, asked.wallet_id, asked)


class OperationById(Endpoint):
    """/operations/{id}"""

    @openapi.read_operation
    def get(self, request: Request, operation_id: UUID) -> Response:
        operations = Operation.objects.select_related("wallet").filter(id=operation_id)
        operation = until_deadline(operations.first)
        if operation is None:
            raise OperationNotFound
        return Response(operation_body(operation, operation.wallet.currency))


class WalletOperations(Endpoint):
    """/wallets/{id}/operations"""

    @openapi.list_operations
    def get(self, request: Request, wallet_id: UUID) -> Response:
        page = Page(request.query_params, OperationQuery)
        wallet = read_wallet(wallet_id)
        if wallet is None:
            raise WalletNotFound
        query = page.query
        given = {
            "type": query.type,
            "status": query.status,
            "created_at__gte": query.from_,
            "created_at__lt": query.to,
        }
        filters = {name: value for name, value in given.items() if value is not None}
        history = Operation.objects.filter(wallet_id=wallet_id, **filters)
        operations, next_cursor = until_deadline(lambda: page.of(history))
        items = [operation_body(operation, wallet.currency) for operation in operations]
        return Response({"items": items, "nextCursor": next_cursor})
