"""Response schemas. A class is the schema in the OpenAPI document, and renders objects."""

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, ClassVar, Final, get_args, get_type_hints
from uuid import UUID

from pydantic import ConfigDict, Field, create_model
from pydantic.config import JsonDict
from rest_framework.response import Response

from wallets.contract.fields import (
    EventType,
    HoldStatus,
    Money,
    OperationStatus,
    OperationType,
    Schema,
    StreamEventType,
    Time,
    WalletStatus,
    format_time,
)
from wallets.ledger import PENDING, Balance, HoldState, Posted, Record, Reversals, keys
from wallets.models import Hold, Operation, User, Wallet
from wallets.money import format_amount

# Every object has this attribute, and the JSON renderer cannot serialize it: a missing value is an error.
GIVEN: Final = "__class__"
REPLAYED: Final = {"Idempotent-Replayed": "true"}


def _may_grow(schema: JsonDict) -> None:
    """Permit unknown fields, so that a client of this version can read the responses of a later one."""
    del schema["additionalProperties"]


class Body(Schema):
    """A response schema. Here an unknown field is an error; in the OpenAPI document it is permitted."""

    model_config = ConfigDict(json_schema_extra=_may_grow)


class ResponseSchema(Body):
    """A response schema whose `of` renders an object.

    The value of a field is the object's attribute with the same name, or the one in `attributes`. If that is
    GIVEN, the caller of `of` adds the value.
    """

    attributes: ClassVar[dict[str, str]] = {}
    of: ClassVar[Callable[..., dict[str, Any]]]

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        cls.of = _renderer(cls)


def _renderer(body: type[ResponseSchema]) -> Callable[..., dict[str, Any]]:
    """Make the function that renders an object, with its amounts in a currency.

    UUIDs are not converted: the JSON renderer writes them ten times as fast as str().
    """
    aliases = {name: str(field.alias) for name, field in body.model_fields.items()}
    sources = {"currency": GIVEN, **body.attributes}
    hints = get_type_hints(body, include_extras=True)
    names, values_of = tuple(aliases.values()), attrgetter(*(sources.get(name, name) for name in aliases))
    amounts, times = (
        [
            alias
            for name, alias in aliases.items()
            if sources.get(name) != GIVEN and kind in (hints[name], *get_args(hints[name]))
        ]
        for kind in (Money, Time)
    )

    def of(source: object, currency: str = "") -> dict[str, Any]:
        content = dict(zip(names, values_of(source)))  # noqa: B905 - as many of both
        if currency:
            content["currency"] = currency
        for name in amounts:
            if (amount := content[name]) is not None:
                content[name] = format_amount(amount, currency)
        for name in times:
            if (time := content[name]) is not None:
                content[name] = format_time(time)
        return content

    return of


class WalletBody(ResponseSchema):
    attributes = {"held": "held_now", "available": "available_now"}

    id: UUID
    currency: str
    balance: Money
    held: Money
    available: Money
    overdraft_limit: Money
    max_balance: Money | None
    status: WalletStatus
    external_id: str | None
    label: str
    metadata: dict[str, Any]
    sequence: int
    created_at: Time
    updated_at: Time


class PersonBody(ResponseSchema):
    attributes = {"email_verified": "has_verified_email", "wallet_id": GIVEN, "created_at": "date_joined"}

    name: str
    email: str
    email_verified: bool = Field(
        description="Whether others can send money to the account by its e-mail address."
    )
    wallet_id: UUID | None = Field(description="The user's first wallet; null if there is none.")
    created_at: Time


class OperationBody(ResponseSchema):
    attributes = {
        "operation_type": "type",
        "balance": "balance_after",
        "counterparty_wallet_id": "counterparty_id",
    }

    id: UUID
    wallet_id: UUID
    sequence: int | None
    operation_type: OperationType
    amount: Money
    currency: str
    status: OperationStatus
    reason: str | None
    balance: Money | None = Field(
        description="After the operation; null if no money moved, or if the balance is another owner's."
    )
    transfer_id: UUID | None
    counterparty_wallet_id: UUID | None
    hold_id: UUID | None
    reverses_id: UUID | None
    idempotency_key: str | None
    reference: str
    description: str
    metadata: dict[str, Any]
    created_at: Time


class TransferBody(ResponseSchema):
    attributes = {"source": GIVEN, "target": GIVEN}

    id: UUID
    amount: Money
    currency: str
    status: OperationStatus
    reason: str | None
    source: OperationBody
    target: OperationBody | None = Field(description="null until the transfer is completed.")
    created_at: Time


