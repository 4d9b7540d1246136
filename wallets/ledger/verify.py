"""Verifies hashes, balances, sequences, transfers, holds and reversals, from the ledger alone."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from django.db import connection

from wallets.ledger import chain
from wallets.ledger.chain_verifier import OWNER, ChainVerifier
from wallets.ledger.consistent_read import NOTHING, Snapshot, reading
from wallets.models import LedgerCheck
from wallets.operation_types import HOLD_TYPES, OPERATION_TYPES

if TYPE_CHECKING:  # cryptography takes 6 MB of each worker
    from wallets.ledger.checkpoints import Comparison

OPERATIONS_PER_BLOCK: Final = 2000

_WALLETS: Final = "SELECT id, balance, sequence, hash FROM wallet WHERE id = ANY(%s::uuid[]) ORDER BY id"
# The operations since the last check, in the order of each chain, for chain_verifier.py.
_LINES: Final = """
    COPY (
        SELECT {is_before}, {hash}, wallet_id, {columns} FROM operation
        WHERE wallet_id = ANY('{{{wallets}}}'::uuid[]) AND {is_new}
        ORDER BY wallet_id, created_at
    ) TO STDOUT
"""
_IS_NEW: Final = (
    "transaction_id >= '{since.begin}'::xid8 AND NOT pg_visible_in_snapshot(transaction_id, '{since}')"
)
# Of constant length: a malformed hash becomes zeros, which no operation has.
_HASH: Final = "CASE WHEN octet_length(hash) = 32 THEN encode(hash, 'hex') ELSE repeat('0', 64) END"
# The state of each wallet at the last check.
_STARTS: Final = """
    SELECT wallet.id, last.id, coalesce(last.hash, ''), coalesce(moved.sequence, 0),
        coalesce(nullif(moved.balance_after, 'NaN'), 0)
    FROM wallet CROSS JOIN LATERAL (
        SELECT id, hash FROM operation
        WHERE wallet_id = wallet.id AND pg_visible_in_snapshot(transaction_id, %(since)s)
        ORDER BY created_at DESC LIMIT 1
    ) AS last LEFT JOIN LATERAL (
        SELECT sequence, balance_after FROM operation
        WHERE wallet_id = wallet.id AND pg_visible_in_snapshot(transaction_id, %(since)s)
            AND sequence IS NOT NULL
        ORDER BY created_at DESC LIMIT 1
    ) AS moved ON true
    WHERE wallet.id = ANY(%(wallets)s::uuid[])
"""
# Contradictions between rows. Each check is one SELECT; they are reported in this order.
_DIFFERENCES: Final = """
SELECT id, format('held %%s, active holds say %%s', held, coalesce(active.amount, 0))
FROM wallet LEFT JOIN (
    SELECT wallet_id, sum(amount) AS amount FROM hold
    WHERE status = 'ACTIVE' AND wallet_id = ANY(%(wallets)s::uuid[]) GROUP BY wallet_id
) AS active ON active.wallet_id = wallet.id
WHERE id = ANY(%(wallets)s::uuid[]) AND held IS DISTINCT FROM coalesce(active.amount, 0)
UNION ALL
SELECT wallet_id,
    format('hold %%s expires at %%s, the wallet looks first at %%s', hold.id, expires_at, next_expiry_at)
FROM hold JOIN wallet ON wallet.id = wallet_id
WHERE hold.status = 'ACTIVE' AND wallet_id = ANY(%(wallets)s::uuid[])
    AND expires_at < coalesce(next_expiry_at, 'infinity')
UNION ALL
-- Each operation of a transfer or its reversal has one counterpart, equal except for the direction.
SELECT one.wallet_id, format('operation %%s of transfer %%s has no counterpart', one.id, one.transfer_id)
FROM operation AS one LEFT JOIN operation AS other
    ON other.transfer_id = one.transfer_id AND other.id <> one.id AND other.status = 'COMPLETED'
    AND other.wallet_id = one.counterparty_id AND other.counterparty_id = one.wallet_id
    AND other.amount = one.amount AND other.created_at = one.created_at
    AND (other.type, one.type) IN {opposites}
