"""Group read: the wallets asked for by the requests in flight come from one SELECT.

The query starts after the requests have arrived, so what it returns is as fresh as a query of each one's own,
and there is no cache to go stale.
"""

from collections.abc import Sequence
from uuid import UUID

from django import db
from django.conf import settings
from django.db.models.expressions import RawSQL

from wallets.ledger import recovery
from wallets.ledger.batch import Posted
from wallets.ledger.gather import Gather, Ticket, once
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
        _run,
        most=settings.GROUP_COMMIT_BATCH,
        bound=settings.GROUP_COMMIT_QUEUE,
        patience=settings.OPERATION_DEADLINE,
    )


def read_operation(operation_id: UUID) -> Posted | None:
    """The operation as it is now, in the ledger or still in the inbox, with its transfer's other side.

    Raises Unavailable where the database stays away.
    """
    return recovery.until_deadline(lambda: _operation(operation_id))


def _run(tickets: Sequence[Ticket[UUID, Wallet | None]]) -> list[Ticket[UUID, Wallet | None]]:
    claimed = [ticket for ticket in tickets if ticket.claim()]
    ids = list({ticket.item for ticket in claimed})
    try:
        found = recovery.until_deadline(lambda: _wallets(ids), READER)
    except db.Error as error:
        for ticket in claimed:
            ticket.fail(error)
    else:
        for ticket in claimed:
            ticket.settle(found.get(ticket.item))
    return []


def _wallets(ids: list[UUID]) -> dict[UUID, Wallet]:
    # An array, not a list of parameters: one text for every number of wallets, so that it stays prepared.
    asked = RawSQL("SELECT unnest(%s::uuid[])", [ids])
    return {wallet.id: wallet for wallet in Wallet.objects.using(READER).with_expired().filter(id__in=asked)}


def _operation(operation_id: UUID) -> Posted | None:
    tables = Tables(db.DEFAULT_DB_ALIAS)
    if (found := tables.operation(operation_id)) is None:
        return None
    operation, currency = found
    counterpart = None
    if operation.transfer_id is not None and operation.sequence is not None:
        counterpart = tables.counterparts([operation.transfer_id]).get(operation.transfer_id)
    return Posted(operation, currency, counterpart=counterpart)
