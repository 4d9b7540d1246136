"""What the OpenAPI document says beyond the shapes: summaries, answers and an example of each.

Each name decorates the view's method of the same name. Refusals are listed in the order of their checks.
"""

from typing import Any
from uuid import UUID

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from pydantic import BaseModel

from wallets import problems
from wallets.access.rights import NEEDED, PERSON
from wallets.api.bodies import (
    BalanceBody,
    BulkBody,
    DeadLetterPage,
    DeliveryBody,
    DeliveryPage,
    HoldBody,
    HoldPage,
    OperationBody,
    OperationPage,
    OwnWalletBody,
    PersonBody,
    ProblemBody,
    RegisteredWebhookBody,
    ReplayBody,
    SecretBody,
    StatementBody,
    TransferBody,
    WalletBody,
    WalletPage,
    WebhookBody,
    WebhookPage,
)
from wallets.api.examples import (
    BALANCE_EXAMPLE,
    CAPTURE_EXAMPLE,
    DEAD_LETTER_EXAMPLE,
    DELIVERY_EXAMPLE,
    EVENT_STREAM,
    HOLD_EXAMPLE,
    OPERATION_EXAMPLE,
    OTHER_WALLET_ID,
    PENDING_TRANSFER,
    PERSON_EXAMPLE,
    REGISTERED_EXAMPLE,
    REVERSAL_EXAMPLE,
    SECRET_EXAMPLE,
    STATEMENT_AS_CSV,
    STATEMENT_EXAMPLE,
    TIME,
    TRANSFER_EXAMPLE,
    WALLET_EXAMPLE,
    WALLET_ID,
    WEBHOOK_EXAMPLE,
    pending,
)
from wallets.api.shapes import (
    MAX_SHARED_KEY,
    BalanceQuery,
    BulkToPost,
    Credentials,
    EventsQuery,
    HoldQuery,
    HoldToPlace,
    Nothing,
    OperationQuery,
    OperationToPost,
    PageQuery,
    PartToTake,
    PersonToSignUp,
    SecretToRotate,
    StatementQuery,
    TransferToPost,
    WalletChanges,
    WalletOperationToPost,
    WalletToOpen,
    WebhookChanges,
    WebhookToRegister,
)
from wallets.api.values import MAX_KEY_LENGTH
from wallets.problems import FieldError, Problem


class ApiAccessScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "wallets.access.authentication.ApiAccess"
    name = ["bearer", "session"]

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[Any]]]:
        """Any one of them; {} stands for none at all."""
        needed = NEEDED[type(auto_schema.view).__name__][auto_schema.method]
        if needed == (PERSON,):
            return [{"session": []}]
        nothing: list[dict[str, list[Any]]] = [{}] if settings.API_ACCESS == "open" else []
        return [{name: []} for name in self.name] + nothing

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, Any]]:
        bearer = {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key, wk_…, with the scope that the request needs. Not asked for where"
            " API_ACCESS=open.",
        }
        session = {
            "type": "apiKey",
            "in": "cookie",
            "name": settings.SESSION_COOKIE_NAME,
            "description": "Of who is logged in. What changes something repeats the cookie csrftoken in"
            " X-CSRFToken.",
        }
        return [bearer, session]


# What any request to the API can meet; a body adds its own.
ANY_REQUEST: tuple[type[Problem], ...] = (
    problems.NotAcceptable,
    problems.Unauthorized,
    problems.Forbidden,
    problems.TooManyRequests,
    problems.Unavailable,
    problems.QueryTimeout,
)
# What is for everybody.
ANYBODY = tuple(
    problem for problem in ANY_REQUEST if problem not in (problems.Unauthorized, problems.Forbidden)
)
ANY_BODY = (
    problems.UnsupportedMediaType,
    problems.PayloadTooLarge,
    problems.MalformedJson,
    problems.ValidationError,
)
NEW_COMMAND = (problems.TooManyRequests, problems.WalletNotFound, problems.IdempotencyKeyReused)
MOVABLE = (problems.WalletClosed, problems.WalletFrozen)
LIMITS = (problems.InsufficientFunds, problems.BalanceLimitExceeded)
TRANSFER_RULES = (problems.CurrencyMismatch, *MOVABLE, *LIMITS, problems.TargetCannotReceive)
READ_WALLET = (problems.TooManyRequests, problems.WalletNotFound)
OPERATION_REFUSALS = (*ANY_BODY, *NEW_COMMAND, *MOVABLE, *LIMITS)


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


