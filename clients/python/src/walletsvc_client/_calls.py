"""The requests of the API: each function builds one, without sending it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, Protocol, TypedDict, TypeVar, Unpack
from urllib.parse import urlencode
from uuid import UUID, uuid4

from ._generated.models import (
    Balance,
    Bulk,
    Hold,
    HoldDetail,
    HoldPage,
    HoldStatus,
    Operation,
    OperationDetail,
    OperationPage,
    OperationStatus,
    OperationType,
    Statement,
    Transfer,
    Wallet,
    WalletPage,
    WalletStatus,
)
from ._generated.types import UNSET, Unset

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Id = UUID | str
Amount = Decimal | str
Metadata = Mapping[str, Any]
ROOT = "/api/v1"


class Page(Protocol[T_co]):
    """A page of a list."""

    @property
    def items(self) -> Iterable[T_co]: ...
    @property
    def next_cursor(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Call(Generic[T_co]):
    """A request, and how its response is parsed."""

    method: str
    path: str
    parse: Callable[[Mapping[str, Any]], T_co]
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    idempotency_key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_repeatable(self) -> bool:
        """Whether the request has the same effect if it arrives twice."""
        return self.method == "GET" or self.idempotency_key is not None

    @property
    def url(self) -> str:
        return f"{ROOT}{self.path}" + (f"?{urlencode(self.query)}" if self.query else "")

    def at(self, cursor: str) -> "Call[T_co]":
        """Return the request of the next page."""
        return replace(self, query={**self.query, "cursor": cursor})


class Details(TypedDict, total=False):
    """What every movement and hold may have: your own reference, a description, and metadata."""

    reference: str
    description: str
    metadata: Metadata


class Posting(Details, total=False):
    """The details of a request, and its key: a new one if it is left out."""

    idempotency_key: str


class Movement(Posting, total=False):
    """With `respond_async` the service only accepts the request: the result is PENDING, and decided later."""

    respond_async: bool


class Filters(TypedDict, total=False):
    """The filters of lists of operations. `metadata` has top-level keys with strings or numbers."""

    reference: str
    type: OperationType | str | Iterable[OperationType | str]
    status: OperationStatus | str
    from_: datetime
    to: datetime
    min_amount: Amount
    max_amount: Amount
    metadata: Mapping[str, object]
    limit: int


# --- Items of a bulk -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class BulkItem:
    """What every item of a bulk may have."""

    amount: Amount
    reference: str | None = None
    description: str | None = None
    metadata: Metadata | None = None
    idempotency_key: str | None = None

    def body(self) -> dict[str, Any]:
        return _present(
            amount=_amount(self.amount),
            reference=self.reference,
            description=self.description,
            metadata=self.metadata,
            idempotencyKey=self.idempotency_key,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkDeposit(BulkItem):
    """A deposit in a bulk."""

    wallet_id: Id

    def body(self) -> dict[str, Any]:
        return {"operationType": "DEPOSIT", "walletId": _id(self.wallet_id), **BulkItem.body(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkWithdrawal(BulkItem):
    """A withdrawal in a bulk."""

    wallet_id: Id

    def body(self) -> dict[str, Any]:
        return {"operationType": "WITHDRAW", "walletId": _id(self.wallet_id), **BulkItem.body(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkTransfer(BulkItem):
    """A transfer in a bulk."""

    source_id: Id
    target_id: Id

    def body(self) -> dict[str, Any]:
        ids = {"sourceWalletId": _id(self.source_id), "targetWalletId": _id(self.target_id)}
        return {**ids, **BulkItem.body(self)}


# --- Wallets -------------------------------------------------------------------------------------------
def create_wallet(  # noqa: PLR0913 - each is a field of the request
    *,
    currency: str | None = None,
    external_id: str | None = None,
    label: str | None = None,
    metadata: Metadata | None = None,
    overdraft_limit: Amount | None = None,
    max_balance: Amount | None = None,
    idempotency_key: str | None = None,
) -> Call[Wallet]:
    """Open a wallet, in the service's default currency if none is given."""
    body = _present(
        currency=currency,
        externalId=external_id,
        label=label,
        metadata=metadata,
        overdraftLimit=_amount_or_none(overdraft_limit),
        maxBalance=_amount_or_none(max_balance),
    )
    return _post("/wallets", Wallet.from_dict, body, idempotency_key)


def get_wallet(wallet_id: Id) -> Call[Wallet]:
    """Read a wallet."""
    return Call("GET", f"/wallets/{_id(wallet_id)}", Wallet.from_dict)


def find_wallets(  # noqa: PLR0913 - each is a filter
    *,
    external_id: str | None = None,
    owner_email: str | None = None,
    label: str | None = None,
    currency: str | None = None,
    status: WalletStatus | str | None = None,
    metadata: Mapping[str, object] | None = None,
    limit: int | None = None,
) -> Call[WalletPage]:
    """Iterate over the wallets that match all filters, newest first. `limit` is the size of a page."""
    query = _query(
        metadata,
        externalId=external_id,
        ownerEmail=owner_email,
        label=label,
        currency=currency,
        status=status,
        limit=limit,
    )
    return Call("GET", "/wallets", WalletPage.from_dict, query)