class OperationDetailBody(OperationBody):
    attributes: ClassVar[dict[str, str]] = {
        **OperationBody.attributes,
        "reversed_amount": GIVEN,
        "reversal_ids": GIVEN,
    }

    reversed_amount: Money = Field(description="The sum of the completed reversals.")
    reversal_ids: list[UUID] = Field(description="The completed reversals, oldest first; at most 100.")


class HoldBody(ResponseSchema):
    id: UUID
    wallet_id: UUID
    amount: Money
    currency: str
    status: HoldStatus
    captured_amount: Money | None
    operation_id: UUID | None = Field(description="The operation that captured it.")
    reference: str
    description: str
    metadata: dict[str, Any]
    expires_at: Time | None
    created_at: Time
    ended_at: Time | None


class HoldDetailBody(HoldBody):
    attributes: ClassVar[dict[str, str]] = {"captures": GIVEN}

    captures: list[OperationBody] = Field(description="The operations that took the held money.")


class BalanceBody(ResponseSchema):
    attributes = {"available": GIVEN}

    wallet_id: UUID
    currency: str
    balance: Money
    held: Money
    available: Money
    sequence: int = Field(description="The number of operations that had moved money at that time.")
    at: Time = Field(description="The requested time; without one, the time of the last change.")


class StatementBody(Body):
    """`openingBalance` plus the entries at `from` or later and before `to` equals `closingBalance`."""

    wallet_id: UUID
    currency: str
    from_: Time = Field(alias="from")
    to: Time
    opening_balance: Money
    entries: list[OperationBody] = Field(description="Oldest first.")
    closing_balance: Money


class FieldProblem(Body):
    field: str
    code: str
    detail: str


class ProblemBody(Body):
    """RFC 9457 problem details."""

    type: str = Field(
        description="The URL of the page that describes the code; it may be relative.",
        json_schema_extra={"format": "uri-reference"},
    )
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldProblem] = Field(
        default=[], description="The invalid fields; for an atomic bulk, the refused item."
    )
    operation_id: UUID | None = Field(
        None, description="The operation that records the rejection, if there is one."
    )
    remaining: Money | None = Field(
        None, description="The largest amount that a limit permitted when it refused the request."
    )
    available: Money | None = Field(
        None, description="With insufficient_funds: the wallet's balance without held amounts."
    )


class BulkResult(Body):
    """The response that the item would get as a single request."""

    status: int = Field(description="201, 202, or the problem's status.")
    replayed: bool
    operation: OperationBody | None = None
    transfer: TransferBody | None = None
    problem: ProblemBody | None = None


class BulkBody(Body):
    results: list[BulkResult]


class OwnWalletBody(Body):
    wallet: WalletBody
    operations: list[OperationBody] = Field(
        description="The newest operations that move money, including refused ones."
    )


class _WebhookBody(ResponseSchema):
    id: UUID
    name: str
    url: str
    types: list[EventType] = Field(
        description="The types of events to deliver; an empty list means all types."
    )
    batch: int = Field(description="The maximum number of events in one request.")


class RegisteredWebhookBody(_WebhookBody):
    attributes = {"secret": GIVEN}

    secret: str | None = Field(
        description="The signing secret. Store it: a replay shows it for one hour, unless it was rotated."
    )
    created_at: Time


class WebhookBody(_WebhookBody):
    attributes = {"lag": GIVEN, "parked": GIVEN, "dead": GIVEN}

    is_enabled: bool
    disabled_because: str
    failing_since: Time | None
    last_error: str
    retry_at: Time | None = Field(description="The time of the next attempt while deliveries fail.")
    delivered_at: Time | None = Field(description="The time of the last successful delivery.")
    former_secret_until: Time | None = Field(description="Until when the former secret signs too.")
    lag: float = Field(
        description="Seconds since the commit of the next event to deliver; 0 if there is none."
    )
    parked: int = Field(
        description="Wallets whose next event waits for another attempt; their later events wait behind it."
    )
    dead: int = Field(description="The number of dead letters.")
    created_at: Time


class SecretBody(ResponseSchema):
    attributes = {"former_secret_until": "webhook.former_secret_until"}

    secret: str | None = Field(description="Store it: a replay shows it for one hour; then it is null.")
    former_secret_until: Time | None = Field(description="Until when the former secret signs too.")


class DeliveryBody(ResponseSchema):
    attributes = {"duration_ms": GIVEN}

    event_id: str = Field(description="The id of the first event in the request.")
    events: int
    at: Time
    duration_ms: int
    status_code: int | None = Field(description="null if there was no response.")
    error: str = Field(description="Why the delivery failed; empty if it succeeded.")
    response: str = Field(description="The first 500 bytes of the response body.")