def _key(longest: int) -> OpenApiParameter:
    return OpenApiParameter(
        "Idempotency-Key",
        {
            "type": "string",
            "pattern": rf'^("[\x21\x23-\x7e]{{1,{longest}}}"|[\x21\x23-\x2b\x2d-\x7e]{{1,{longest}}})$',
        },
        OpenApiParameter.HEADER,
        description="A repeat with the same key gets the first answer. Instead, the body may name the id."
        " A key with a comma is in double quotes.",
    )


KEY = _key(MAX_KEY_LENGTH)
SHARED_KEY = _key(MAX_SHARED_KEY)
IF_NONE_MATCH = OpenApiParameter("If-None-Match", str, OpenApiParameter.HEADER)
IF_MATCH = OpenApiParameter("If-Match", str, OpenApiParameter.HEADER)
PREFER = OpenApiParameter(
    "Prefer",
    {"type": "string", "examples": ["respond-async"]},
    OpenApiParameter.HEADER,
    description="respond-async: answer 202 when it is accepted, durably, and carry it out later.",
)
HOLD = OpenApiParameter("hold_id", UUID, OpenApiParameter.PATH)
TRANSFER = OpenApiParameter("transfer_id", UUID, OpenApiParameter.PATH)
WALLET = OpenApiParameter("wallet_id", UUID, OpenApiParameter.PATH)
OPERATION = OpenApiParameter("operation_id", UUID, OpenApiParameter.PATH)
WEBHOOK = OpenApiParameter("webhook_id", UUID, OpenApiParameter.PATH)
REQUEST_ID = OpenApiParameter(
    "X-Request-ID",
    str,
    OpenApiParameter.HEADER,
    response=True,
    description="Names the request in every answer.",
)
LEFT = OpenApiParameter(
    "RateLimit",
    {"type": "string", "examples": ['"user";r=298;t=41']},
    OpenApiParameter.HEADER,
    response=True,
    description="Where a rate limit is set: how many more requests, and for how many seconds.",
)
POLICY = OpenApiParameter(
    "RateLimit-Policy",
    {"type": "string", "examples": ['"user";q=300;w=60']},
    OpenApiParameter.HEADER,
    response=True,
    description="How many requests in how many seconds.",
)
ANSWERED = (REQUEST_ID, LEFT, POLICY)


def _example(problem: type[Problem]) -> OpenApiExample:
    error = FieldError("amount", "out_of_range", "more than zero")
    instance = problem(errors=(error,)) if problem is problems.ValidationError else problem()
    return OpenApiExample(
        problem.code,
        instance.as_json("01930a5d-c0de-7000-8000-000000000000"),
        media_type=problems.CONTENT_TYPE,
        response_only=True,
    )


def _example_of_first(problem: type[Problem]) -> OpenApiExample:
    """What an atomic bulk is answered for this refusal of one of its operations."""
    instance = problem(errors=(FieldError("operations.3", problem.code, problem.title),))
    instance.status = 409  # type: ignore[misc]  # of all of them together, whatever it would be alone
    return OpenApiExample(
        f"{problem.code} of one",
        instance.as_json("01930a5d-c0de-7000-8000-000000000000"),
        media_type=problems.CONTENT_TYPE,
        response_only=True,
    )


def _answers(
    status: int, body: type[BaseModel], example: dict[str, Any], *refusals: type[Problem]
) -> dict[Any, OpenApiResponse]:
    answer = OpenApiResponse(body, examples=[OpenApiExample("answer", example, response_only=True)])
    return {(status, "application/json"): answer} | _refusals(*refusals)


def _refusals(*refusals: type[Problem]) -> dict[Any, OpenApiResponse]:
    answers: dict[Any, OpenApiResponse] = {}
    by_status: dict[int, list[type[Problem]]] = {}
    for refusal in dict.fromkeys(refusals):
        by_status.setdefault(refusal.status, []).append(refusal)
    for code, kinds in sorted(by_status.items()):
        answers[code, problems.CONTENT_TYPE] = OpenApiResponse(
            ProblemBody,
            description="; ".join(kind.code for kind in kinds),
            examples=[_example(kind) for kind in kinds],
        )
    return answers