def update_wallet(  # noqa: PLR0913 - each is a field of the request
    wallet_id: Id,
    *,
    external_id: str | Unset | None = UNSET,
    label: str | None = None,
    metadata: Metadata | None = None,
    status: WalletStatus | str | None = None,
    overdraft_limit: Amount | None = None,
    max_balance: Amount | Unset | None = UNSET,
    owner_email: str | Unset | None = UNSET,
) -> Call[Wallet]:
    """Change a wallet. None removes an `external_id`, a `max_balance` or the owner.

    `metadata` is a merge patch (RFC 7396).
    """
    removable = {
        "externalId": external_id,
        "maxBalance": max_balance if isinstance(max_balance, Unset) else _amount_or_none(max_balance),
        "ownerEmail": owner_email,
    }
    body = _present(
        label=label,
        metadata=metadata,
        status=status,
        overdraftLimit=_amount_or_none(overdraft_limit),
    )
    body |= {name: value for name, value in removable.items() if not isinstance(value, Unset)}
    return Call("PATCH", f"/wallets/{_id(wallet_id)}", Wallet.from_dict, body=body)


# --- Money ---------------------------------------------------------------------------------------------
def deposit(wallet_id: Id, amount: Amount, **movement: Unpack[Movement]) -> Call[Operation]:
    """Deposit money into a wallet."""
    return _operate("DEPOSIT", wallet_id, amount, movement)


def withdraw(wallet_id: Id, amount: Amount, **movement: Unpack[Movement]) -> Call[Operation]:
    """Withdraw money from a wallet."""
    return _operate("WITHDRAW", wallet_id, amount, movement)


def _operate(kind: str, wallet_id: Id, amount: Amount, movement: Movement) -> Call[Operation]:
    body = {"operationType": kind, "amount": _amount(amount)}
    return _move(f"/wallets/{_id(wallet_id)}/operation", Operation.from_dict, body, movement)


def transfer(source_id: Id, target_id: Id, amount: Amount, **movement: Unpack[Movement]) -> Call[Transfer]:
    """Transfer money between two wallets of one currency."""
    body = {
        "sourceWalletId": _id(source_id),
        "targetWalletId": _id(target_id),
        "amount": _amount(amount),
    }
    return _move("/transfers", Transfer.from_dict, body, movement)


def get_transfer(transfer_id: Id) -> Call[Transfer]:
    """Read a transfer with the operations on both sides."""
    return Call("GET", f"/transfers/{_id(transfer_id)}", Transfer.from_dict)


def reverse(operation_id: Id, amount: Amount | None = None, **movement: Unpack[Movement]) -> Call[Operation]:
    """Move the money of an operation back: a part of it, or the whole remaining amount."""
    body = _present(amount=_amount_or_none(amount))
    return _move(f"/operations/{_id(operation_id)}/reversal", Operation.from_dict, body, movement)


def bulk(
    items: Iterable[BulkItem],
    *,
    atomic: bool = False,
    idempotency_key: str | None = None,
    respond_async: bool = False,
) -> Call[Bulk]:
    """Carry out up to 1,000 movements in their order, with `atomic` all of them or none.

    The key stands for the whole request. Without `atomic`, check the `problem` of each result.
    """
    body = {"operations": [item.body() for item in items], "atomic": atomic}
    return _post("/operations", Bulk.from_dict, body, idempotency_key, respond_async)


# --- Holds ---------------------------------------------------------------------------------------------
def hold(
    wallet_id: Id, amount: Amount, *, expires_at: datetime | None = None, **posting: Unpack[Posting]
) -> Call[Hold]:
    """Place a hold: reserve money, until `expires_at` if that is given."""
    body = _present(amount=_amount(amount), expiresAt=_time_or_none(expires_at))
    return _move(f"/wallets/{_id(wallet_id)}/holds", Hold.from_dict, body, posting)


def get_hold(hold_id: Id) -> Call[HoldDetail]:
    """Read a hold with its captures."""
    return Call("GET", f"/holds/{_id(hold_id)}", HoldDetail.from_dict)


def list_holds(
    wallet_id: Id, *, status: HoldStatus | str | None = None, limit: int | None = None
) -> Call[HoldPage]:
    """Iterate over the holds of a wallet, newest first. `limit` is the size of a page."""
    query = _query(status=status, limit=limit)
    return Call("GET", f"/wallets/{_id(wallet_id)}/holds", HoldPage.from_dict, query)


def capture(hold_id: Id, amount: Amount | None = None, **movement: Unpack[Movement]) -> Call[Operation]:
    """Capture a hold: take all of its amount or a part, once. The rest is released."""
    body = _present(amount=_amount_or_none(amount))
    return _move(f"/holds/{_id(hold_id)}/capture", Operation.from_dict, body, movement)


