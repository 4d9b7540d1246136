"""Chooses the inbox entries that a worker claims next: the oldest ones, and the first ones of many wallets.

Half of a claim goes to the wallets in turn, by ascending id: it takes at least the first entry of `size // 2`
wallets, and the next claim continues after them. So the first entry of a wallet is claimed after at most
`wallets with waiting entries / (size // 2)` claims, however many entries another wallet has. The other half
goes to the oldest entries: few of them must wait for an entry that is not in the same claim.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.db import connection

from wallets.ledger.tables import AS_OPERATION, Record, to_record

# Entries to read for each one to claim: the oldest may all belong to wallets that are skipped. The wallets of
# later entries still get their turn.
OLDEST_ENTRIES_PER_WALLET: Final = 4

_COLUMNS: Final = f"""
    position, id, wallet_id, counterparty_id, attempts, coalesce(next_attempt_at <= clock_timestamp(), true),
    coalesce(sees_target, false),
    {AS_OPERATION}
"""
# One index lookup for each wallet, however many entries it has.
_NEXT_WALLETS: Final = """
    WITH RECURSIVE next (wallet_id, number) AS (
        (SELECT wallet_id, 1 FROM inbox WHERE set_aside_at IS NULL AND wallet_id > %(after)s
         ORDER BY wallet_id LIMIT 1)
        UNION ALL
        SELECT (
            SELECT inbox.wallet_id FROM inbox WHERE set_aside_at IS NULL AND inbox.wallet_id > next.wallet_id
            ORDER BY inbox.wallet_id LIMIT 1
        ), number + 1
        FROM next WHERE wallet_id IS NOT NULL AND number < %(most)s
    )
    SELECT wallet_id FROM next WHERE wallet_id IS NOT NULL
"""
_FIRST_OF_EACH: Final = f"""
    SELECT theirs.* FROM unnest(%(wallets)s::uuid[]) AS turn (of_wallet) CROSS JOIN LATERAL (
        SELECT {_COLUMNS} FROM inbox WHERE wallet_id = of_wallet AND set_aside_at IS NULL
        ORDER BY position LIMIT %(each)s FOR UPDATE SKIP LOCKED
    ) AS theirs
"""  # noqa: S608
_OLDEST: Final = f"""
    SELECT {_COLUMNS} FROM inbox
    WHERE set_aside_at IS NULL AND NOT id = ANY(%(claimed)s::uuid[])
        AND NOT wallet_id = ANY(%(blocked)s::uuid[])
        AND (counterparty_id IS NULL OR NOT counterparty_id = ANY(%(blocked)s::uuid[]))
        AND position <= (SELECT max(position) FROM (
            SELECT position FROM inbox WHERE set_aside_at IS NULL ORDER BY position LIMIT %(looked_at)s
        ) AS first)
    ORDER BY position LIMIT %(most)s FOR UPDATE SKIP LOCKED
"""  # noqa: S608
# Entries to execute after their attempts were recorded.
_AGAIN: Final = f"""
    SELECT {_COLUMNS} FROM inbox WHERE id = ANY(%(ids)s::uuid[]) ORDER BY position FOR UPDATE SKIP LOCKED
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class ClaimedEntry:
    """A row of the inbox, locked by this transaction."""

    position: int
    id: UUID
    wallet_id: UUID
    counterparty_id: UUID | None
    attempts: int
    is_due: bool
    sees_target: bool  # whether the client may read the second wallet
    row: tuple[Any, ...]
    is_oldest: bool  # claimed as one of the oldest entries, not for the turn of its wallet

    @property
    def wallet_ids(self) -> list[UUID]:
        return [wallet_id for wallet_id in (self.wallet_id, self.counterparty_id) if wallet_id]

    def accepted(self) -> Record:
        """Return the operation. Parsed late, so that an unreadable row fails only its own entry."""
        return to_record(self.row)


class Turns:
    """The wallet after which the next claim of this process continues."""

    _BEGINNING: Final = UUID(int=0)

    def __init__(self) -> None:
        self._after = self._BEGINNING

    def claim(self, size: int, blocked: Collection[UUID]) -> list[ClaimedEntry]:
        """Lock up to `size` waiting entries that no other worker has, in the order of their acceptance.

        Skips the wallets in `blocked`.
        """
        in_turn = self._in_turn(size // 2, blocked)
        oldest = _entries(
            _OLDEST,
            {
                "claimed": [entry.id for entry in in_turn],
                "blocked": list(blocked),
                "looked_at": size * OLDEST_ENTRIES_PER_WALLET,
                "most": size - len(in_turn),
            },
            is_oldest=True,
        )
        return sorted([*in_turn, *oldest], key=lambda entry: entry.position)

    def _in_turn(self, size: int, blocked: Collection[UUID]) -> list[ClaimedEntry]:
        wallets = _next_wallets(self._after, size)
        self._after = wallets[-1] if wallets and len(wallets) == size else self._BEGINNING
        free = [wallet_id for wallet_id in wallets if wallet_id not in blocked]
        return _entries(_FIRST_OF_EACH, {"wallets": free, "each": size // len(free)}) if free else []


def claim_again(ids: Collection[UUID]) -> list[ClaimedEntry]:
    """Lock the entries that still exist and that no other transaction has locked."""
    return _entries(_AGAIN, {"ids": list(ids)})


def _next_wallets(after: UUID, most: int) -> list[UUID]:
    return [row[0] for row in rows(_NEXT_WALLETS, {"after": after, "most": most})] if most else []


def _entries(sql: str, parameters: dict[str, Any], is_oldest: bool = False) -> list[ClaimedEntry]:
    return [
        ClaimedEntry(
            position, id, wallet_id, counterparty_id, attempts, is_due, sees_target, tuple(row), is_oldest
        )
        for position, id, wallet_id, counterparty_id, attempts, is_due, sees_target, *row in rows(
            sql, parameters
        )
    ]


def rows(sql: str, parameters: Any) -> list[tuple[Any, ...]]:
    """Execute the statement and return its rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found