def _accepted(body: type[BaseModel], example: dict[str, Any]) -> dict[Any, OpenApiResponse]:
    """The answer to what is to be carried out later."""
    return {
        (202, "application/json"): OpenApiResponse(
            body,
            description="Accepted: Prefer asked for that. Location tells where it will be.",
            examples=[OpenApiExample("accepted", example, response_only=True)],
        )
    }


def _first_refusal(*refusals: type[Problem]) -> dict[Any, OpenApiResponse]:
    """The answer to an atomic bulk of which one operation was refused."""
    return {
        (409, problems.CONTENT_TYPE): OpenApiResponse(
            ProblemBody,
            description="; ".join(kind.code for kind in refusals),
            examples=[_example_of_first(kind) for kind in refusals],
        )
    }


def _request(name: str, example: dict[str, Any]) -> OpenApiExample:
    return OpenApiExample(name, example, request_only=True)


open_wallet = extend_schema(
    summary="Open a wallet",
    description="With an `id` of your choice or an Idempotency-Key it is safe to repeat: the same request is"
    " answered again. What a restricted key opens is its owner's. An `overdraftLimit` of more than zero takes"
    " the scope limits:write as well.",
    tags=["wallets"],
    parameters=[KEY, *ANSWERED],
    request=WalletToOpen,
    examples=[
        _request("a wallet in euros", {"currency": "EUR", "label": "till 1", "overdraftLimit": "100.00"})
    ],
    responses=_answers(
        201,
        WalletBody,
        WALLET_EXAMPLE | {"balance": "0.00", "available": "0.00", "sequence": 0},
        *ANY_REQUEST,
        *ANY_BODY,
        problems.TooManyRequests,
        problems.IdempotencyKeyReused,
    ),
)
list_wallets = extend_schema(
    operation_id="wallets_list",
    summary="List wallets, newest first",
    description="Those that the key may see. Pages by cursor: stable while wallets are opened.",
    tags=["wallets"],
    parameters=[*_parameters(PageQuery), *ANSWERED],
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
    parameters=[WALLET, IF_NONE_MATCH, *ANSWERED],
    responses=_answers(200, WalletBody, WALLET_EXAMPLE, *ANY_REQUEST, *READ_WALLET)
    | {304: OpenApiResponse(description="Nothing has changed since If-None-Match's ETag.")},
)
change_wallet = extend_schema(
    operation_id="wallets_change",
    summary="Rename, freeze, thaw or close a wallet",
    description="A wallet is closed only at zero, and for ever.",
    tags=["wallets"],
    parameters=[WALLET, IF_MATCH, *ANSWERED],
    request=WalletChanges,
    examples=[_request("freeze", {"status": "FROZEN"})],
    responses=_answers(
        200,
        WalletBody,
        WALLET_EXAMPLE | {"status": "FROZEN"},
        *ANY_REQUEST,
        *ANY_BODY,
        problems.TooManyRequests,
        problems.WalletNotFound,
        problems.PreconditionFailed,
        problems.WalletClosed,
        problems.WalletNotEmpty,
    ),
)
post_operation = extend_schema(
    operation_id="operations_post",
    summary="Deposit or withdraw",
    description="Answered when it is committed. A refusal by a rule is recorded, and moves nothing.",
    tags=["operations"],
    parameters=[WALLET, KEY, PREFER, *ANSWERED],
    request=OperationToPost,
    examples=[
        _request("deposit", {"operationType": "DEPOSIT", "amount": "1000.00"}),
        _request("withdraw", {"operationType": "WITHDRAW", "amount": 115.6, "description": "coffee"}),
    ],
    responses=_accepted(OperationBody, pending(OPERATION_EXAMPLE))
    | _answers(201, OperationBody, OPERATION_EXAMPLE, *ANY_REQUEST, *OPERATION_REFUSALS),
)
post_wallet_operation = extend_schema(
    operation_id="operations_post_by_body",
    summary="Deposit or withdraw, with the wallet in the body",
    description="`valletId` is taken as a spelling of `walletId`.",
    tags=["operations"],
    parameters=[KEY, PREFER, *ANSWERED],
    request=WalletOperationToPost,
    examples=[_request("deposit", {"walletId": WALLET_ID, "operationType": "DEPOSIT", "amount": 1000})],
    responses=_accepted(OperationBody, pending(OPERATION_EXAMPLE))
    | _answers(201, OperationBody, OPERATION_EXAMPLE, *ANY_REQUEST, *OPERATION_REFUSALS),
)
read_operation = extend_schema(
    operation_id="operations_read",
    summary="Read an operation",
    description="As it was answered, for ever: the ledger is only added to.",
    tags=["operations"],
    parameters=[OPERATION, *ANSWERED],
    responses=_answers(200, OperationBody, OPERATION_EXAMPLE, *ANY_REQUEST, problems.OperationNotFound),
)
list_operations = extend_schema(
    operation_id="operations_list",
    summary="List a wallet's operations, newest first",
    description="Refused operations are history too. The cursor carries its filters.",
    tags=["operations"],
    parameters=[WALLET, *_parameters(OperationQuery), *ANSWERED],
    responses=_answers(
        200,
        OperationPage,
        {"items": [OPERATION_EXAMPLE], "nextCursor": None},
        *ANY_REQUEST,
        problems.ValidationError,
        *READ_WALLET,
    ),
)
post_operations = extend_schema(
    operation_id="operations_post_many",
    summary="Post many operations and transfers at once",
    description="Up to 1,000, in their order, each with its own verdict. With `atomic` all of them are"
    " carried out or none: then the answer is the first refusal. A key in the header stands for"
    " the whole request, and for all operations that have none.",
    tags=["operations"],
    parameters=[SHARED_KEY, PREFER, *ANSWERED],
    request=BulkToPost,
    examples=[
        _request(
            "a deposit and a transfer",
            {
                "operations": [
                    {
                        "walletId": WALLET_ID,
                        "operationType": "DEPOSIT",
                        "amount": "10.00",
                        "idempotencyKey": "a",
                    },
                    {"sourceWalletId": WALLET_ID, "targetWalletId": OTHER_WALLET_ID, "amount": "5.00"},
                ],
                "atomic": False,
            },
        )
    ],
    responses=_answers(
        200,
        BulkBody,
        {
            "results": [
                {"status": 201, "replayed": False, "operation": OPERATION_EXAMPLE},
                {"status": 201, "replayed": False, "transfer": TRANSFER_EXAMPLE},
            ]
        },
        *ANY_REQUEST,
        *ANY_BODY,
        problems.IdempotencyKeyReused,
        problems.TooManyRequests,
    )
    | _first_refusal(problems.WalletNotFound, problems.IdempotencyKeyReused, *TRANSFER_RULES),
)
reverse_operation = extend_schema(
    operation_id="operations_reverse",
    summary="Reverse an operation, as a whole or in part",
    description="Moves money back, of a transfer on both sides. All reversals of an operation together never"
    " move more than it did.",
    tags=["operations"],
    parameters=[OPERATION, KEY, PREFER, *ANSWERED],
    request=PartToTake,
    examples=[_request("a part", {"amount": "100.00"})],
    responses=_accepted(OperationBody, pending(REVERSAL_EXAMPLE))
    | _answers(
        201,
        OperationBody,
        REVERSAL_EXAMPLE,
        *ANY_REQUEST,
        *ANY_BODY,
        problems.OperationNotFound,
        problems.TooManyRequests,
        problems.IdempotencyKeyReused,
        *MOVABLE,
        problems.OperationNotReversible,
        problems.ReversalExceedsOriginal,
        *LIMITS,
        problems.TargetCannotReceive,
    ),
)
post_transfer = extend_schema(
    operation_id="transfers_post",
    summary="Transfer money to another wallet",
    description="Both wallets or none; one currency. The Idempotency-Key is the source's. A restricted key"
    " pays from its owner's wallets alone, to any.",
    tags=["transfers"],
    parameters=[KEY, PREFER, *ANSWERED],
    request=TransferToPost,
    examples=[
        _request(
            "transfer",
            {"sourceWalletId": WALLET_ID, "targetWalletId": OTHER_WALLET_ID, "amount": "15.50"},
        )
    ],
    responses=_accepted(TransferBody, PENDING_TRANSFER)
    | _answers(201, TransferBody, TRANSFER_EXAMPLE, *ANY_REQUEST, *ANY_BODY, *NEW_COMMAND, *TRANSFER_RULES),
)
read_transfer = extend_schema(
    operation_id="transfers_read",
    summary="Read a transfer",
    description="With the operations on both sides. To a restricted key another owner's balance is null.",
    tags=["transfers"],
    parameters=[TRANSFER, *ANSWERED],
    responses=_answers(200, TransferBody, TRANSFER_EXAMPLE, *ANY_REQUEST, problems.TransferNotFound),
)
place_hold = extend_schema(
    operation_id="holds_place",
    summary="Set money aside",
    description="Moves nothing: `held` grows and `available` shrinks, until the hold is captured or voided,"
    " or expires.",
    tags=["holds"],
    parameters=[WALLET, KEY, *ANSWERED],
    request=HoldToPlace,
    examples=[_request("for a week", {"amount": "200.00", "expiresAt": "2026-11-28T09:30:00Z"})],
    responses=_answers(
        201,
        HoldBody,
        HOLD_EXAMPLE,
        *ANY_REQUEST,
        *ANY_BODY,
        *NEW_COMMAND,
        *MOVABLE,
        problems.InsufficientFunds,
    ),
)
list_holds = extend_schema(
    operation_id="holds_list",
    summary="List a wallet's holds, newest first",
    description="The cursor carries its filter.",
    tags=["holds"],
    parameters=[WALLET, *_parameters(HoldQuery), *ANSWERED],
    responses=_answers(
        200,
        HoldPage,
        {"items": [HOLD_EXAMPLE], "nextCursor": None},
        *ANY_REQUEST,
        problems.ValidationError,
        *READ_WALLET,
    ),
)
read_hold = extend_schema(
    operation_id="holds_read",
    summary="Read a hold",
    description="It expires at its time, not when a job happens to run.",
    tags=["holds"],
    parameters=[HOLD, *ANSWERED],
    responses=_answers(200, HoldBody, HOLD_EXAMPLE, *ANY_REQUEST, problems.HoldNotFound),
)
capture_hold = extend_schema(
    operation_id="holds_capture",
    summary="Take what a hold has set aside, or a part of it",
    description="Once; the rest is released.",
    tags=["holds"],
    parameters=[HOLD, KEY, PREFER, *ANSWERED],
    request=PartToTake,
    examples=[_request("a part", {"amount": "150.00"})],
    responses=_accepted(OperationBody, pending(CAPTURE_EXAMPLE))
    | _answers(
        201,
        OperationBody,
        CAPTURE_EXAMPLE,
        *ANY_REQUEST,
        *ANY_BODY,
        problems.HoldNotFound,
        problems.TooManyRequests,
        problems.IdempotencyKeyReused,
        *MOVABLE,
        problems.HoldNotActive,
        problems.HoldAmountExceeded,
    ),
)
void_hold = extend_schema(
    operation_id="holds_void",
    summary="Release all that a hold has set aside",
    description="In a frozen wallet too: no money moves.",
    tags=["holds"],
    parameters=[HOLD, KEY, *ANSWERED],
    request=Nothing,
    examples=[_request("nothing to say", {})],
    responses=_answers(
        200,
        HoldBody,
        HOLD_EXAMPLE | {"status": "VOIDED", "endedAt": TIME},
        *ANY_REQUEST,
        *ANY_BODY,
        problems.HoldNotFound,
        problems.TooManyRequests,
        problems.IdempotencyKeyReused,
        problems.WalletClosed,
        problems.HoldNotActive,
    ),
)
read_balance = extend_schema(
    operation_id="balance_read",
    summary="Read a balance, as it is or as it was",
    description="Exact for every moment, with all that happened up to it: whatever is in progress is waited"
    " for. Before the wallet's first operation it is zero; before the wallet existed there is none.",
    tags=["history"],
    parameters=[WALLET, *_parameters(BalanceQuery), *ANSWERED],
    responses=_answers(
        200,
        BalanceBody,
        BALANCE_EXAMPLE,
        *ANY_REQUEST,
        problems.ValidationError,
        problems.WalletNotFound,
        problems.TooManyRequests,
    ),
)
read_statement = extend_schema(
    operation_id="statement_read",
    summary="Read a statement",
    description="What moved money at `from` or later and before `to`, oldest first, between the balances that"
    " it leads from and to. As JSON or CSV, whichever Accept prefers, streamed at any length. In CSV what"
    " leaves the wallet is negative, and a text that a spreadsheet would take for a formula begins with '.",
    tags=["history"],
    parameters=[WALLET, *_parameters(StatementQuery), *ANSWERED],
    responses=_answers(
        200,
        StatementBody,
        STATEMENT_EXAMPLE,
        *ANY_REQUEST,
        problems.ValidationError,
        problems.WalletNotFound,
        problems.TooManyRequests,
    )
    | {
        (200, "text/csv"): OpenApiResponse(
            str, examples=[OpenApiExample("answer as CSV", STATEMENT_AS_CSV, response_only=True)]
        )
    },
)