class DeadLetterBody(ResponseSchema):
    attributes = {"event": GIVEN}

    event_id: str
    type: EventType
    wallet_id: UUID
    attempts: int
    last_error: str
    created_at: Time
    event: dict[str, Any] = Field(description="The event as it was sent.")


class StreamEvent(Body):
    """One event of a stream of server-sent events."""

    id: str = Field(pattern="^[0-9]{1,18}$")
    event: StreamEventType = "message"
    data: str = Field(description="A CloudEvent as JSON; {} for the event `gap`.")


class ReplayBody(Body):
    replayed: int = Field(description="The number of dead letters that are sent again.")


def _page_of(body: type[ResponseSchema]) -> type[Body]:
    name = body.__name__.replace("Body", "Page")
    return create_model(name, __base__=Body, items=(list[body], ...), next_cursor=(str | None, ...))  # type: ignore[valid-type]


WalletPage = _page_of(WalletBody)
OperationPage = _page_of(OperationBody)
HoldPage = _page_of(HoldBody)
WebhookPage = _page_of(WebhookBody)
DeliveryPage = _page_of(DeliveryBody)
DeadLetterPage = _page_of(DeadLetterBody)


# --- Responses with values from more than one object ---------------------------------------------------
def wallet_body(wallet: Wallet) -> dict[str, Any]:
    return WalletBody.of(wallet, wallet.currency)


def person_body(user: User, wallet: Wallet | None) -> dict[str, Any]:
    return PersonBody.of(user) | {"walletId": wallet.id if wallet else None}


def operation_body(operation: Operation | Record, currency: str) -> dict[str, Any]:
    body = OperationBody.of(operation, currency)
    if operation.idempotency_key:
        body["idempotencyKey"] = keys.as_sent(operation.idempotency_key)
    if operation.type == "HOLD":
        body["holdId"] = operation.id
    return body


def operation_detail_body(
    operation: Operation | Record, currency: str, reversals: Reversals
) -> dict[str, Any]:
    return operation_body(operation, currency) | {
        "reversedAmount": format_amount(reversals.amount, currency),
        "reversalIds": reversals.ids,
    }


def transfer_body(posted: Posted) -> dict[str, Any]:
    source, target, currency = posted.operation, posted.counterpart, posted.currency
    return TransferBody.of(source, currency) | {
        "source": operation_body(source, currency),
        "target": operation_body(target, currency) if target else None,
    }


def hold_body(hold: Hold | HoldState, currency: str) -> dict[str, Any]:
    """Render a hold. A model instance must come from a queryset with `as_of_now`."""
    body = HoldBody.of(hold, currency)
    body["status"] = getattr(hold, "status_now", hold.status)
    if body["status"] == "EXPIRED":
        body["endedAt"] = body["expiresAt"]
    return body


def hold_detail_body(hold: Hold, currency: str, captures: Iterable[Operation]) -> dict[str, Any]:
    return hold_body(hold, currency) | {
        "captures": [operation_body(capture, currency) for capture in captures]
    }


def balance_body(balance: Balance) -> dict[str, Any]:
    available = format_amount(balance.balance - balance.held, balance.currency)
    return BalanceBody.of(balance, balance.currency) | {"available": available}


def etag(wallet: Wallet) -> str:
    """Return the entity tag: it changes with every operation, every change and every expiry of a hold."""
    return f'"{wallet.sequence}-{wallet.updated_at.timestamp():.6f}-{wallet.held_now:f}"'


# --- Responses --------------------------------------------------------------------------------------
def replay_header(outcome: Any) -> dict[str, str]:
    """Return the header that marks a replay."""
    return dict(REPLAYED) if outcome.replayed else {}


def created(posted: Posted, body: dict[str, Any], path: str) -> Response:
    """Respond with 201 and the path of the new object, or with 202 and the path of its pending operation."""
    headers = replay_header(posted)
    if posted.operation.status == PENDING:
        headers["Location"] = f"/api/v1/operations/{posted.operation.id}"
        headers["Preference-Applied"] = "respond-async"
        return Response(body, status=202, headers=headers)
    headers["Location"] = f"/api/v1/{path}"
    return Response(body, status=201, headers=headers)


def operation_created(posted: Posted) -> Response:
    body = operation_body(posted.operation, posted.currency)
    return created(posted, body, f"operations/{posted.operation.id}")
