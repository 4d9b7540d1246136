"""Examples of responses for the OpenAPI document: values by the names of fields, and exceptions by body."""

from typing import Any, Final, get_args

import orjson
from pydantic import BaseModel

from wallets.contract import responses

WALLET_ID: Final = "01930a5d-ac96-774b-8cce-b302099a8057"
OTHER_WALLET_ID: Final = "01930a5d-ac97-7bcd-8cce-0123456789ab"
OPERATION_ID: Final = "01930a5d-b1c2-7d3e-9f40-5a6b7c8d9e0f"
TRANSFER_ID: Final = "01930a5d-b1c3-7d3e-9f40-5a6b7c8d9e10"
HOLD_ID: Final = "01930a5d-b1c4-7d3e-9f40-5a6b7c8d9e12"
WEBHOOK_ID: Final = "01930a5d-b1c7-7d3e-9f40-5a6b7c8d9e15"
TIME: Final = "2026-11-21T09:30:00.000000Z"
FROM, TO = "2026-11-01T00:00:00.000000Z", "2026-12-01T00:00:00.000000Z"

EVENT: Final = {
    "specversion": "1.0",
    "id": f"{OPERATION_ID}:balance",
    "source": "walletsvc",
    "type": "wallet.balance.changed",
    "subject": WALLET_ID,
    "time": TIME,
    "datacontenttype": "application/json",
    "data": {
        "walletId": WALLET_ID,
        "currency": "RUB",
        "balance": "1000.00",
        "change": "1000.00",
        "sequence": 1,
        "operationId": OPERATION_ID,
    },
}
VALUES: Final[dict[str, Any]] = {
    "amount": "1000.00",
    "attempts": 17,
    "available": "1000.00",
    "balance": "1000.00",
    "batch": 1,
    "closingBalance": "984.50",
    "createdAt": TIME,
    "currency": "RUB",
    "dead": 1,
    "deliveredAt": TIME,
    "description": "",
    "disabledBecause": "",
    "durationMs": 48,
    "email": "anna@example.com",
    "emailVerified": True,
    "error": "answered 503",
    "event": EVENT,
    "eventId": EVENT["id"],
    "events": 1,
    "from": FROM,
    "held": "0.00",
    "isEnabled": True,
    "label": "till 1",
    "lag": 0.0,
    "lastError": "answered 503",
    "metadata": {},
    "name": "shop",
    "openingBalance": "0.00",
    "operationType": "DEPOSIT",
    "overdraftLimit": "0.00",
    "parked": 0,
    "reference": "",
    "replayed": 3,
    "reversalIds": [],
    "reversedAmount": "0.00",
    "response": "down for maintenance",
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=",
    "sequence": 1,
    "status": "COMPLETED",
    "statusCode": 503,
    "to": TO,
    "type": EVENT["type"],
    "types": [EVENT["type"]],
    "updatedAt": TIME,
    "url": "https://shop.example.com/wallet-events",
    "walletId": WALLET_ID,
}


def example_of(body: type[BaseModel], **differing: Any) -> dict[str, Any]:
    """Return the body with an example for each of its fields. A field without an example is null."""
    names = [str(field.alias) for field in body.model_fields.values()]
    if "items" in names:
        item = get_args(body.model_fields["items"].annotation)[0]
        return {"items": [example_of(item)], "nextCursor": None}
    return {name: VALUES.get(name) for name in names} | DIFFERING.get(body, {}) | differing


def pending(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the example of a pending operation or transfer."""
    if "source" in answer:
        return answer | {"status": "PENDING", "source": pending(answer["source"]), "target": None}
    return answer | {"status": "PENDING", "sequence": None, "balance": None}


DIFFERING: Final[dict[type[BaseModel], dict[str, Any]]] = {
    responses.WalletBody: {
        "id": WALLET_ID,
        "status": "ACTIVE",
        "externalId": "till-1",
        "metadata": {"shop": "north"},
    },
    responses.OperationBody: {"id": OPERATION_ID, "idempotencyKey": "order-1", "reference": "order-1"},
    responses.HoldBody: {
        "id": HOLD_ID,
        "amount": "200.00",
        "status": "ACTIVE",
        "description": "order 7",
        "expiresAt": "2026-11-28T09:30:00.000000Z",
    },
    responses.OperationDetailBody: {"id": OPERATION_ID, "idempotencyKey": "order-1", "reference": "order-1"},
    responses.BalanceBody: {"held": "200.00", "available": "800.00", "at": "2026-12-31T23:59:59.999999Z"},
    responses.RegisteredWebhookBody: {"id": WEBHOOK_ID},
    responses.WebhookBody: {"id": WEBHOOK_ID},
    responses.SecretBody: {"formerSecretUntil": "2026-11-22T09:30:00.000000Z"},
    responses.DeliveryBody: {"at": TIME},
    responses.PersonBody: {"name": "Anna"},
}
DIFFERING[responses.HoldDetailBody] = DIFFERING[responses.HoldBody] | {"captures": []}
OPERATION: Final = example_of(responses.OperationBody)
_SOURCE: Final = OPERATION | {
    "id": TRANSFER_ID,
    "sequence": 2,
    "operationType": "TRANSFER_OUT",
    "amount": "15.50",
    "balance": "984.50",
    "transferId": TRANSFER_ID,
    "counterpartyWalletId": OTHER_WALLET_ID,
    "idempotencyKey": "rent-november",
    "reference": "",
}
_TARGET: Final = _SOURCE | {
    "id": "01930a5d-b1c3-7d3e-9f40-5a6b7c8d9e11",
    "walletId": OTHER_WALLET_ID,
    "sequence": 1,
    "operationType": "TRANSFER_IN",
    "balance": "15.50",
    "counterpartyWalletId": WALLET_ID,
    "idempotencyKey": None,
}
_TRANSFER: Final = example_of(
    responses.TransferBody, id=TRANSFER_ID, amount="15.50", source=_SOURCE, target=_TARGET
)
DIFFERING[responses.TransferBody] = _TRANSFER
DIFFERING[responses.BulkBody] = {
    "results": [
        {"status": 201, "replayed": False, "operation": OPERATION},
        {"status": 201, "replayed": False, "transfer": _TRANSFER},
    ]
}
DIFFERING[responses.StatementBody] = {"entries": [OPERATION, _SOURCE]}
DIFFERING[responses.OwnWalletBody] = {"wallet": example_of(responses.WalletBody), "operations": [OPERATION]}
STATEMENT_AS_CSV: Final = f"""\
time,sequence,operationType,amount,balance,currency,description,operationId,transferId,counterpartyWalletId,\
holdId,reversesId,idempotencyKey,reference,metadata
{FROM},,OPENING_BALANCE,,0.00,RUB,,,,,,,,,
{TIME},1,DEPOSIT,1000.00,1000.00,RUB,,{OPERATION_ID},,,,,order-1,order-1,
{TIME},2,TRANSFER_OUT,-15.50,984.50,RUB,,{TRANSFER_ID},{TRANSFER_ID},{OTHER_WALLET_ID},,,rent-november,,
{TO},,CLOSING_BALANCE,,984.50,RUB,,,,,,,,,
""".replace("\n", "\r\n")
EVENT_STREAM: Final = f"id: 4711\ndata: {orjson.dumps(EVENT).decode()}\n\n"
