"""The bodies of answers, as the contract has them: as shapes for the OpenAPI document, and by hand for speed.

A test holds the two together.
"""

from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from wallets import money
from wallets.api.values import EventType, Money, OperationType, Shape, Time, format_time
from wallets.ledger import keys
from wallets.ledger.batch import Posted
from wallets.ledger.history import Balance
from wallets.ledger.rules import HoldState
from wallets.ledger.tables import Record
from wallets.models import Hold, Operation, User, Wallet

OperationStatus = Literal["PENDING", "COMPLETED", "REJECTED"]


class WalletBody(Shape):
    id: UUID
    currency: str
    balance: Money
    held: Money
    available: Money
    overdraft_limit: Money
    max_balance: Money | None
    status: Literal["ACTIVE", "FROZEN", "CLOSED"]
    label: str
    metadata: dict[str, Any]
    sequence: int
    created_at: Time
    updated_at: Time


class PersonBody(Shape):
    name: str
    email: str
    email_verified: bool = Field(description="Whether money can be sent to the account by its address.")
    wallet_id: UUID | None = Field(description="Their first wallet; null for who has none.")
    created_at: Time


class OperationBody(Shape):
    id: UUID
    wallet_id: UUID
    sequence: int | None
    operation_type: OperationType
    amount: Money
    currency: str
    status: OperationStatus
    reason: str | None
    balance: Money | None = Field(
        description="Right after the operation; null where no money has moved, or it is not for you to know."
    )
    transfer_id: UUID | None
    counterparty_wallet_id: UUID | None
    hold_id: UUID | None
    reverses_id: UUID | None
    idempotency_key: str | None
    description: str
    metadata: dict[str, Any]
    created_at: Time


class TransferBody(Shape):
    id: UUID
    amount: Money
    currency: str
    status: OperationStatus
    reason: str | None
    source: OperationBody
    target: OperationBody | None = Field(description="null until the transfer is completed.")
    created_at: Time


class HoldBody(Shape):
    id: UUID
    wallet_id: UUID
    amount: Money
    currency: str
    status: Literal["ACTIVE", "CAPTURED", "VOIDED", "EXPIRED"]
    captured_amount: Money | None
    operation_id: UUID | None = Field(description="The operation that captured it.")
    description: str
    expires_at: Time | None
    created_at: Time
    ended_at: Time | None


class BalanceBody(Shape):
    wallet_id: UUID
    currency: str
    balance: Money
    held: Money
    available: Money
    sequence: int = Field(description="How many operations had moved money by then.")
    at: Time = Field(description="The moment that was asked for; without one, when the balance last changed.")


class StatementBody(Shape):
    """`openingBalance`, and all that moved money at `from` or later and before `to`, is `closingBalance`."""

    wallet_id: UUID
    currency: str
    from_: Time = Field(alias="from")
    to: Time
    opening_balance: Money
    entries: list[OperationBody] = Field(description="Oldest first.")
    closing_balance: Money


class FieldProblem(Shape):
    field: str
    code: str
    detail: str


class ProblemBody(Shape):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldProblem] = Field(
        default=[], description="Which fields are wrong; of an atomic bulk, what was refused."
    )
    operation_id: UUID | None = Field(None, description="The recorded rejection, where there is one.")


class BulkResult(Shape):
    """What the request would have been answered by itself."""

    status: int = Field(description="201, 202, or the problem's status.")
    replayed: bool
    operation: OperationBody | None = None
    transfer: TransferBody | None = None
    problem: ProblemBody | None = None


class BulkBody(Shape):
    results: list[BulkResult]


class WalletPage(Shape):
    items: list[WalletBody]
    next_cursor: str | None


class OwnWalletBody(Shape):
    wallet: WalletBody
    operations: list[OperationBody] = Field(description="The newest that move money, refused ones too.")


class OperationPage(Shape):
    items: list[OperationBody]
    next_cursor: str | None


class HoldPage(Shape):
    items: list[HoldBody]
    next_cursor: str | None


class _WebhookBody(Shape):
    id: UUID
    name: str
    url: str
    types: list[EventType] = Field(description="Which events; none: all of them.")
    batch: int = Field(description="Up to so many events in one request.")
    created_at: Time


class RegisteredWebhookBody(_WebhookBody):
    secret: str | None = Field(
        description="What it signs with: keep it now. null in the answer to a repeat that comes later than an"
        " hour, or after a rotation."
    )


class WebhookBody(_WebhookBody):
    is_enabled: bool
    disabled_because: str
    failing_since: Time | None
    last_error: str
    retry_at: Time | None = Field(description="When it is tried again, where it fails.")
    delivered_at: Time | None = Field(description="When it took something for the last time.")
    former_secret_until: Time | None = Field(description="How long the secret before signs as well.")
    lag: float = Field(
        description="Seconds since what it is told next was committed; 0 where there is nothing."
    )
    parked: int = Field(
        description="Wallets with an event that waits for another attempt, and later events behind it."
    )
    dead: int = Field(description="Events that were given up: its dead letters.")


