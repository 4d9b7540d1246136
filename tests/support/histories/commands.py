"""Extract the commands of a call: the wallet, the requested operation and the client's result."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from tests.support.histories.journal import Call
from tests.support.histories.ledger import Hold, Operation
from tests.support.histories.rules import REVERSED_BY

_PATHS = re.compile(r"/(wallets|holds|operations)/([^/]+)/(operation|holds|capture|void|reversal)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The fields that identify a request; the operation that it creates has the same fields."""

    wallet_id: str
    type: str
    amount: Decimal | None  # None: all of the remaining amount
    description: str = ""
    counterparty_id: str | None = None
    hold_id: str | None = None
    reverses_id: str | None = None
    expires_at: datetime | None = None


def form_of(operation: Operation) -> Form:
    return Form(
        wallet_id=operation.wallet_id,
        type=operation.type,
        amount=None if operation.takes_rest else operation.amount,
        description=operation.description,
        counterparty_id=operation.counterparty_id,
        hold_id=operation.hold_id,
        reverses_id=operation.reverses_id,
        expires_at=operation.expires_at,
    )


class Fate(Enum):
    """The client's knowledge about its command."""

    SETTLED = "settled"  # carried out, accepted, or refused by a rule with a record
    REFUSED = "refused"  # without a record
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CommandResult:
    fate: Fate
    status: int = 0
    body: Any = None
    is_replay: bool = False

    @property
    def id(self) -> str | None:
        """Return the id of the operation, or None for a void, whose response does not name it."""
        if self.status == 409:
            return str(self.body["operationId"])
        return None if self.status == 200 else str(self.body["id"])

    @property
    def comparable(self) -> Any:
        """Return the parts of the response that every replay repeats; `errors` depends on the bulk."""
        own = ("requestId", "errors", "remaining", "available")
        return self.status, {name: value for name, value in self.body.items() if name not in own}


@dataclass(frozen=True, slots=True, eq=False)
class Command:
    """One command of a call. Its form is None if it refers to an object that is not in the ledger."""

    call: Call
    number: int  # the index in a bulk
    form: Form | None
    key: str | None
    result: CommandResult
    is_atomic: bool = False

    def __str__(self) -> str:
        return str(self.call) if not self.is_bulk else f"operations.{self.number} of {self.call}"

    @property
    def is_bulk(self) -> bool:
        return self.call.request.path == "/operations"


class Reader:
    """Reads commands from calls, with the holds and operations that they refer to."""

    def __init__(self, holds: Mapping[str, Hold], operations: Mapping[str, Operation]) -> None:
        """Take the holds and the operations by their ids."""
        self._holds = holds
        self._operations = operations

    def commands(self, call: Call) -> Iterator[Command]:
        request, body = call.request, call.request.body or {}
        if request.method != "POST" or request.path in ("/wallets", "/wallet/create"):
            return
        if request.path == "/operations":
            yield from self._bulk(call, body)
            return
        key = body.get("id") or request.key
        yield Command(call, 0, self._form(request.path, body), key, result_of_single(call))

    def _bulk(self, call: Call, body: Mapping[str, Any]) -> Iterator[Command]:
        is_atomic = body.get("atomic", False)
        shared = call.request.key
        for number, item in enumerate(body["operations"]):
            key = item.get("id") or item.get("idempotencyKey") or (f"{shared}/{number}" if shared else None)
            yield Command(
                call, number, _movement(item), key, result_in_bulk(call, number, is_atomic), is_atomic
            )

    def _form(self, path: str, body: Mapping[str, Any]) -> Form | None:
        if path in ("/transfers", "/wallet"):
            return _movement(body)
        found = _PATHS.fullmatch(path)
        assert found, path
        _, id, what = found.groups()
        match what:
            case "operation":
                return _movement({"walletId": id, **body})
            case "holds":
                return _hold(id, body)
            case "capture" | "void":
                return self._end_of_hold(id, what.upper(), body)
        return self._reversal(id, body)

    def _end_of_hold(self, hold_id: str, kind: str, body: Mapping[str, Any]) -> Form | None:
        hold = self._holds.get(hold_id)
        if hold is None:
            return None
        return Form(
            wallet_id=hold.wallet_id,
            type=kind,
            amount=_amount(body),
            description=_inherited(body, self._operations[hold_id]),
            hold_id=hold_id,
        )

    def _reversal(self, operation_id: str, body: Mapping[str, Any]) -> Form | None:
        original = self._operations.get(operation_id)
        if original is None:
            return None
        return Form(
            wallet_id=original.wallet_id,
            type=REVERSED_BY.get(original.type, "REVERSAL_OUT"),
            amount=_amount(body),
            description=_inherited(body, original),
            counterparty_id=original.counterparty_id if original.is_completed else None,
            reverses_id=operation_id,
        )


def _movement(body: Mapping[str, Any]) -> Form:
    description = body.get("description", "")
    if "operationType" in body:
        wallet_id, kind = body["walletId"], body["operationType"]
        return Form(wallet_id=wallet_id, type=kind, amount=_amount(body), description=description)
    return Form(
        wallet_id=body["sourceWalletId"],
        type="TRANSFER_OUT",
        amount=_amount(body),
        counterparty_id=body["targetWalletId"],
        description=description,
    )


def _inherited(body: Mapping[str, Any], original: Operation) -> str:
    description: str = body.get("description") or original.description
    return description


def _hold(wallet_id: str, body: Mapping[str, Any]) -> Form:
    expires_at = body.get("expiresAt")
    return Form(
        wallet_id=wallet_id,
        type="HOLD",
        amount=_amount(body),
        description=body.get("description", ""),
        expires_at=datetime.fromisoformat(expires_at) if expires_at else None,
    )


def _amount(body: Mapping[str, Any]) -> Decimal | None:
    return Decimal(str(body["amount"])) if "amount" in body else None


# --- Results of commands ----------------------------------------------------------------------------
def result_of_single(call: Call) -> CommandResult:
    if call.answer is None or call.answer.status >= 500:
        return CommandResult(Fate.UNKNOWN if call.may_have_happened else Fate.REFUSED)
    return _result_of(call.answer.status, call.answer.json, call.is_replay)


def result_in_bulk(call: Call, number: int, is_atomic: bool) -> CommandResult:
    """Return the result of one item. A refused item of an atomic bulk refuses all items."""
    if call.answer is None or call.answer.status >= 500:
        return result_of_single(call)
    body, status = call.answer.json, call.answer.status
    if status == 200:
        result = body["results"][number]
        content = result.get("operation") or result.get("transfer") or result["problem"]
        return _result_of(result["status"], content, result["replayed"])
    place = _place(body.get("errors", [])) if is_atomic else None
    if place is not None and place != number:
        return CommandResult(Fate.REFUSED)  # this item itself may be valid
    return _result_of(status, body, call.is_replay)


def _place(errors: Sequence[Mapping[str, str]]) -> int | None:
    """Return the index of the refused item of a bulk."""
    found = re.match(r"operations\.(\d+)", errors[0]["field"]) if errors else None
    return int(found[1]) if found else None


def _result_of(status: int, body: Any, is_replay: bool) -> CommandResult:
    if status >= 500:
        return CommandResult(Fate.UNKNOWN, status, body)
    if status in (200, 201, 202) or (status == 409 and body.get("operationId")):
        return CommandResult(Fate.SETTLED, status, body, is_replay)
    return CommandResult(Fate.REFUSED, status, body)