WHERE one.status = 'COMPLETED' AND one.transfer_id IS NOT NULL AND one.wallet_id = ANY(%(wallets)s::uuid[])
    AND one.transaction_id >= %(begin)s::xid8
GROUP BY one.wallet_id, one.id, one.transfer_id HAVING count(other.id) <> 1
UNION ALL
-- A hold agrees with its operations: placed once, and ended as its status says.
SELECT hold.wallet_id,
    format('hold %%s is %%s, the ledger says %%s', hold.id, hold.status, coalesce(ends.what, 'nothing'))
FROM hold LEFT JOIN LATERAL (
    SELECT string_agg(type || ' ' || amount, ', ' ORDER BY created_at) AS what FROM operation
    WHERE operation.wallet_id = hold.wallet_id AND status = 'COMPLETED'
        AND (operation.id = hold.id AND type = 'HOLD' OR operation.hold_id = hold.id)
) AS ends ON true
WHERE hold.wallet_id = ANY(%(wallets)s::uuid[])
    AND (
        %(begin)s::xid8 = %(nothing)s::xid8 OR hold.status = 'ACTIVE' OR hold.id IN (
            SELECT coalesce(hold_id, id) FROM operation
            WHERE wallet_id = ANY(%(wallets)s::uuid[]) AND transaction_id >= %(begin)s::xid8
                AND type IN {of_holds}
        )
    )
    AND coalesce(ends.what, '') <> concat_ws(', ', 'HOLD ' || amount, CASE status
        WHEN 'CAPTURED' THEN 'CAPTURE ' || captured_amount WHEN 'VOIDED' THEN 'VOID ' || amount
    END)
UNION ALL
SELECT hold.wallet_id, format('hold %%s is not as operation %%s says', hold.id, operation.id)
FROM operation JOIN hold
    ON hold.id = coalesce(hold_id, operation.id) AND hold.wallet_id = operation.wallet_id
WHERE type IN {of_holds} AND operation.status = 'COMPLETED'
    AND operation.wallet_id = ANY(%(wallets)s::uuid[]) AND transaction_id >= %(begin)s::xid8
    AND CASE type
        WHEN 'HOLD' THEN
            (hold.expires_at, hold.reference, hold.description, hold.metadata, hold.created_at)
            IS DISTINCT FROM (
                operation.expires_at, operation.reference, operation.description, operation.metadata,
                operation.created_at
            )
        ELSE (hold.ended_at, coalesce(hold.operation_id, operation.id))
            IS DISTINCT FROM (operation.created_at, operation.id)
    END
UNION ALL
SELECT wallet_id,
    format('hold %%s is %%s, but expires at %%s', hold.id, hold.status, coalesce(expires_at::text, 'no time'))
FROM hold
WHERE wallet_id = ANY(%(wallets)s::uuid[])
    AND (hold.status IN ('ACTIVE', 'CAPTURED', 'VOIDED')) IS NOT TRUE
    AND (hold.status = 'EXPIRED' AND (
        -- The clock may have been ahead once. Then another row of the wallet has a later time, too.
        expires_at <= clock_timestamp()
        OR expires_at <= (SELECT max(created_at) FROM operation WHERE wallet_id = hold.wallet_id)
        OR expires_at <= (SELECT max(created_at) FROM wallet_change WHERE wallet_id = hold.wallet_id)
    )) IS NOT TRUE
UNION ALL
SELECT operation.wallet_id,
    format('%%s %%s is of hold %%s, but there is none', type, operation.id, coalesce(hold_id, operation.id))
FROM operation
WHERE type IN {of_holds} AND wallet_id = ANY(%(wallets)s::uuid[])
    AND transaction_id >= %(begin)s::xid8 AND (status = 'COMPLETED' OR type <> 'HOLD')
    -- An operator may reject an inbox entry because its hold does not exist.
    AND reason IS DISTINCT FROM 'rejected_by_operator'
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
    AND back.reverses_id IS NOT NULL
