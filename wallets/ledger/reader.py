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

from wallets.ledger import recovery
from wallets.ledger.batch import Posted, as_seen_by_others
from wallets.ledger.commands import Transfer
from wallets.ledger.gather import Gather, once
from wallets.ledger.tables import Tables
from wallets.models import Wallet

READER = "reader"  # the reader's own connection (settings.DATABASES)


def read_wallet(wallet_id: UUID) -> Wallet | None:
    """The wallet as it is now; None where there is none.

    Raises TooManyRequests or Unavailable as the committer does.
    """
    if settings.GROUP_COMMIT:
        return gather().ask(wallet_id)
    return recovery.until_deadline(lambda: Wallet.objects.with_expired().filter(id=wallet_id).first())


@once
def gather() -> Gather[UUID, Wallet | None]:
    """This process's one. It is made at the first read, and so after the server's fork."""
    return Gather(
        "reader",
        recovery.in_one_call(_wallets, READER),
        most=settings.GROUP_COMMIT_BATCH,
        bound=settings.GROUP_COMMIT_QUEUE,
        patience=settings.OPERATION_DEADLINE,
    )


def read_operation(operation_id: UUID, within: int | None = None) -> Posted | None:
    """The operation as it is now, in the ledger or still in the inbox.

    With `within`, only one in a wallet of this user. Raises Unavailable where the database stays away.
    """
    found, own = recovery.until_deadline(lambda: _operation(operation_id, within))
    return found if found and found.operation.wallet_id in own else None


def read_transfer(transfer_id: UUID, within: int | None = None) -> Posted | None:
    """The transfer by its operation on the source, with the one on the target.

    With `within`, only one with a side in a wallet of this user; what the other side alone may know is left
    out. Raises Unavailable where the database stays away.
    """
    found, own = recovery.until_deadline(lambda: _operation(transfer_id, within))
    if found is None or found.operation.type != Transfer.type or not own:
        return None
    source, target = found.operation, found.counterpart
    return replace(
        found,
        operation=source if source.wallet_id in own else as_seen_by_others(source),
        counterpart=target if target is None or target.wallet_id in own else as_seen_by_others(target),
    )


def _wallets(ids: Sequence[UUID]) -> list[Wallet | None]:
    # An array, not a list of parameters: one text for every number of wallets, so that it stays prepared.
    asked = RawSQL("SELECT unnest(%s::uuid[])", [list(set(ids))])
    wallets = Wallet.objects.using(READER).with_expired().filter(id__in=asked)
    found = {wallet.id: wallet for wallet in wallets}
    return [found.get(id) for id in ids]


def _operation(operation_id: UUID, within: int | None) -> tuple[Posted | None, set[UUID]]:
    """The operation with its transfer's other side, and which of their wallets are this user's."""
    tables = Tables(db.DEFAULT_DB_ALIAS)
    if (found := tables.operation(operation_id)) is None:
        return None, set()
    operation, currency = found
    counterpart = None
    if operation.transfer_id is not None and operation.sequence is not None:
        counterpart = tables.counterparts([operation.transfer_id]).get(operation.transfer_id)
    sides = {side.wallet_id for side in (operation, counterpart) if side}
    return Posted(operation, currency, counterpart=counterpart), _own(sides, within)


def _own(wallet_ids: set[UUID], within: int | None) -> set[UUID]:
    if within is None:
        return wallet_ids
    return set(Wallet.objects.filter(owner_id=within, id__in=wallet_ids).values_list("id", flat=True))
