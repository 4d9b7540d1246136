"""Examples of answers, for the OpenAPI document."""

from typing import Any


def pending(operation: dict[str, Any]) -> dict[str, Any]:
    return operation | {"status": "PENDING", "sequence": None, "balance": None}


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

OTHER_WALLET_ID = "01930a5d-ac97-7bcd-8cce-0123456789ab"
TRANSFER_ID = "01930a5d-b1c3-7d3e-9f40-5a6b7c8d9e10"
SOURCE_EXAMPLE = OPERATION_EXAMPLE | {
    "id": TRANSFER_ID,
    "sequence": 2,
    "operationType": "TRANSFER_OUT",
    "amount": "15.50",
    "balance": "984.50",
    "transferId": TRANSFER_ID,
    "counterpartyWalletId": OTHER_WALLET_ID,
    "idempotencyKey": "rent-november",
}
TARGET_EXAMPLE = SOURCE_EXAMPLE | {
    "id": "01930a5d-b1c3-7d3e-9f40-5a6b7c8d9e11",
    "walletId": OTHER_WALLET_ID,
    "sequence": 1,
    "operationType": "TRANSFER_IN",
    "balance": "15.50",
    "counterpartyWalletId": WALLET_ID,
    "idempotencyKey": None,
}
TRANSFER_EXAMPLE = {
    "id": TRANSFER_ID,
    "amount": "15.50",
    "currency": "RUB",
    "status": "COMPLETED",
    "reason": None,
    "source": SOURCE_EXAMPLE,
    "target": TARGET_EXAMPLE,
    "createdAt": TIME,
}
PENDING_TRANSFER = TRANSFER_EXAMPLE | {
    "status": "PENDING",
    "source": pending(SOURCE_EXAMPLE),
    "target": None,
}
HOLD_ID = "01930a5d-b1c4-7d3e-9f40-5a6b7c8d9e12"
HOLD_EXAMPLE = {
    "id": HOLD_ID,
    "walletId": WALLET_ID,
    "amount": "200.00",
    "currency": "RUB",
    "status": "ACTIVE",
    "capturedAmount": None,
    "operationId": None,
    "description": "order 7",
    "expiresAt": "2026-11-28T09:30:00.000000Z",
    "createdAt": TIME,
    "endedAt": None,
}
CAPTURE_EXAMPLE = OPERATION_EXAMPLE | {
    "id": "01930a5d-b1c5-7d3e-9f40-5a6b7c8d9e13",
    "sequence": 3,
    "operationType": "CAPTURE",
    "amount": "150.00",
    "balance": "834.50",
    "holdId": HOLD_ID,
    "idempotencyKey": None,
}
REVERSAL_EXAMPLE = OPERATION_EXAMPLE | {
    "id": "01930a5d-b1c6-7d3e-9f40-5a6b7c8d9e14",
    "sequence": 4,
    "operationType": "REVERSAL_OUT",
    "amount": "100.00",
    "balance": "734.50",
    "reversesId": OPERATION_ID,
    "idempotencyKey": None,
}

BALANCE_EXAMPLE = {
    "walletId": WALLET_ID,
    "currency": "RUB",
    "balance": "1000.00",
    "held": "200.00",
    "available": "800.00",
    "sequence": 1,
    "at": "2026-12-31T23:59:59.999999Z",
}
STATEMENT_EXAMPLE = {
    "walletId": WALLET_ID,
    "currency": "RUB",
    "from": "2026-11-01T00:00:00.000000Z",
    "to": "2026-12-01T00:00:00.000000Z",
    "openingBalance": "0.00",
    "entries": [OPERATION_EXAMPLE, SOURCE_EXAMPLE],
    "closingBalance": "984.50",
}
STATEMENT_AS_CSV = f"""\
time,sequence,operationType,amount,balance,currency,description,operationId,transferId,counterpartyWalletId,\
holdId,reversesId,idempotencyKey
2026-11-01T00:00:00.000000Z,,OPENING_BALANCE,,0.00,RUB,,,,,,,
{TIME},1,DEPOSIT,1000.00,1000.00,RUB,,{OPERATION_ID},,,,,order-1
{TIME},2,TRANSFER_OUT,-15.50,984.50,RUB,,{TRANSFER_ID},{TRANSFER_ID},{OTHER_WALLET_ID},,,rent-november
2026-12-01T00:00:00.000000Z,,CLOSING_BALANCE,,984.50,RUB,,,,,,,
""".replace("\n", "\r\n")
EVENT_STREAM = f"""\
id: 4711
data: {{"specversion":"1.0","id":"{OPERATION_ID}:balance","source":"walletsvc","type":\
"wallet.balance.changed","subject":"{WALLET_ID}","time":"{TIME}","datacontenttype":"application/json","data":{{"walletId":"{WALLET_ID}",\
"currency":"RUB","balance":"1000.00","change":"1000.00","sequence":1,"operationId":"{OPERATION_ID}"}}}}

"""
WEBHOOK_ID = "01930a5d-b1c7-7d3e-9f40-5a6b7c8d9e15"
_WEBHOOK = {
    "id": WEBHOOK_ID,
    "name": "shop",
    "url": "https://shop.example.com/wallet-events",
    "types": ["wallet.balance.changed"],
    "batch": 1,
    "createdAt": TIME,
}
REGISTERED_EXAMPLE = _WEBHOOK | {"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="}
WEBHOOK_EXAMPLE = _WEBHOOK | {
    "isEnabled": True,
    "disabledBecause": "",
    "failingSince": None,
    "lastError": "answered 503",
    "retryAt": None,
    "deliveredAt": TIME,
    "formerSecretUntil": None,
    "lag": 0.0,
    "parked": 0,
    "dead": 1,
}
SECRET_EXAMPLE = {"secret": REGISTERED_EXAMPLE["secret"], "formerSecretUntil": "2026-11-22T09:30:00.000000Z"}
DELIVERY_EXAMPLE = {
    "eventId": f"{OPERATION_ID}:balance",
    "events": 1,
    "at": TIME,
    "durationMs": 48,
    "statusCode": 503,
    "error": "answered 503",
    "response": "down for maintenance",
}
DEAD_LETTER_EXAMPLE = {
    "eventId": f"{OPERATION_ID}:balance",
    "type": "wallet.balance.changed",
    "walletId": WALLET_ID,
    "attempts": 17,
    "lastError": "answered 503",
    "createdAt": TIME,
    "event": {
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
    },
}

PERSON_EXAMPLE = {
    "name": "Anna",
    "email": "anna@example.com",
    "emailVerified": True,
    "walletId": WALLET_ID,
    "createdAt": TIME,
}