GROUP BY original.id, original.wallet_id, original.amount, original.status
HAVING sum(back.amount) > original.amount OR original.status <> 'COMPLETED'
UNION ALL
SELECT back.wallet_id, format('operation %%s reverses %%s, but there is none', back.id, back.reverses_id)
FROM operation AS back
WHERE back.reverses_id IS NOT NULL AND back.wallet_id = ANY(%(wallets)s::uuid[])
    AND back.reason IS DISTINCT FROM 'rejected_by_operator'
    AND NOT EXISTS (
        SELECT FROM operation AS original
        WHERE original.id = back.reverses_id AND original.wallet_id = back.wallet_id
    )
UNION ALL
SELECT operation.wallet_id, format('operation %%s is in the ledger, and in the inbox still', operation.id)
FROM inbox JOIN operation USING (id, wallet_id) WHERE wallet_id = ANY(%(wallets)s::uuid[])
UNION ALL
-- What constraints see to, as long as there are any.
SELECT wallet_id, format('hold %%s is %%s, and its end says otherwise', id, status) FROM hold
WHERE wallet_id = ANY(%(wallets)s::uuid[]) AND (amount > 0 AND CASE status
    WHEN 'ACTIVE' THEN num_nonnulls(ended_at, captured_amount, operation_id) = 0
    WHEN 'EXPIRED' THEN ended_at = expires_at AND num_nonnulls(captured_amount, operation_id) = 0
    WHEN 'VOIDED' THEN ended_at IS NOT NULL AND num_nonnulls(captured_amount, operation_id) = 0
    WHEN 'CAPTURED' THEN num_nonnulls(ended_at, captured_amount, operation_id) = 3
END) IS NOT TRUE
UNION ALL
SELECT wallet_id, format('hold %%s is there %%s times', id, count(*)) FROM hold
WHERE wallet_id = ANY(%(wallets)s::uuid[]) GROUP BY wallet_id, id HAVING count(*) > 1
UNION ALL
SELECT id, format('is there %%s times', count(*)) FROM wallet
WHERE id = ANY(%(wallets)s::uuid[]) GROUP BY id HAVING count(*) > 1
UNION ALL
-- The checks above select by transaction_id and would miss such a row.
SELECT wallet_id, format('operation %%s is of no transaction', id) FROM operation
WHERE wallet_id = ANY(%(wallets)s::uuid[]) AND (transaction_id <= '0'::xid8 OR transaction_id IS NULL)
"""
# SQL writes a tuple of texts as Python does.
_TYPES: Final = {
    "of_holds": HOLD_TYPES,
    "opposites": tuple((row.name, row.opposite) for row in OPERATION_TYPES.values() if row.opposite),
}
# Written after the checkpoint with a time before it. The clock of a promoted standby may be a little behind.
_ANTEDATED: Final = """
SELECT wallet_id,
    format('operation %%s is of %%s, before the checkpoint, and was written after it', id, created_at)
FROM operation
WHERE wallet_id = ANY(%(wallets)s::uuid[]) AND transaction_id >= %(end)s::xid8
    AND created_at < %(made_at)s - interval '1 minute'
"""
# The table operation_id has each id once, with the wallet that uses it. Two rows with the same id in two
# wallets cannot both agree with it, even if its primary key was dropped.
_UNREGISTERED: Final = """
SELECT used.wallet_id, format('%%s %%s: its id is registered for %%s', kind, used.id,
    coalesce('wallet ' || registered.wallet_id, 'no wallet'))