# Of each event in the stream.
EVENT = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]{1,18}$"},
        "event": {"enum": ["message", "gap"]},
        "data": {"type": "string", "description": "A CloudEvent as JSON; {} of a gap."},
    },
    "required": ["id", "data"],
}
follow_wallet = extend_schema(
    operation_id="wallet_events",
    summary="Follow a wallet",
    description="Server-sent events: what happens to the wallet, as it happens, each a CloudEvent (see"
    " docs/asyncapi.yaml). Every event may come more than once, with the same id. The stream ends after"
    " `seconds`; a browser's EventSource comes again by itself, with Last-Event-ID, and misses nothing. An"
    " event `gap` says that it was away for too long, or too much was waiting: look at the wallet anew.",
    tags=["wallets"],
    parameters=[
        WALLET,
        *_parameters(EventsQuery),
        OpenApiParameter(
            "Last-Event-ID",
            {"type": "string", "pattern": "^[0-9]{0,18}$"},
            OpenApiParameter.HEADER,
            description="The id of the last event that was received: go on after it. Empty: there was none.",
        ),
        *ANSWERED,
    ],
    responses=_refusals(
        *ANY_REQUEST, problems.ValidationError, problems.WalletNotFound, problems.TooManyRequests
    )
    | {
        (200, "text/event-stream"): OpenApiResponse(
            EVENT, examples=[OpenApiExample("an event", EVENT_STREAM, response_only=True)]
        )
    },
)


