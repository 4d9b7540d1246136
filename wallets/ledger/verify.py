"""Proof of the books: every balance and sequence worked out again from the ledger alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import connection

# One statement, so one snapshot: a wallet and its operations are read as of the same moment, whatever is
# being posted meanwhile. Each check names what it expects, in the order in which they are reported.
_DIFFERENCES = """
WITH signed AS (
    SELECT wallet_id, sequence, created_at, balance_after,
           CASE type WHEN 'DEPOSIT' THEN amount WHEN 'WITHDRAW' THEN -amount END AS amount
    FROM operation
    WHERE status = 'COMPLETED' AND wallet_id = ANY(%(wallets)s::uuid[])
), entry AS (
    SELECT *,
           row_number() OVER ordered AS expected_sequence,
           sum(amount) OVER ordered AS expected_balance,
           lag(created_at) OVER ordered AS previous_created_at
    FROM signed
    WINDOW ordered AS (PARTITION BY wallet_id ORDER BY sequence)
), total AS (
    SELECT wallet_id, count(*) AS sequence, sum(amount) AS balance FROM signed GROUP BY wallet_id
)
SELECT wallet_id, format('operation %%s: sequence %%s, not %%s', sequence, sequence, expected_sequence)
FROM entry WHERE sequence <> expected_sequence
UNION ALL
SELECT wallet_id, format('operation %%s: balance %%s, not %%s', sequence, balance_after, expected_balance)
FROM entry WHERE balance_after IS DISTINCT FROM expected_balance
UNION ALL
SELECT wallet_id, format('operation %%s: written at %%s, before its predecessor', sequence, created_at)
FROM entry WHERE created_at <= previous_created_at
UNION ALL
SELECT id, format('balance %%s, the ledger says %%s', wallet.balance, coalesce(total.balance, 0))
FROM wallet LEFT JOIN total ON total.wallet_id = wallet.id
WHERE id = ANY(%(wallets)s::uuid[]) AND wallet.balance <> coalesce(total.balance, 0)
UNION ALL
SELECT id, format('sequence %%s, the ledger says %%s', wallet.sequence, coalesce(total.sequence, 0))
FROM wallet LEFT JOIN total ON total.wallet_id = wallet.id
WHERE id = ANY(%(wallets)s::uuid[]) AND wallet.sequence <> coalesce(total.sequence, 0)
UNION ALL
SELECT id, format('held %%s, but nothing holds', held)
FROM wallet WHERE id = ANY(%(wallets)s::uuid[]) AND held <> 0
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that a wallet or one of its operations says and the rest of the ledger contradicts."""

    wallet_id: UUID
    what: str


def verify(wallet_ids: Sequence[UUID]) -> list[Difference]:
    """What is wrong with the books of these wallets: nothing, one hopes."""
    with connection.cursor() as cursor:
        cursor.execute(_DIFFERENCES, {"wallets": list(wallet_ids)})
        return [Difference(*row) for row in cursor.fetchall()]


def wallet_batches(size: int) -> Iterator[list[UUID]]:
    """The ids of all wallets, in batches by id."""
    last = UUID(int=0)
    while True:
        with connection.cursor() as cursor:
            cursor.execute("SELECT id FROM wallet WHERE id > %s ORDER BY id LIMIT %s", [last, size])
            batch = [row[0] for row in cursor.fetchall()]
        if not batch:
            return
        yield batch
        last = batch[-1]