def void(hold_id: Id, **posting: Unpack[Posting]) -> Call[Hold]:
    """Void a hold: release its amount without moving money."""
    return _move(f"/holds/{_id(hold_id)}/void", Hold.from_dict, {}, posting)


# --- History -------------------------------------------------------------------------------------------
def get_operation(operation_id: Id) -> Call[OperationDetail]:
    """Read an operation with its reversals."""
    return Call("GET", f"/operations/{_id(operation_id)}", OperationDetail.from_dict)


def list_operations(wallet_id: Id, **filters: Unpack[Filters]) -> Call[OperationPage]:
    """Iterate over the operations of a wallet that match all filters, newest first."""
    return Call("GET", f"/wallets/{_id(wallet_id)}/operations", OperationPage.from_dict, _filters(filters))


def find_operations(
    *,
    wallet_id: Id | None = None,
    idempotency_key: str | None = None,
    transfer_id: Id | None = None,
    **filters: Unpack[Filters],
) -> Call[OperationPage]:
    """Iterate over the operations of all wallets that match all filters, newest first."""
    query = _query(
        walletId=None if wallet_id is None else _id(wallet_id),
        idempotencyKey=idempotency_key,
        transferId=None if transfer_id is None else _id(transfer_id),
    )
    return Call("GET", "/operations", OperationPage.from_dict, query | _filters(filters))


def get_balance(wallet_id: Id, at: datetime | None = None) -> Call[Balance]:
    """Read the balance of a wallet: now, or at a past moment."""
    return Call("GET", f"/wallets/{_id(wallet_id)}/balance", Balance.from_dict, _query(at=at))


def get_statement(
    wallet_id: Id, from_: datetime | None = None, to: datetime | None = None
) -> Call[Statement]:
    """Read all movements from `from_` (inclusive) to `to` (exclusive), oldest first, with both balances."""
    query = _query(**{"from": from_, "to": to})
    return Call("GET", f"/wallets/{_id(wallet_id)}/statement", Statement.from_dict, query)


# --- All other requests --------------------------------------------------------------------------------
def request(
    method: str,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
) -> Call[Any]:
    """Send a request for which there is no method, such as `GET` `/webhooks`; return its JSON.

    A request that is neither a GET nor has a key is not repeated if its outcome is unknown.
    """
    return Call(method, path, dict, query or {}, body, idempotency_key)


# --- Parts of a request --------------------------------------------------------------------------------
def _move(
    path: str, parse: Callable[[Mapping[str, Any]], T], body: Mapping[str, Any], given: Movement | Posting
) -> Call[T]:
    details = dict(given)
    key, respond_async = details.pop("idempotency_key", None), details.pop("respond_async", False)
    return _post(path, parse, {**body, **_present(**details)}, _text_or_none(key), bool(respond_async))


def _post(
    path: str,
    parse: Callable[[Mapping[str, Any]], T],
    body: Mapping[str, Any],
    idempotency_key: str | None,
    respond_async: bool = False,
) -> Call[T]:
    key = str(uuid4()) if idempotency_key is None else idempotency_key
    headers = {"Prefer": "respond-async"} if respond_async else {}
    return Call("POST", path, parse, body=body, idempotency_key=key, headers=headers)


def _present(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)


def _id(value: Id) -> str:
    return str(
        value if isinstance(value, UUID) else UUID(value)
    )  # so that no text of a user changes the path


def _amount(value: object) -> str:
    """Return the text of an amount. A float has none: 0.1 is not a tenth."""
    if isinstance(value, str):
        return value
    if not isinstance(value, Decimal):
        raise TypeError(f"an amount is a Decimal or a str, not {type(value).__name__}")
    if not value.is_finite():
        raise ValueError(f"an amount is finite, not {value}")
    return format(value, "f")


def _amount_or_none(value: object) -> str | None:
    return None if value is None else _amount(value)


def _time(value: datetime) -> str:
    if value.tzinfo is None:
        raise ValueError("a time needs a time zone, such as datetime.now(UTC)")
    return value.isoformat()


def _time_or_none(value: datetime | None) -> str | None:
    return None if value is None else _time(value)


def _filters(filters: Filters) -> dict[str, str]:
    given: dict[str, Any] = dict(filters)
    kinds = given.get("type")
    return _query(
        given.get("metadata"),
        **{
            "reference": given.get("reference"),
            "type": kinds if kinds is None or isinstance(kinds, str) else ",".join(kinds),
            "status": given.get("status"),
            "from": given.get("from_"),
            "to": given.get("to"),
            "minAmount": _amount_or_none(given.get("min_amount")),
            "maxAmount": _amount_or_none(given.get("max_amount")),
            "limit": given.get("limit"),
        },
    )


def _query(metadata: Mapping[str, object] | None = None, /, **parameters: Any) -> dict[str, str]:
    texts = {
        name: _time(value) if isinstance(value, datetime) else str(value)
        for name, value in parameters.items()
        if value is not None
    }
    return texts | {f"metadata.{key}": str(value) for key, value in (metadata or {}).items()}
