"""What a command refers to by its id: a hold, an operation. Nothing that is found here ever changes.

So it is looked up before anything is locked, and tells which wallets have to be.
"""

from uuid import UUID

from wallets.ledger.commands import Original
from wallets.ledger.recovery import until_deadline
from wallets.models import Hold, Operation
from wallets.problems import HoldNotFound, OperationNotFound


def wallet_of_hold(hold_id: UUID) -> UUID:
    """Raises HoldNotFound."""
    holds = Hold.objects.filter(id=hold_id).values_list("wallet_id", flat=True)
    wallet_id = until_deadline(holds.first)
    if wallet_id is None:
        raise HoldNotFound
    return wallet_id


def original(operation_id: UUID) -> tuple[UUID, Original]:
    """The operation that is to be reversed, and its wallet. Raises OperationNotFound."""
    return until_deadline(lambda: find_original(operation_id))


def find_original(operation_id: UUID) -> tuple[UUID, Original]:
    """The same, in a transaction: without trying again."""
    operations = Operation.objects.defer("metadata", "description")
    operation = operations.filter(id=operation_id).first()
    if operation is None:
        raise OperationNotFound
    other = None
    if operation.transfer_id is not None and operation.status == Operation.Status.COMPLETED:
        other = operations.filter(transfer_id=operation.transfer_id).exclude(id=operation_id).first()
    return operation.wallet_id, Original(
        id=operation.id,
        type=operation.type,
        amount=operation.amount,
        is_completed=operation.status == Operation.Status.COMPLETED,
        counterparty_id=other.wallet_id if other else None,
        counterpart_id=other.id if other else None,
    )