# --- Webhooks ---------------------------------------------------------------------------------------
register_webhook = extend_schema(
    operation_id="webhooks_register",
    summary="Register a webhook",
    description="What happens is posted to its `url`, signed by the rules of Standard Webhooks with the"
    " `secret` of the answer, which is shown once. With an `id` of your choice or an Idempotency-Key"
    " it is safe to repeat.",
    tags=["webhooks"],
    parameters=[KEY, *ANSWERED],
    request=WebhookToRegister,
    examples=[
        _request(
            "balances",
            {
                "name": "shop",
                "url": "https://shop.example.com/wallet-events",
                "types": ["wallet.balance.changed"],
            },
        )
    ],
    responses=_answers(
        201,
        RegisteredWebhookBody,
        REGISTERED_EXAMPLE,
        *ANY_REQUEST,
        *ANY_BODY,
        problems.TooManyRequests,
        problems.IdempotencyKeyReused,
        problems.TooManyWebhooks,
        problems.WebhookNameTaken,
    ),
)
list_webhooks = extend_schema(
    operation_id="webhooks_list",
    summary="List webhooks, newest first",
    description="With how they fare, and without their secrets.",
    tags=["webhooks"],
    parameters=[*_parameters(PageQuery), *ANSWERED],
    responses=_answers(
        200,
        WebhookPage,
        {"items": [WEBHOOK_EXAMPLE], "nextCursor": None},
        *ANY_REQUEST,
        problems.ValidationError,
    ),
)
read_webhook = extend_schema(
    operation_id="webhooks_read",
    summary="Read a webhook",
    description="With how it fares, and without its secret.",
    tags=["webhooks"],
    parameters=[WEBHOOK, *ANSWERED],
    responses=_answers(200, WebhookBody, WEBHOOK_EXAMPLE, *ANY_REQUEST, problems.WebhookNotFound),
)
change_webhook = extend_schema(
    operation_id="webhooks_change",
    summary="Change, disable or enable a webhook",
    description="Enabled again, it goes on where it was. What waits is tried at once after that, or at"
    " another `url`. Other `types` count for what has not been read yet.",
    tags=["webhooks"],
    parameters=[WEBHOOK, *ANSWERED],
    request=WebhookChanges,
    examples=[_request("disable", {"isEnabled": False})],
    responses=_answers(
        200,
        WebhookBody,
        WEBHOOK_EXAMPLE | {"isEnabled": False, "disabledBecause": "Disabled by key:abcd1234."},
        *ANY_REQUEST,
        *ANY_BODY,
        problems.TooManyRequests,
        problems.WebhookNotFound,
        problems.WebhookNameTaken,
    ),
)
remove_webhook = extend_schema(
    operation_id="webhooks_remove",
    summary="Remove a webhook",
    description="With what waits for it, its dead letters and its deliveries.",
    tags=["webhooks"],
    parameters=[WEBHOOK, *ANSWERED],
    responses={204: OpenApiResponse(description="It is gone.")}
    | _refusals(*ANY_REQUEST, problems.TooManyRequests, problems.WebhookNotFound),
)
rotate_secret = extend_schema(
    operation_id="webhooks_rotate",
    summary="Give a webhook a new secret",
    description="It is shown once. For `formerValidHours` the former one signs as well: a request then has"
    " two signatures. With an `id` of your choice or an Idempotency-Key it is safe to repeat.",
    tags=["webhooks"],
    parameters=[WEBHOOK, KEY, *ANSWERED],
    request=SecretToRotate,
    examples=[_request("two days to change it", {"formerValidHours": 48})],
    responses=_answers(
        200,
        SecretBody,
        SECRET_EXAMPLE,
        *ANY_REQUEST,
        *ANY_BODY,
        problems.TooManyRequests,
        problems.WebhookNotFound,
        problems.IdempotencyKeyReused,
    ),
)
test_webhook = extend_schema(
    operation_id="webhooks_test",
    summary="Send a webhook a test",
    description="An event of the type `webhook.test`, at once; a disabled webhook too. The answer tells what"
    " became of it.",
    tags=["webhooks"],
    parameters=[WEBHOOK, *ANSWERED],
    request=None,
    responses=_answers(
        200,
        DeliveryBody,
        DELIVERY_EXAMPLE | {"eventId": f"{WALLET_ID}:test"},
        *ANY_REQUEST,
        problems.WebhookNotFound,
    ),
)
list_deliveries = extend_schema(
    operation_id="webhooks_deliveries",
    summary="List a webhook's deliveries, newest first",
    description="Every request that was sent to it, failed ones too. The newest 1,000 are kept.",
    tags=["webhooks"],
    parameters=[WEBHOOK, *_parameters(PageQuery), *ANSWERED],
    responses=_answers(
        200,
        DeliveryPage,
        {"items": [DELIVERY_EXAMPLE], "nextCursor": None},
        *ANY_REQUEST,
        problems.ValidationError,
        problems.WebhookNotFound,
    ),
)
list_dead_letters = extend_schema(
    operation_id="webhooks_dead_letters",
    summary="List a webhook's dead letters, newest first",
    description="Events that it did not take, however often they were tried.",
    tags=["webhooks"],
    parameters=[WEBHOOK, *_parameters(PageQuery), *ANSWERED],
    responses=_answers(
        200,
        DeadLetterPage,
        {"items": [DEAD_LETTER_EXAMPLE], "nextCursor": None},
        *ANY_REQUEST,
        problems.ValidationError,
        problems.WebhookNotFound,
    ),
)
forget_dead_letters = extend_schema(
    operation_id="webhooks_forget_dead_letters",
    summary="Forget a webhook's dead letters",
    description="All of them, for good.",
    tags=["webhooks"],
    parameters=[WEBHOOK, *ANSWERED],
    responses={204: OpenApiResponse(description="They are gone.")}
    | _refusals(*ANY_REQUEST, problems.TooManyRequests, problems.WebhookNotFound),
)
replay_dead_letters = extend_schema(
    operation_id="webhooks_replay",
    summary="Try a webhook's dead letters again",
    description="All of them, with the patience of new ones; those of a wallet in their order.",
    tags=["webhooks"],
    parameters=[WEBHOOK, *ANSWERED],
    request=None,
    responses=_answers(
        200,
        ReplayBody,
        {"replayed": 3},
        *ANY_REQUEST,
        problems.TooManyRequests,
        problems.WebhookNotFound,
    ),
)


