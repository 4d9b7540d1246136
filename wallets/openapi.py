"""What the OpenAPI document says beyond the shapes: summaries, answers and an example of each.

Each name decorates the view's method of the same name. Refusals are listed in the order of their checks.
"""

from typing import Any
from uuid import UUID

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from pydantic import BaseModel

from wallets import problems
from wallets.problems import FieldError, Problem
from wallets.shapes import (
    OperationBody,
    OperationPage,
    OperationQuery,
    OperationToPost,
    PageQuery,
    ProblemBody,
    WalletBody,
    WalletChanges,
    WalletOperationToPost,
    WalletPage,
    WalletToOpen,
)


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "wallets.authentication.ApiAccess"
    name = "bearer"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "description": "Not asked for where API_ACCESS=open."}


WALLET_ID = "01930a5d-ac96-774b-8cce-b302099a8057"
OPERATION_ID = "01930a5d-b1c2-7d3e-9f40-5a6b7c8d9e0f"
TIME = "2026-11-21T09:30:00.000000Z"

WALLET_EXAMPLE = {
    "id": WALLET_ID,
    "currency": "RUB",
    "balance": "1000.00",
    "held": "0.00",
    "available": "1000.00",
    "overdraftLimit": "0.00",
    "maxBalance": None,
    "status": "ACTIVE",
    "label": "till 1",
    "metadata": {"shop": "north"},
    "sequence": 1,
    "createdAt": TIME,
    "updatedAt": TIME,
}
OPERATION_EXAMPLE = {
    "id": OPERATION_ID,
    "walletId": WALLET_ID,
    "sequence": 1,
    "operationType": "DEPOSIT",
    "amount": "1000.00",
    "currency": "RUB",
    "status": "COMPLETED",
    "reason": None,
    "balance": "1000.00",
    "transferId": None,
    "counterpartyWalletId": None,
    "holdId": None,
    "reversesId": None,
    "idempotencyKey": "order-1",
    "description": "",
    "metadata": {},
    "createdAt": TIME,
}

# What any request to the API can meet; a body adds its own.
ANY_REQUEST: tuple[type[Problem], ...] = (problems.Unauthorized, problems.NotAcceptable, problems.Unavailable)
ANY_BODY = (
    problems.UnsupportedMediaType,
    problems.PayloadTooLarge,
    problems.MalformedJson,
    problems.ValidationError,
)
MONEY_MOVES = (
    problems.WalletNotFound,
    problems.IdempotencyKeyReused,
    problems.WalletClosed,
    problems.WalletFrozen,
    problems.BalanceLimitExceeded,
    problems.InsufficientFunds,
    problems.TooManyRequests,
)


def _parameters(query: type[BaseModel]) -> list[OpenApiParameter]:
    """The fields of a query shape as parameters."""
    schema = query.model_json_schema()
    return [
        OpenApiParameter(name, _parameter_schema(field), description=field.get("description", ""))
        for name, field in schema["properties"].items()
    ]


def _parameter_schema(field: dict[str, Any]) -> dict[str, Any]:
    """Without null: a query has no way to write it, a parameter is there or it is not."""
    options = [option for option in field.get("anyOf", [field]) if option != {"type": "null"}]
    default = {"default": field["default"]} if field.get("default") is not None else {}
    return {key: value for key, value in options[0].items() if key not in ("title", "description")} | default


KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[\x21-\x7e]+$"},
    OpenApiParameter.HEADER,
    description="A repeat with the same key gets the first answer. Instead, the body may name the id.",
)
IF_NONE_MATCH = OpenApiParameter("If-None-Match", str, OpenApiParameter.HEADER)
IF_MATCH = OpenApiParameter("If-Match", str, OpenApiParameter.HEADER)
WALLET = OpenApiParameter("wallet_id", UUID, OpenApiParameter.PATH)
OPERATION = OpenApiParameter("operation_id", UUID, OpenApiParameter.PATH)
REQUEST_ID = OpenApiParameter(
    "X-Request-ID",
    str,
    OpenApiParameter.HEADER,
    response=True,
    description="Names the request in every answer.",
)


def _example(problem: type[Problem]) -> OpenApiExample:
    error = FieldError("amount", "out_of_range", "more than zero")
    instance = problem(errors=(error,)) if problem is problems.ValidationError else problem()
    return OpenApiExample(
        problem.code,
        instance.as_json("01930a5d-c0de-7000-8000-000000000000"),
        media_type=problems.CONTENT_TYPE,
        response_only=True,
    )


def _answers(
    status: int, body: type[BaseModel], example: dict[str, Any], *refusals: type[Problem]
) -> dict[Any, OpenApiResponse]:
    answers: dict[Any, OpenApiResponse] = {
        (status, "application/json"): OpenApiResponse(
            body, examples=[OpenApiExample("answer", example, response_only=True)]
        )
    }
    by_status: dict[int, list[type[Problem]]] = {}
    for refusal in refusals:
        by_status.setdefault(refusal.status, []).append(refusal)
    for code, kinds in sorted(by_status.items()):
        answers[code, problems.CONTENT_TYPE] = OpenApiResponse(
            ProblemBody,
            description="; ".join(kind.code for kind in kinds),
            examples=[_example(kind) for kind in kinds],
        )
    return answers


