"""The expected content of responses, derived from the committed ledger."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from tests.support.histories.commands import Command
from tests.support.histories.ledger import Operation

Fields = dict[str, Any]


def differences(shown: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    """Yield the differing fields of a response. Amounts and times are compared by value, not as text."""
    for name, value in expected.items():
        said = shown.get(name)
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
    """Return the fields of an operation in the inbox. An amount that was left open is not known yet."""
    body = operation(row) | {"status": "PENDING", "sequence": None, "balance": None, "reason": None}
    body["createdAt"] = row.accepted_at
    if row.takes_rest:
        del body["amount"]
    return body


def hold_then(row: Operation) -> Fields:
    """Return the hold as placed, or as it was after the VOID."""
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
    """Yield the differences between the response to a command and its operation."""
    result = command.result
    own = result.body.get("source", result.body)
    if result.status == 409:
        yield from differences(result.body, {"operationId": row.id, "code": row.reason})
        if row.status != "REJECTED":
            yield f"it was refused, and is {row.status}"
        return
    if result.status == 202:
        yield from differences(own, accepted(row))
        if row.accepted_at is None:
            yield "it was accepted for later, and not carried out from the inbox"
        return
    if row.status != "COMPLETED":
        yield f"it was carried out, and is {row.status}"
    if row.type in ("HOLD", "VOID"):
        yield from differences(result.body, hold_then(row))
        return
    yield from differences(own, operation(row))
    if row.type == "TRANSFER_OUT":
        yield from differences(result.body["target"] or {}, operation(counterpart) if counterpart else {})
