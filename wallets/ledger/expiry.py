"""Records the expiry of holds whose wallets have no operation meanwhile, so that subscribers hear of it."""

from typing import Final

from django.db import connections, transaction

from wallets.ledger.tables import Tables, wallet_states
from wallets.models import Wallet

MAX_WALLETS_PER_TRANSACTION: Final = 500

_DUE: Final = """
    SELECT DISTINCT wallet_id FROM (
        SELECT wallet_id FROM hold WHERE status = 'ACTIVE' AND expires_at <= clock_timestamp()
        ORDER BY expires_at LIMIT %s
    ) AS due
"""


def record_all_expiries(using: str) -> None:
    """Release the amounts of all expired holds, in transactions of MAX_WALLETS_PER_TRANSACTION."""
    while record_expiries(using) == MAX_WALLETS_PER_TRANSACTION:
        pass


def record_expiries(using: str) -> int:
    """Release the amounts of expired holds; return in how many wallets. Skips wallets that are locked."""
    with connections[using].cursor() as cursor:
        cursor.execute(_DUE, [MAX_WALLETS_PER_TRANSACTION])
        due = [row[0] for row in cursor.fetchall()]
    if not due:
        return 0
    tables = Tables(using)
    with transaction.atomic(using=using):
        free = Wallet.objects.using(using).select_for_update(no_key=True, skip_locked=True)
        locked = wallet_states(free, due)
        tables.expire_holds(locked, tables.clock())
    return len(locked)