def _request(name: str, example: dict[str, Any]) -> OpenApiExample:
    return OpenApiExample(name, example, request_only=True)


open_wallet = extend_schema(
    summary="Open a wallet",
    description="With an `id` of your choice it is safe to repeat: the same request is answered again.",
    tags=["wallets"],
    parameters=[REQUEST_ID],
    request=WalletToOpen,
    examples=[_request("a wallet in euros", {"currency": "EUR", "label": "till 1"})],
    responses=_answers(
        201,
        WalletBody,
        WALLET_EXAMPLE | {"balance": "0.00", "available": "0.00", "sequence": 0},
        *ANY_REQUEST,
        *ANY_BODY,
        problems.IdempotencyKeyReused,
    ),
)
list_wallets = extend_schema(
    operation_id="wallets_list",
    summary="List wallets, newest first",
    description="Pages by cursor: stable while wallets are opened.",
    tags=["wallets"],
    parameters=[*_parameters(PageQuery), REQUEST_ID],
    responses=_answers(
        200,
        WalletPage,
        {"items": [WALLET_EXAMPLE], "nextCursor": None},
        *ANY_REQUEST,
        problems.ValidationError,
    ),
)
read_wallet = extend_schema(
    operation_id="wallets_read",
    summary="Read a wallet",
    description="Never older than the request.",
    tags=["wallets"],
    parameters=[WALLET, IF_NONE_MATCH, REQUEST_ID],
    responses=_answers(200, WalletBody, WALLET_EXAMPLE, *ANY_REQUEST, problems.WalletNotFound)
    | {304: OpenApiResponse(description="Nothing has changed since If-None-Match's ETag.")},
)
change_wallet = extend_schema(
    operation_id="wallets_change",
    summary="Rename, freeze, thaw or close a wallet",
    description="A wallet is closed only at zero, and for ever.",
    tags=["wallets"],
    parameters=[WALLET, IF_MATCH, REQUEST_ID],
    request=WalletChanges,
    examples=[_request("freeze", {"status": "FROZEN"})],
    responses=_answers(
        200,
        WalletBody,
        WALLET_EXAMPLE | {"status": "FROZEN"},
        *ANY_REQUEST,
        *ANY_BODY,
        problems.WalletNotFound,
        problems.PreconditionFailed,
        problems.WalletClosed,
        problems.WalletNotEmpty,
        problems.TooManyRequests,
    ),
)
post_operation = extend_schema(
    operation_id="operations_post",
    summary="Deposit or withdraw",
    description="Answered when it is committed. A refusal by a rule is recorded, and moves nothing.",
    tags=["operations"],
    parameters=[WALLET, KEY, REQUEST_ID],
    request=OperationToPost,
    examples=[
        _request("deposit", {"operationType": "DEPOSIT", "amount": "1000.00"}),
        _request("withdraw", {"operationType": "WITHDRAW", "amount": 115.6, "description": "coffee"}),
    ],
    responses=_answers(201, OperationBody, OPERATION_EXAMPLE, *ANY_REQUEST, *ANY_BODY, *MONEY_MOVES),
)
post_wallet_operation = extend_schema(
    operation_id="operations_post_by_body",
    summary="Deposit or withdraw, with the wallet in the body",
    description="`valletId` is taken as a spelling of `walletId`.",
    tags=["operations"],
    parameters=[KEY, REQUEST_ID],
    request=WalletOperationToPost,
    examples=[_request("deposit", {"walletId": WALLET_ID, "operationType": "DEPOSIT", "amount": 1000})],
    responses=_answers(201, OperationBody, OPERATION_EXAMPLE, *ANY_REQUEST, *ANY_BODY, *MONEY_MOVES),
)
read_operation = extend_schema(
    operation_id="operations_read",
    summary="Read an operation",
    description="As it was answered, for ever: the ledger is only added to.",
    tags=["operations"],
    parameters=[OPERATION, REQUEST_ID],
    responses=_answers(200, OperationBody, OPERATION_EXAMPLE, *ANY_REQUEST, problems.OperationNotFound),
)
list_operations = extend_schema(
    operation_id="operations_list",
    summary="List a wallet's operations, newest first",
    description="Refused operations are history too. The cursor carries its filters.",
    tags=["operations"],
    parameters=[WALLET, *_parameters(OperationQuery), REQUEST_ID],
    responses=_answers(
        200,
        OperationPage,
        {"items": [OPERATION_EXAMPLE], "nextCursor": None},
        *ANY_REQUEST,
        problems.ValidationError,
        problems.WalletNotFound,
    ),
)
