"""The hash chain: each operation has a hash over itself and its predecessor; the wallet has the last one.

hash = SHA-256(hash of the predecessor, empty for the first | the operation in COPY format)

The hashed bytes are the operation's line in PostgreSQL's COPY text format, in UTC: COLUMNS in this order,
separated by tabs. An empty reference is left out with its tab, because operations from before version 0.8
have none. So an auditor can verify it with psql and a few lines in any language (docs/reliability.md).
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

import orjson

from wallets.ledger.rules import WalletState
from wallets.ledger.tables import Record

COLUMNS: Final = (
    "id",
    "wallet_id",
    "sequence",
    "type",
    "amount",
    "balance_after",
    "status",
    "reason",
    "idempotency_key",
    "transfer_id",
    "counterparty_id",
    "hold_id",
    "reverses_id",
    "expires_at",
    "takes_rest",
    "description",
    "metadata",
    "actor",
    "accepted_at",
    "created_at",
    "reference",
)
BEGINNING: Final = b""  # the hash of a wallet without operations

_NULL: Final = "\\N"
_ESCAPED: Final = str.maketrans(
    {"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
)


def link(previous: bytes, canonical: bytes) -> bytes:
    """Return the hash of an operation in canonical form whose predecessor has the hash `previous`."""
    return sha256(previous + canonical).digest()


def extend(records: Sequence[Record], wallets: dict[UUID, WalletState]) -> None:
    """Set the hashes of the records, which are in execution order, and of their wallets."""
    heads: dict[UUID, bytes] = {}
    for record in records:
        previous = heads.get(record.wallet_id) or wallets[record.wallet_id].hash
        heads[record.wallet_id] = link(previous, canonical(record))
        record.hash = heads[record.wallet_id]  # type: ignore[misc]  # not shared yet
    for wallet_id, head in heads.items():
        wallets[wallet_id] = replace(wallets[wallet_id], hash=head)


def canonical(it: Record) -> bytes:
    """Return the operation as PostgreSQL's COPY writes it."""
    return (
        f"{it.id}\t{it.wallet_id}\t{_or_null(it.sequence)}\t{it.type}\t{it.amount:.4f}\t"
        f"{_NULL if it.balance_after is None else _money(it.balance_after)}\t{it.status}\t"
        f"{_or_null(it.reason)}\t{_text_or_null(it.idempotency_key)}\t{_or_null(it.transfer_id)}\t"
        f"{_or_null(it.counterparty_id)}\t{_or_null(it.hold_id)}\t{_or_null(it.reverses_id)}\t"
        f"{_time_or_null(it.expires_at)}\t{_flag_or_null(it.takes_rest)}\t{_text(it.description)}\t"
        f"{_text(jsonb(it.metadata)) if it.metadata else '{}'}\t{_text(it.actor)}\t"
        f"{_time_or_null(it.accepted_at)}\t{_time(it.created_at)}"
        f"{_reference(it.reference)}"
    ).encode()


def hashed(line: bytes) -> bytes:
    """Return what is hashed of a line of COPY with COLUMNS."""
    return line.removesuffix(b"\n").removesuffix(b"\t")


def _reference(text: str) -> str:
    return f"\t{_text(text)}" if text else ""


def _or_null(value: object) -> str:
    return _NULL if value is None else str(value)


def _money(value: Decimal) -> str:
    return f"{value or 0:.4f}"  # PostgreSQL's zero has no sign


def _text(value: str) -> str:
    return value.translate(_ESCAPED) if value else value


def _text_or_null(value: str | None) -> str:
    return _NULL if value is None else _text(value)


def _flag_or_null(value: bool | None) -> str:
    return _NULL if value is None else "t" if value else "f"


def _time_or_null(value: datetime | None) -> str:
    return _NULL if value is None else _time(value)


def _time(value: datetime) -> str:
    """Return a time such as 2026-11-26 09:30:00.25+00. PostgreSQL omits trailing zeros of the fraction."""
    text = str(value.astimezone(UTC))[:-6]
    return (text.rstrip("0") if value.microsecond else text) + "+00"


def jsonb(value: Any) -> str:
    """Return the JSON value as PostgreSQL writes jsonb: shorter keys first, then by their bytes."""
    match value:
        case dict():
            items = sorted((len(key := name.encode()), key, name, item) for name, item in value.items())
            return "{" + ", ".join(f"{_quoted(name)}: {jsonb(item)}" for _, _, name, item in items) + "}"
        case list():
            return "[" + ", ".join(map(jsonb, value)) + "]"
        case str():
            return _quoted(value)
        case float():
            return f"{Decimal(orjson.dumps(value or 0.0).decode()):f}"  # in full, and zero has no sign
    return orjson.dumps(value).decode()


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