FROM (
    SELECT 'operation' AS kind, id, wallet_id FROM operation
    WHERE {in_wallets} AND transaction_id >= %(begin)s::xid8
    UNION ALL
    SELECT 'hold', id, wallet_id FROM hold WHERE {in_wallets}
    UNION ALL
    SELECT 'inbox entry', id, wallet_id FROM inbox WHERE {in_wallets}
) AS used LEFT JOIN operation_id AS registered ON registered.id = used.id
WHERE registered.wallet_id IS DISTINCT FROM used.wallet_id
"""
_INCONSISTENT_TABLES: Final = """
SELECT string_agg(oid::regclass::text, ', ' ORDER BY relname) FROM pg_class
WHERE oid = ANY('{wallet,operation,hold,inbox,wallet_change,operation_id}'::regclass[])
    AND (
        relkind <> 'r' OR relrowsecurity
        OR EXISTS (SELECT FROM pg_rewrite WHERE ev_class = pg_class.oid)
        OR EXISTS (SELECT FROM pg_inherits WHERE pg_class.oid IN (inhparent, inhrelid))
    )
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """A contradiction between a wallet or one of its operations and the rest of the ledger."""

    wallet_id: UUID
    what: str


def verify(wallet_ids: Sequence[UUID]) -> list[Difference]:
    """Verify these wallets and return the differences found."""
    return list(Verification().check(wallet_ids))


class Verification:
    """Verifies wallets batch by batch, each batch in one consistent snapshot.

    `since`: operations up to this snapshot are taken as verified.
    `comparison`: compare each chain with a checkpoint; then the batches must come in ascending wallet id.
    `notice`: called with the number of operations after each block.
    `is_whole`: the batches contain all wallets, and `finish` checks all ids in one statement.
    """

    def __init__(
        self,
        since: Snapshot = NOTHING,
        comparison: "Comparison | None" = None,
        notice: Callable[[int], object] = lambda operations: None,
        is_whole: bool = False,
    ) -> None:
        self.operations = 0
        self._since = since
        self._comparison = comparison
        self._notice = notice
        self._is_whole = is_whole

    def check(self, wallet_ids: Sequence[UUID]) -> Iterator[Difference]:
        """Verify one batch of wallets and yield the differences."""
        ids = list(wallet_ids)
        with reading() as cursor:
            chains = {str(row[0]).encode(): ChainVerifier(*row) for row in cursor.execute(_WALLETS, [ids])}
            if self._since != NOTHING:
                for wallet_id, *start in cursor.execute(_STARTS, {"wallets": ids, "since": f"{self._since}"}):
                    chains[str(wallet_id).encode()].start(*start)
            gone = (wallet_id for wallet_id in ids if str(wallet_id).encode() not in chains)
            yield from (Difference(wallet_id, "is missing, but rows of it exist") for wallet_id in gone)
            yield from self._verify_chains(cursor, chains)
            parameters = {"wallets": ids, "begin": f"{self._since.begin}", "nothing": f"{NOTHING.begin}"}
            for row in cursor.execute(_DIFFERENCES.format(**_TYPES), parameters):
                yield Difference(*row)
            if comparison := self._comparison:
                then = {"wallets": ids, "end": f"{comparison.snapshot.end}", "made_at": comparison.made_at}
                for row in cursor.execute(_ANTEDATED, then):
                    yield Difference(*row)
            if not self._is_whole:
                yield from _unregistered(cursor, "wallet_id = ANY(%(wallets)s::uuid[])", parameters)

    def _verify_chains(self, cursor: Any, chains: dict[bytes, ChainVerifier]) -> Iterator[Difference]:
        with cursor.copy(self._lines(chains)) as lines:
            for block in _blocks(map(bytes, lines)):
                for owner, of_wallet in groupby(block, OWNER):
                    verifier = chains[owner]
                    yield from (
                        Difference(verifier.wallet_id, what) for what in verifier.follow(list(of_wallet))
                    )
                self.operations += len(block)
                self._notice(len(block))
        for verifier in chains.values():
            yield from (Difference(verifier.wallet_id, what) for what in verifier.end())
            if self._comparison and verifier.head_then:
                found = self._comparison.add(verifier.wallet_id, verifier.head_then)
                yield from (Difference(*difference) for difference in found)

    def _lines(self, chains: Iterable[bytes]) -> str:
        then = self._comparison.snapshot if self._comparison else NOTHING
        return _LINES.format(
            is_before="false"
            if then == NOTHING
            else f"coalesce(pg_visible_in_snapshot(transaction_id, '{then}'), false)",
            is_new="true" if self._since == NOTHING else _IS_NEW.format(since=self._since),
            hash=_HASH,
            columns=", ".join(chain.COLUMNS),
            wallets=b",".join(chains).decode(),
        )

    def finish(self) -> Iterator[Difference]:
        """Yield the differences that can be found only after the last batch."""
        if self._comparison:
            yield from (Difference(*difference) for difference in self._comparison.finish())
        if self._is_whole:
            with reading() as cursor:
                yield from _unregistered(cursor, "true", {"begin": f"{self._since.begin}"})


