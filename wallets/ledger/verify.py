"""Proof of the books: every balance and sequence worked out again from the ledger alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import connection

from wallets.models import LedgerCheck

# One statement, so one snapshot: a wallet and its operations are read as of the same moment, whatever is
# being posted meanwhile. Each check names what it expects, in the order in which they are reported.
_DIFFERENCES = """
WITH signed AS (
    SELECT wallet_id, sequence, created_at, balance_after,
           CASE WHEN type IN ('DEPOSIT', 'TRANSFER_IN', 'REVERSAL_IN') THEN amount ELSE -amount END AS amount
    FROM operation
    WHERE sequence IS NOT NULL AND wallet_id = ANY(%(wallets)s::uuid[])
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
SELECT id, format('held %%s, active holds say %%s', held, coalesce(active.amount, 0))
FROM wallet LEFT JOIN (
    SELECT wallet_id, sum(amount) AS amount FROM hold
    WHERE status = 'ACTIVE' AND wallet_id = ANY(%(wallets)s::uuid[]) GROUP BY wallet_id
) AS active ON active.wallet_id = wallet.id
WHERE id = ANY(%(wallets)s::uuid[]) AND held <> coalesce(active.amount, 0)
UNION ALL
SELECT wallet_id,
    format('hold %%s expires at %%s, the wallet looks first at %%s', hold.id, expires_at, next_expiry_at)
FROM hold JOIN wallet ON wallet.id = wallet_id
WHERE hold.status = 'ACTIVE' AND wallet_id = ANY(%(wallets)s::uuid[])
    AND expires_at < coalesce(next_expiry_at, 'infinity')
UNION ALL
-- The two sides of a transfer, or of its reversal: each has its counterpart, alike but for the direction.
SELECT one.wallet_id, format('operation %%s of transfer %%s has no counterpart', one.id, one.transfer_id)
FROM operation AS one
WHERE one.status = 'COMPLETED' AND one.transfer_id IS NOT NULL AND one.wallet_id = ANY(%(wallets)s::uuid[])
    AND (
        SELECT count(*) FROM operation AS other
        WHERE other.transfer_id = one.transfer_id AND other.id <> one.id AND other.status = 'COMPLETED'
            AND other.wallet_id = one.counterparty_id AND other.counterparty_id = one.wallet_id
            AND other.amount = one.amount AND other.created_at = one.created_at
            AND (other.type, one.type) IN (
                ('TRANSFER_IN', 'TRANSFER_OUT'), ('TRANSFER_OUT', 'TRANSFER_IN'),
                ('REVERSAL_IN', 'REVERSAL_OUT'), ('REVERSAL_OUT', 'REVERSAL_IN')
            )
    ) <> 1
UNION ALL
-- A hold and what the ledger says of it: placed once, and ended as it stands.
SELECT hold.wallet_id,
    format('hold %%s is %%s, the ledger says %%s', hold.id, hold.status, coalesce(ends.what, 'nothing'))
FROM hold LEFT JOIN LATERAL (
    SELECT string_agg(type || ' ' || amount, ', ' ORDER BY created_at) AS what FROM operation
    WHERE operation.wallet_id = hold.wallet_id AND status = 'COMPLETED'
        AND (operation.id = hold.id AND type = 'HOLD' OR operation.hold_id = hold.id)
) AS ends ON true
WHERE hold.wallet_id = ANY(%(wallets)s::uuid[])
    AND coalesce(ends.what, '') <> concat_ws(', ', 'HOLD ' || amount, CASE status
        WHEN 'CAPTURED' THEN 'CAPTURE ' || captured_amount WHEN 'VOIDED' THEN 'VOID ' || amount
    END)
UNION ALL
SELECT operation.wallet_id,
    format('%%s %%s is of hold %%s, but there is none', type, operation.id, coalesce(hold_id, operation.id))
FROM operation
WHERE type IN ('HOLD', 'CAPTURE', 'VOID') AND wallet_id = ANY(%(wallets)s::uuid[])
    AND (status = 'COMPLETED' OR type <> 'HOLD')
    AND NOT EXISTS (
        SELECT FROM hold
        WHERE hold.id = coalesce(hold_id, operation.id) AND hold.wallet_id = operation.wallet_id
    )
UNION ALL
SELECT original.wallet_id,
    format('operation %%s of %%s was reversed by %%s', original.id, original.amount, sum(back.amount))
FROM operation AS back JOIN operation AS original
    ON original.id = back.reverses_id AND original.wallet_id = back.wallet_id
WHERE back.status = 'COMPLETED' AND back.wallet_id = ANY(%(wallets)s::uuid[])
GROUP BY original.id, original.wallet_id, original.amount, original.status
HAVING sum(back.amount) > original.amount OR original.status <> 'COMPLETED'
UNION ALL
SELECT back.wallet_id, format('operation %%s reverses %%s, but there is none', back.id, back.reverses_id)
FROM operation AS back
WHERE back.reverses_id IS NOT NULL AND back.wallet_id = ANY(%(wallets)s::uuid[])
    AND NOT EXISTS (
        SELECT FROM operation AS original
        WHERE original.id = back.reverses_id AND original.wallet_id = back.wallet_id
    )
UNION ALL
SELECT operation.wallet_id, format('operation %%s is in the ledger, and in the inbox still', operation.id)
FROM inbox JOIN operation USING (id, wallet_id) WHERE wallet_id = ANY(%(wallets)s::uuid[])
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


def note_check(began_at: datetime, wallets: int, differences: int) -> None:
    """Write down that all wallets were verified. Raises django.db.Error where nothing can be written."""
    LedgerCheck.objects.create(began_at=began_at, wallets=wallets, differences=differences)