class SecretBody(Shape):
    secret: str | None = Field(
        description="Keep it now. null in the answer to a repeat that comes later than an hour."
    )
    former_secret_until: Time | None = Field(description="How long the secret before signs as well.")


class DeliveryBody(Shape):
    event_id: str = Field(description="Of the first event in the request.")
    events: int
    at: Time
    duration_ms: int
    status_code: int | None = Field(description="null where there was no answer.")
    error: str = Field(description="Why it counts as not delivered; empty where it was.")
    response: str = Field(description="The first 500 bytes of the answer's body.")


class DeadLetterBody(Shape):
    event_id: str
    type: EventType
    wallet_id: UUID
    attempts: int
    last_error: str
    created_at: Time
    event: dict[str, Any] = Field(description="As it was sent.")


class ReplayBody(Shape):
    replayed: int = Field(description="Dead letters that are tried again.")


class WebhookPage(Shape):
    items: list[WebhookBody]
    next_cursor: str | None


class DeliveryPage(Shape):
    items: list[DeliveryBody]
    next_cursor: str | None


class DeadLetterPage(Shape):
    items: list[DeadLetterBody]
    next_cursor: str | None


# --- By hand ----------------------------------------------------------------------------------------
def wallet_body(wallet: Wallet) -> dict[str, Any]:
    currency = wallet.currency
    return {
        "id": str(wallet.id),
        "currency": currency,
        "balance": money.format_amount(wallet.balance, currency),
        "held": money.format_amount(wallet.held_now, currency),
        "available": money.format_amount(wallet.available_now, currency),
        "overdraftLimit": money.format_amount(wallet.overdraft_limit, currency),
        "maxBalance": _optional(wallet.max_balance, currency),
        "status": wallet.status,
        "label": wallet.label,
        "metadata": wallet.metadata,
        "sequence": wallet.sequence,
        "createdAt": format_time(wallet.created_at),
        "updatedAt": format_time(wallet.updated_at),
    }


def person_body(user: User, wallet: Wallet | None) -> dict[str, Any]:
    return {
        "name": user.name,
        "email": user.email,
        "emailVerified": user.has_verified_email,
        "walletId": _text(wallet.id if wallet else None),
        "createdAt": format_time(user.date_joined),
    }


def operation_body(operation: Operation | Record, currency: str) -> dict[str, Any]:
    hold_id = operation.id if operation.type == "HOLD" else operation.hold_id
    return {
        "id": operation.id,  # the renderer writes a UUID ten times faster than str()
        "walletId": operation.wallet_id,
        "sequence": operation.sequence,
        "operationType": operation.type,
        "amount": money.format_amount(operation.amount, currency),
        "currency": currency,
        "status": operation.status,
        "reason": operation.reason,
        "balance": _optional(operation.balance_after, currency),
        "transferId": _text(operation.transfer_id),
        "counterpartyWalletId": _text(operation.counterparty_id),
        "holdId": _text(hold_id),
        "reversesId": _text(operation.reverses_id),
        "idempotencyKey": keys.as_sent(operation.idempotency_key) if operation.idempotency_key else None,
        "description": operation.description,
        "metadata": operation.metadata,
        "createdAt": format_time(operation.created_at),
    }


def transfer_body(posted: Posted) -> dict[str, Any]:
    source, target, currency = posted.operation, posted.counterpart, posted.currency
    return {
        "id": str(source.id),
        "amount": money.format_amount(source.amount, currency),
        "currency": currency,
        "status": source.status,
        "reason": source.reason,
        "source": operation_body(source, currency),
        "target": operation_body(target, currency) if target else None,
        "createdAt": format_time(source.created_at),
    }


def hold_body(hold: Hold | HoldState, currency: str) -> dict[str, Any]:
    """Of a Hold as a query `as_of_now` has it."""
    status = getattr(hold, "status_now", hold.status)
    ended_at = hold.expires_at if status == "EXPIRED" else hold.ended_at
    return {
        "id": str(hold.id),
        "walletId": str(hold.wallet_id),
        "amount": money.format_amount(hold.amount, currency),
        "currency": currency,
        "status": status,
        "capturedAmount": _optional(hold.captured_amount, currency),
        "operationId": _text(hold.operation_id),
        "description": hold.description,
        "expiresAt": format_time(hold.expires_at) if hold.expires_at else None,
        "createdAt": format_time(hold.created_at),
        "endedAt": format_time(ended_at) if ended_at else None,
    }


def balance_body(balance: Balance) -> dict[str, Any]:
    currency = balance.currency
    return {
        "walletId": str(balance.wallet_id),
        "currency": currency,
        "balance": money.format_amount(balance.balance, currency),
        "held": money.format_amount(balance.held, currency),
        "available": money.format_amount(balance.balance - balance.held, currency),
        "sequence": balance.sequence,
        "at": format_time(balance.at),
    }


def _optional(amount: Decimal | None, currency: str) -> str | None:
    return None if amount is None else money.format_amount(amount, currency)


def _text(given: UUID | None) -> str | None:
    return None if given is None else str(given)