# --- People -----------------------------------------------------------------------------------------
sign_up = extend_schema(
    summary="Sign up",
    description="Opens a wallet in the service's default currency and begins a session: the cookies"
    " `sessionid` and `csrftoken`, whose value every further request that changes something repeats in"
    " `X-CSRFToken`.",
    tags=["people"],
    auth=[],
    parameters=[*ANSWERED],
    request=PersonToSignUp,
    examples=[
        _request(
            "a person", {"name": "Anna", "email": "anna@example.com", "password": "correct horse battery"}
        )
    ],
    responses=_answers(
        201,
        PersonBody,
        PERSON_EXAMPLE,
        *ANYBODY,
        *ANY_BODY,
        problems.TooManyRequests,
        problems.EmailTaken,
    ),
)
log_in = extend_schema(
    summary="Log in",
    description="Begins a session, as signing up does. An operator's name may stand for the e-mail address.",
    tags=["people"],
    auth=[],
    parameters=[*ANSWERED],
    request=Credentials,
    examples=[_request("a person", {"email": "anna@example.com", "password": "correct horse battery"})],
    responses=_answers(
        200,
        PersonBody,
        PERSON_EXAMPLE,
        *ANYBODY,
        *ANY_BODY,
        problems.TooManyRequests,
        problems.InvalidCredentials,
    ),
)
log_out = extend_schema(
    summary="Log out",
    description="Ends the session.",
    tags=["people"],
    parameters=[*ANSWERED],
    request=None,
    responses={204: OpenApiResponse(description="It has ended.")} | _refusals(*ANY_REQUEST),
)
read_me = extend_schema(
    summary="Who is logged in",
    description="The person or operator whose session this is.",
    tags=["people"],
    parameters=[*ANSWERED],
    responses=_answers(200, PersonBody, PERSON_EXAMPLE, *ANY_REQUEST),
)
read_my_wallet = extend_schema(
    summary="One's own wallet with its newest operations",
    description="The first wallet that one had. The operations are those that the wallet's balance knows of.",
    tags=["people"],
    parameters=[*ANSWERED],
    responses=_answers(
        200,
        OwnWalletBody,
        {"wallet": WALLET_EXAMPLE, "operations": [OPERATION_EXAMPLE]},
        *ANY_REQUEST,
        problems.WalletNotFound,
    ),
)


