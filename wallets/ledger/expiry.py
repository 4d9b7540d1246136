"""Holds that expire while nobody touches their wallet: written down, for those who follow the log."""

from typing import Final

from django.db import connections, transaction

from wallets.ledger.tables import Tables

MAX_WALLETS_PER_TRANSACTION: Final = 500  # wallets in one transaction

_DUE: Final = """
    SELECT DISTINCT wallet_id FROM (
        SELECT wallet_id FROM hold WHERE status = 'ACTIVE' AND expires_at <= clock_timestamp()
        ORDER BY expires_at LIMIT %s
    ) AS due
"""


def write_down_all(using: str) -> None:
    while write_down(using) == MAX_WALLETS_PER_TRANSACTION:
        pass


def write_down(using: str) -> int:
    """Free what expired holds have held; return in how many wallets. Those that are locked are left out."""
    with connections[using].cursor() as cursor:
        cursor.execute(_DUE, [MAX_WALLETS_PER_TRANSACTION])
        due = [row[0] for row in cursor.fetchall()]
    if not due:
        return 0
    tables = Tables(using)
    with transaction.atomic(using=using):
        locked = tables.lock_wallets(due, wait=False)
        tables.expire_holds(locked, tables.clock())
    return len(locked)
