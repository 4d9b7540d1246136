"""Group read: one SELECT reads the wallets of all requests in flight.

The query starts after the requests have arrived, so its result is as fresh as with one query for each
request, and no cache can be stale.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final
from uuid import UUID

from django import db
from django.conf import settings
from django.db.models import Sum
from django.db.models.expressions import RawSQL

from wallets import database_retry
from wallets.batching import Batcher, once
from wallets.ledger.commands import MakeTransfer
from wallets.ledger.decisions import Posted, as_visible_to_counterparty
from wallets.ledger.tables import Record, Tables
from wallets.models import Operation, Wallet

MAX_REVERSAL_IDS: Final = 100
READER = "reader"  # the reader's own connection (settings.DATABASES)


def read_wallet(wallet_id: UUID) -> Wallet | None:
    """Return the current wallet, or None.

    Raises TooManyRequests or Unavailable as the committer does.
    """
    if settings.GROUP_COMMIT:
        return batcher().call(wallet_id)
    return database_retry.retry_until_deadline(
        lambda: Wallet.objects.with_expired().filter(id=wallet_id).first()
    )


@once
def batcher() -> Batcher[UUID, Wallet | None]:
    """Return the batcher of this process: created at the first read, so after the server's fork."""
    return Batcher(
        "reader",
        database_retry.run_as_one_call(_wallets, READER),
        max_batch_size=settings.GROUP_COMMIT_BATCH,
        queue_limit=settings.GROUP_COMMIT_QUEUE,
        timeout_seconds=settings.OPERATION_DEADLINE,
    )


def read_operation(operation_id: UUID, owner_restriction: int | None = None) -> Posted | None:
    """Return the operation from the ledger or the inbox, or None.

    With an owner restriction, only an operation of a wallet of this user. Raises django.db.Error if the
    database stays unavailable.
    """
    found, own = database_retry.retry_until_deadline(lambda: _operation(operation_id, owner_restriction))
    return found if found and found.operation.wallet_id in own else None


@dataclass(frozen=True, slots=True)
class Reversals:
    """The completed reversals of an operation: their sum, and the oldest MAX_REVERSAL_IDS of their ids."""

    amount: Decimal
    ids: list[UUID]


def read_reversals(operation: Record) -> Reversals:
    """Return the reversals of the operation, which are in its own wallet."""
    reversals = Operation.objects.filter(
        wallet_id=operation.wallet_id, reverses_id=operation.id, status=Operation.Status.COMPLETED
    )
    return database_retry.retry_until_deadline(
        lambda: Reversals(
            reversals.aggregate(sum=Sum("amount"))["sum"] or Decimal(0),
            list(reversals.order_by("created_at").values_list("id", flat=True)[:MAX_REVERSAL_IDS]),
        )
    )


def read_transfer(transfer_id: UUID, owner_restriction: int | None = None) -> Posted | None:
    """Return the transfer with the id of its operation on the source, or None.

    With an owner restriction, only a transfer from or to a wallet of this user; what only the other owner may
    see is left out. Raises django.db.Error if the database stays unavailable.
    """
    found, own = database_retry.retry_until_deadline(lambda: _operation(transfer_id, owner_restriction))
    if found is None or found.operation.type != MakeTransfer.type or not own:
        return None
    source, target = found.operation, found.counterpart
    return replace(
        found,
        operation=source if source.wallet_id in own else as_visible_to_counterparty(source),
        counterpart=target
        if target is None or target.wallet_id in own
        else as_visible_to_counterparty(target),
    )


def _wallets(ids: Sequence[UUID]) -> list[Wallet | None]:
    # An array: the text of the statement does not depend on the number of wallets, so it stays prepared.
    asked = RawSQL("SELECT unnest(%s::uuid[])", [list(set(ids))])
    wallets = Wallet.objects.using(READER).with_expired().filter(id__in=asked)
    found = {wallet.id: wallet for wallet in wallets}
    return [found.get(id) for id in ids]


def _operation(operation_id: UUID, owner_restriction: int | None) -> tuple[Posted | None, set[UUID]]:
    """Return the operation with its counterpart, and the ids of their wallets that belong to this user."""
    tables = Tables(db.DEFAULT_DB_ALIAS)
    if (found := tables.operation(operation_id)) is None:
        return None, set()
    operation, currency = found
    counterpart = None
    if operation.transfer_id is not None and operation.sequence is not None:
        counterpart = tables.counterparts([operation.transfer_id]).get(operation.transfer_id)
    sides = {side.wallet_id for side in (operation, counterpart) if side}
    return Posted(operation, currency, counterpart=counterpart), _own(sides, owner_restriction)


def _own(wallet_ids: set[UUID], owner_restriction: int | None) -> set[UUID]:
    if owner_restriction is None:
        return wallet_ids
    return set(
        Wallet.objects.filter(owner_id=owner_restriction, id__in=wallet_ids).values_list("id", flat=True)
    )