# --- The document as a whole ------------------------------------------------------------------------
# The shapes of what need not be sent at all.
OPTIONAL = {"Nothing", "PartToTake", "SecretToRotate"}
# What has an id in an answer, by the answer's shape and the parameter of the addresses that take it.
LINKED = {
    "WalletBody": "wallet_id",
    "OperationBody": "operation_id",
    "TransferBody": "transfer_id",
    "HoldBody": "hold_id",
    "RegisteredWebhookBody": "webhook_id",
    "WebhookBody": "webhook_id",
}


def with_required_bodies(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """The document with which bodies have to be sent: to drf-spectacular, those with a field that has to."""
    for item in result["paths"].values():
        for operation in item.values():
            if "requestBody" in operation:
                operation["requestBody"]["required"] = _shape_of(operation["requestBody"]) not in OPTIONAL
    return result


def with_links(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """The document with what can be asked next about what an answer names."""
    operations = [(path, operation) for path, item in result["paths"].items() for operation in item.values()]
    links = result["components"]["links"] = {}
    for parameter in LINKED.values():
        for path, operation in operations:
            if f"{{{parameter}}}" in path:
                links[operation["operationId"]] = {
                    "operationId": operation["operationId"],
                    "parameters": {parameter: "$response.body#/id"},
                }
    for _path, operation in operations:
        for answer in operation["responses"].values():
            shape = _shape_of(answer)
            if shape in LINKED:
                answer["links"] = {
                    name: {"$ref": f"#/components/links/{name}"}
                    for name, link in links.items()
                    if LINKED[shape] in link["parameters"]
                }
    return result


def _shape_of(body: dict[str, Any]) -> str:
    schema = body.get("content", {}).get("application/json", {}).get("schema", {})
    name: str = schema.get("$ref", "").rpartition("/")[2]
    return name
