"""Past days without other operations: a report covers the whole ledger, which other tests write to."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count

import psycopg

from tests.support.chains import chain_anew
from tests.support.cluster import cluster

_days = count()


def quiet_day() -> datetime:
    """Return the beginning of a day without any operation."""
    return datetime(1990, 1, 1, tzinfo=UTC) + timedelta(days=40 * next(_days))


def move_operations(wallet_ids: Sequence[str], times: Sequence[datetime]) -> None:
    """Move the operations of these wallets, in their order, to these times.

    The service takes the time from its database and cannot change it. Both sides of a transfer share a time.
    """
    with psycopg.connect(cluster.url("postgres")) as database:
        moments = database.execute(
            "SELECT DISTINCT created_at FROM operation WHERE wallet_id = ANY(%s::uuid[]) ORDER BY created_at",
            [list(wallet_ids)],
        ).fetchall()
        for (moment,), time in zip(moments, times, strict=True):
            database.execute(
                "UPDATE operation SET created_at = %s WHERE wallet_id = ANY(%s::uuid[]) AND created_at = %s",
                [time, list(wallet_ids), moment],
            )
        for moment_of, of_operation in (("created_at", "id"), ("ended_at", "hold_id")):
            database.execute(
                f"UPDATE hold SET {moment_of} = operation.created_at FROM operation"
                f" WHERE operation.{of_operation} = hold.id AND operation.wallet_id = hold.wallet_id"
                " AND operation.status = 'COMPLETED' AND hold.wallet_id = ANY(%s::uuid[])".encode(),
                [list(wallet_ids)],
            )
        for wallet_id in wallet_ids:
            chain_anew(database, wallet_id)
