"""What answers have to say, given what is committed."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from tests.support.histories.asked import Command
from tests.support.histories.ledger import Operation

Fields = dict[str, Any]


def differences(told: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    """Where the answer says something else. Amounts and times are compared as such, not as texts."""
    for name, value in expected.items():
        said = told.get(name)
        if said != value and _read(said, value) != value:
            yield f"{name} is {said!r}, not {value!s}"


def _read(said: Any, like: Any) -> Any:
    match said, like:
        case str(), Decimal():
            return Decimal(said)
        case str(), datetime():
            return datetime.fromisoformat(said)
    return said


def operation(row: Operation) -> Fields:
    return {
        "id": row.id,
        "walletId": row.wallet_id,
        "sequence": row.sequence,
        "operationType": row.type,
        "amount": row.amount,
        "status": row.status,
        "reason": row.reason,
        "balance": row.balance_after,
        "transferId": row.transfer_id,
        "counterpartyWalletId": row.counterparty_id,
        "holdId": row.id if row.type == "HOLD" else row.hold_id,
        "reversesId": row.reverses_id,
        "idempotencyKey": row.idempotency_key,
        "description": row.description,
        "createdAt": row.created_at,
    }


def accepted(row: Operation) -> Fields:
    """As it was when it came into the inbox. How much it will be, where that was left open, came later."""
    body = operation(row) | {"status": "PENDING", "sequence": None, "balance": None, "reason": None}
    body["createdAt"] = row.accepted_at
    if row.takes_rest:
        del body["amount"]
    return body


def hold_then(row: Operation) -> Fields:
    """The hold as it was placed, or as the VOID left it."""
    body: Fields = {
        "walletId": row.wallet_id,
        "amount": row.amount,
        "capturedAmount": None,
        "operationId": None,
    }
    if row.type == "HOLD":
        times = {"createdAt": row.created_at, "expiresAt": row.expires_at, "endedAt": None}
        return {"id": row.id, "status": "ACTIVE", **body, **times}
    return {"id": row.hold_id, "status": "VOIDED", **body, "endedAt": row.created_at}


def answer(command: Command, row: Operation, counterpart: Operation | None) -> Iterator[str]:
    """Where the answer to a command differs from the operation that it became."""
    told = command.told
    own = told.body.get("source", told.body)
    if told.status == 409:
        yield from differences(told.body, {"operationId": row.id, "code": row.reason})
        if row.status != "REJECTED":
            yield f"it was refused, and is {row.status}"
        return
    if told.status == 202:
        yield from differences(own, accepted(row))
        if row.accepted_at is None:
            yield "it was accepted for later, and not carried out from the inbox"
        return
    if row.status != "COMPLETED":
        yield f"it was carried out, and is {row.status}"
    if row.type in ("HOLD", "VOID"):
        yield from differences(told.body, hold_then(row))
        return
    yield from differences(own, operation(row))
    if row.type == "TRANSFER_OUT":
        yield from differences(told.body["target"] or {}, operation(counterpart) if counterpart else {})