def _unregistered(cursor: Any, in_wallets: str, parameters: dict[str, Any]) -> Iterator[Difference]:
    for row in cursor.execute(_UNREGISTERED.format(in_wallets=in_wallets), parameters):
        yield Difference(*row)


_GONE: Final = """
    SELECT wallet_id FROM operation WHERE NOT EXISTS (SELECT FROM wallet WHERE id = wallet_id)
    UNION
    SELECT wallet_id FROM hold WHERE NOT EXISTS (SELECT FROM wallet WHERE id = wallet_id)
    UNION
    SELECT wallet_id FROM wallet_change WHERE NOT EXISTS (SELECT FROM wallet WHERE id = wallet_id)
"""
_IDS: Final = "SELECT DISTINCT id FROM wallet WHERE id {beyond} %s ORDER BY id LIMIT %s"


def wallet_batches(size: int) -> Iterator[list[UUID]]:
    """Yield the ids of all wallets in batches by id, and at the end those of missing wallets with rows."""
    last, beyond = UUID(int=0), ">="
    while True:
        with connection.cursor() as cursor:
            cursor.execute(_IDS.format(beyond=beyond), [last, size])
            batch = [row[0] for row in cursor.fetchall()]
        if not batch:
            break
        yield batch
        last, beyond = batch[-1], ">"
    with connection.cursor() as cursor:
        cursor.execute(_GONE)
        if gone := [row[0] for row in cursor.fetchall()]:
            yield gone


def _blocks(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    rest = iter(lines)
    while block := list(islice(rest, OPERATIONS_PER_BLOCK)):
        yield block


# --- From one check to the next ---------------------------------------------------------------------
_CHANGED: Final = """
    SELECT wallet_id FROM operation
    WHERE transaction_id >= %(begin)s::xid8 AND NOT pg_visible_in_snapshot(transaction_id, %(since)s)
    UNION
    SELECT wallet_id FROM wallet_change
    WHERE transaction_id >= %(begin)s::xid8 AND NOT pg_visible_in_snapshot(transaction_id, %(since)s)
    ORDER BY wallet_id
"""


def changed_batches(since: Snapshot, size: int) -> Iterator[list[UUID]]:
    """Yield the ids of the wallets that have changed since the snapshot, in batches by id."""
    with connection.cursor() as cursor:
        cursor.execute(_CHANGED, {"begin": f"{since.begin}", "since": f"{since}"})
        changed = [row[0] for row in cursor.fetchall()]
    for start in range(0, len(changed), size):
        yield changed[start : start + size]


def now() -> tuple[datetime, Snapshot]:
    """Return the database's time and its snapshot. Every later check sees at least this snapshot."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp(), pg_current_snapshot()::text")
        at, snapshot = cursor.fetchone()
    return at, Snapshot(snapshot)


def last_check() -> LedgerCheck | None:
    """Return the last recorded verification."""
    return LedgerCheck.objects.only("snapshot", "differences").order_by("-id").first()


def inconsistent_tables() -> str | None:
    """Name the tables of the ledger that may show different rows to different roles, or None."""
    with connection.cursor() as cursor:
        cursor.execute(_INCONSISTENT_TABLES)
        found: str | None = cursor.fetchone()[0]
        return found
