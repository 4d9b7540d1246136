"""Group read: the wallets asked for by the requests in flight come from one SELECT.

The query starts after the requests have arrived, so what it returns is as fresh as a query of each one's own,
and there is no cache to go stale.
"""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from django import db
from django.conf import settings
from django.db.models.expressions import RawSQL

from wallets import database_retry
from wallets.batching import Batcher, once
from wallets.ledger.commands import MakeTransfer
from wallets.ledger.decisions import Posted, as_visible_to_counterparty
from wallets.ledger.tables import Tables
from wallets.models import Wallet

READER = "reader"  # the reader's own connection (settings.DATABASES)


def read_wallet(wallet_id: UUID) -> Wallet | None:
    """The wallet as it is now; None where there is none.

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
    """The operation as it is now, in the ledger or still in the inbox.

    With `within`, only one in a wallet of this user. Raises Unavailable where the database stays away.
    """
    found, own = database_retry.retry_until_deadline(lambda: _operation(operation_id, owner_restriction))
    return found if found and found.operation.wallet_id in own else None


def read_transfer(transfer_id: UUID, owner_restriction: int | None = None) -> Posted | None:
    """The transfer by its operation on the source, with the one on the target.

    With `within`, only one with a side in a wallet of this user; what the other side alone may know is left
    out. Raises Unavailable where the database stays away.
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
    # An array, not a list of parameters: one text for every number of wallets, so that it stays prepared.
    asked = RawSQL("SELECT unnest(%s::uuid[])", [list(set(ids))])
    wallets = Wallet.objects.using(READER).with_expired().filter(id__in=asked)
    found = {wallet.id: wallet for wallet in wallets}
    return [found.get(id) for id in ids]


def _operation(operation_id: UUID, owner_restriction: int | None) -> tuple[Posted | None, set[UUID]]:
    """The operation with its transfer's other side, and which of their wallets are this user's."""
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
