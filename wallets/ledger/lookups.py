"""Looks up the hold or the operation that a command names. The values found here never change.

So they are read before any lock is taken, and tell which wallets to lock. With an owner restriction, only the
holds and operations in wallets of that user are found.
"""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS

from wallets.database_retry import retry_until_deadline
from wallets.ledger.commands import Details, Original
from wallets.ledger.rules import HoldState
from wallets.ledger.tables import Tables
from wallets.models import Hold, Operation
from wallets.problems import HoldNotFound, OperationNotFound


def hold_to_end(hold_id: UUID, owner_restriction: int | None = None) -> tuple[UUID, Details]:
    """Return the wallet and the details of a hold. Raises HoldNotFound."""
    names = ("wallet_id", *Details._fields)
    holds = Hold.objects.filter(id=hold_id, **owner_filter(owner_restriction)).values_list(*names)
    found = retry_until_deadline(holds.first)
    if found is None:
        raise HoldNotFound
    wallet_id, *details = found
    return wallet_id, Details(*details)


def original(operation_id: UUID, owner_restriction: int | None = None) -> tuple[UUID, Original]:
    """Return the wallet and the operation to reverse. Raises OperationNotFound."""
    return retry_until_deadline(lambda: find_original(operation_id, owner_restriction))


def find_original(operation_id: UUID, owner_restriction: int | None = None) -> tuple[UUID, Original]:
    """Return what `original` returns, inside an open transaction, so without retries."""
    operations = Operation.objects
    operation = operations.filter(id=operation_id, **owner_filter(owner_restriction)).first()
    if operation is None:
        raise OperationNotFound
    other = None
    if operation.transfer_id is not None and operation.status == Operation.Status.COMPLETED:
        other = (
            operations.defer("metadata", "description")
            .filter(transfer_id=operation.transfer_id)
            .exclude(id=operation_id)
            .first()
        )
    return operation.wallet_id, Original(
        id=operation.id,
        type=operation.type,
        amount=operation.amount,
        is_completed=operation.status == Operation.Status.COMPLETED,
        counterparty_id=other.wallet_id if other else None,
        counterpart_id=other.id if other else None,
        details=Details(operation.reference, operation.description, operation.metadata),
    )


def owner_filter(owner_restriction: int | None) -> dict[str, Any]:
    """Return the queryset filter of an owner restriction, for rows that belong to a wallet."""
    return {} if owner_restriction is None else {"wallet__owner_id": owner_restriction}


def holds_by_id(pairs: Collection[tuple[UUID, UUID]]) -> dict[UUID, HoldState]:
    """Return the holds that exist among these pairs of wallet id and hold id, by hold id."""
    return Tables(DEFAULT_DB_ALIAS).holds(pairs)
