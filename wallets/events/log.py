"""The log of all that happened, in an order in which nothing is skipped: `operation` and `wallet_change`.

A transaction takes its id (xid8) when it begins to write, and others with later ids may commit before it. So
only what lies below the oldest id that is still at work is read: below this horizon everything is known.

Ids alone are not the order in which a wallet was written: who waited for its lock may have the smaller id.
So the log is read in windows, from one horizon to a later one, and within a window in the order of
`created_at`, which is taken under the lock; and a horizon is never between two such transactions.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from heapq import merge
from itertools import groupby, islice
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

import orjson
from django.db import DEFAULT_DB_ALIAS, connection, connections

from wallets.ledger import Record, to_record
from wallets.models import WalletChange

Place = tuple[datetime, UUID]  # of an entry among those of its wallet, and within a window: created_at and id


@dataclass(frozen=True, slots=True)
class Position:
    """How far somebody has read: all before `begin`; and of what is before `end`, all up to `after`."""

    begin: int
    end: int | None = None
    after: Place | None = None


@dataclass(frozen=True, slots=True)
class ChangeEntry:
    """A row of `wallet_change`."""

    id: UUID
    wallet_id: UUID
    type: str
    changes: dict[str, Any]
    created_at: datetime

    @property
    def expired_hold_id(self) -> UUID | None:
        return UUID(self.changes["hold_id"]) if self.type == WalletChange.Type.HOLD_EXPIRED else None


LogItem = Record | ChangeEntry

_RECORD: Final = ", ".join(field.name for field in fields(Record))
_CHANGE: Final = ", ".join(field.name for field in fields(ChangeEntry))

# The first page of a window. The index on the transaction's id finds it, and it is sorted: by a term that no
# index has, or PostgreSQL would walk all that is older along created_at.
_FIRST: Final = """
    SELECT {columns} FROM {table}
    WHERE transaction_id >= %(begin)s::xid8 AND transaction_id < %(end)s::xid8
        AND (%(wallets)s::uuid[] IS NULL OR wallet_id = ANY(%(wallets)s::uuid[]))
    ORDER BY created_at + interval '0', id LIMIT %(most)s
"""
# The next one of a long window. Sorted anew for every page it would take for ever, so this walks the index on
# created_at instead; IS TRUE keeps the other out of the question.
_NEXT: Final = """
    SELECT {columns} FROM {table}
    WHERE (transaction_id >= %(begin)s::xid8) IS TRUE AND (transaction_id < %(end)s::xid8) IS TRUE
        AND (%(wallets)s::uuid[] IS NULL OR wallet_id = ANY(%(wallets)s::uuid[]))
        AND created_at >= %(at)s AND (created_at, id) > (%(at)s, %(id)s)
    ORDER BY created_at, id LIMIT %(most)s
"""
# The entries of some wallets, each from a place on, that a reader at this position has passed.
_OF_WALLETS: Final = """
    SELECT {columns}
    FROM unnest(%(wallets)s::uuid[], %(since)s::timestamptz[], %(ids)s::uuid[])
        AS wanted (of_wallet, since, since_id)
    CROSS JOIN LATERAL (
        SELECT * FROM {table}
        WHERE wallet_id = of_wallet AND created_at >= since AND (created_at, id) >= (since, since_id) AND (
            transaction_id < %(begin)s::xid8
            OR transaction_id < %(end)s::xid8 AND (created_at, id) <= (%(at)s::timestamptz, %(id)s::uuid)
        )
        ORDER BY created_at, id LIMIT %(most)s
    ) AS entry
"""
# By wallet and id, or by wallet and the hold that has expired.
_FIND: Final = """
    SELECT {columns} FROM unnest(%(wallets)s::uuid[], %(ids)s::uuid[]) AS wanted (of_wallet, wanted_id)
    CROSS JOIN LATERAL (SELECT * FROM {table} WHERE wallet_id = of_wallet AND {condition}) AS entry
"""
_EXPIRY: Final = "type = 'HOLD_EXPIRED' AND changes ->> 'hold_id' = wanted_id::text"
# Not by EXISTS, which may read a whole table: the next one from `begin` on is at hand in the index.
_HAS_ENTRIES: Final = """
    SELECT coalesce((
        SELECT transaction_id FROM operation WHERE transaction_id >= %(begin)s::xid8
        ORDER BY transaction_id LIMIT 1
    ) < %(end)s::xid8, false) OR coalesce((
        SELECT transaction_id FROM wallet_change WHERE transaction_id >= %(begin)s::xid8
        ORDER BY transaction_id LIMIT 1
    ) < %(end)s::xid8, false)
"""
# What was written above the horizon: of each wallet, since when.
_ABOVE: Final = """
    SELECT wallet_id, min(created_at) FROM (
        SELECT wallet_id, created_at FROM operation WHERE transaction_id >= %(horizon)s::xid8
        UNION ALL
        SELECT wallet_id, created_at FROM wallet_change WHERE transaction_id >= %(horizon)s::xid8
    ) AS written GROUP BY wallet_id
"""
# Of what lies below, the first that comes, in its wallet, after what lies above. What was written since then
# is found by its time, and sorted by a term that no index has.
_OVERTAKEN: Final = """
    SELECT transaction_id::text::bigint FROM (
        SELECT wallet_id, created_at, transaction_id FROM operation WHERE created_at > %(earliest)s
        UNION ALL
        SELECT wallet_id, created_at, transaction_id FROM wallet_change WHERE created_at > %(earliest)s
    ) AS late JOIN unnest(%(wallets)s::uuid[], %(since)s::timestamptz[]) AS above (wallet_id, since)
        USING (wallet_id)
    WHERE created_at > since AND transaction_id < %(horizon)s::xid8
    ORDER BY transaction_id::text::bigint LIMIT 1
"""
BEGINNING: Final[Place] = (datetime(1, 1, 1, tzinfo=UTC), UUID(int=0))


# Of the oldest transaction at work, the horizon. It stays while that one does, who may take minutes: what is
# written meanwhile comes after all that lies below.
_known: dict[int, int] = {}


def horizon(using: str = DEFAULT_DB_ALIAS) -> int:
    """All transactions below this id have ended, and what they wrote is to be seen.

    And nothing of it comes, in its wallet, after what was written above.
    """
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
        oldest: int = cursor.fetchone()[0]
        if (found := _known.get(oldest)) is None:
            found = _below_all_overtaken(cursor, oldest)
            _known.clear()
            _known[oldest] = found
        return found


def _below_all_overtaken(cursor: Any, horizon: int) -> int:
    """Who waited for a lock may be below, and who had it above, while one between them is still at work."""
    while True:
        cursor.execute(_ABOVE, {"horizon": str(horizon)})
        if not (above := dict(cursor.fetchall())):
            return horizon
        wallets = {"wallets": list(above), "since": list(above.values()), "earliest": min(above.values())}
        cursor.execute(_OVERTAKEN, {"horizon": str(horizon), **wallets})
        if (row := cursor.fetchone()) is None:
            return horizon
        horizon = row[0]


def has_entries(begin: int, end: int, using: str = DEFAULT_DB_ALIAS) -> bool:
    """Whether anything was written by the transactions from `begin` on and before `end`."""
    with connections[using].cursor() as cursor:
        cursor.execute(_HAS_ENTRIES, {"begin": str(begin), "end": str(end)})
        found: bool = cursor.fetchone()[0]
        return found


def read(
    position: Position, most: int, wallet_ids: Collection[UUID] | None = None
) -> tuple[list[LogItem], Position]:
    """What comes next, at most `most` entries of it, and the position behind them.

    With `wallet_ids`, only what concerns these. Where there is nothing new, the position may move as well.
    """
    end = horizon() if position.end is None else position.end
    if end <= position.begin:
        return [], position
    window = Position(position.begin, end, position.after or (BEGINNING if position.begin == 0 else None))
    entries = _page(window, most, wallet_ids)
    if len(entries) < most:
        return entries, Position(end)
    last = entries[-1]
    return entries, Position(position.begin, end, (last.created_at, last.id))


def read_wallets(since: Mapping[UUID, Place], upto: Position, most: int) -> list[LogItem]:
    """Return what a reader at `upto` has passed of these wallets, at most `most` entries of each, in order.

    `since` has the place of each wallet's first entry. Within a wallet created_at is the order of the log.
    """
    if not since:
        return []
    at, id = upto.after or (None, None)
    parameters = {
        "wallets": list(since),
        "since": [place[0] for place in since.values()],
        "ids": [place[1] for place in since.values()],
        "begin": str(upto.begin),
        "end": None if upto.end is None else str(upto.end),
        "at": at,
        "id": id,
        "most": most,
    }
    operations: list[LogItem] = [
        to_record(row) for row in _query(_OF_WALLETS, _RECORD, "operation", parameters)
    ]
    changes: list[LogItem] = [
        _change(row) for row in _query(_OF_WALLETS, _CHANGE, "wallet_change", parameters)
    ]
    entries = sorted(operations + changes, key=lambda entry: (entry.wallet_id, place_of(entry)))
    by_wallet = groupby(entries, key=attrgetter("wallet_id"))
    return [entry for _, of_wallet in by_wallet for entry in islice(of_wallet, most)]


def place_of(entry: LogItem) -> Place:
    return entry.created_at, entry.id


def find_operations(keys: Collection[tuple[UUID, UUID]]) -> list[LogItem]:
    """The operations with these wallets and ids."""
    return [to_record(row) for row in _find(keys, _RECORD, "operation", "id = wanted_id")]


def find_changes(keys: Collection[tuple[UUID, UUID]]) -> list[LogItem]:
    """The changes with these wallets and ids."""
    return [_change(row) for row in _find(keys, _CHANGE, "wallet_change", "id = wanted_id")]


def find_expiries(keys: Collection[tuple[UUID, UUID]]) -> list[LogItem]:
    """The expiries of these holds, each with its wallet."""
    return [_change(row) for row in _find(keys, _CHANGE, "wallet_change", _EXPIRY)]


def _find(
    keys: Collection[tuple[UUID, UUID]], columns: str, table: str, condition: str
) -> list[tuple[Any, ...]]:
    parameters = {"wallets": [wallet for wallet, _ in keys], "ids": [id for _, id in keys]}
    return _query(_FIND, columns, table, parameters, condition=condition) if keys else []


def _page(window: Position, most: int, wallet_ids: Collection[UUID] | None) -> list[LogItem]:
    """Two queries that agree: what is below the horizon changes no more."""
    operations: list[LogItem] = [
        to_record(row) for row in _rows(window, _RECORD, "operation", most, wallet_ids)
    ]
    changes: list[LogItem] = [
        _change(row) for row in _rows(window, _CHANGE, "wallet_change", most, wallet_ids)
    ]
    return list(islice(merge(operations, changes, key=place_of), most))


def _change(row: tuple[Any, ...]) -> ChangeEntry:
    values = dict(zip((field.name for field in fields(ChangeEntry)), row, strict=True))
    return ChangeEntry(**values | {"changes": orjson.loads(values["changes"])})


def _rows(
    window: Position, columns: str, table: str, most: int, wallet_ids: Collection[UUID] | None
) -> list[tuple[Any, ...]]:
    at, id = window.after or (None, None)
    parameters = {
        "begin": str(window.begin),
        "end": str(window.end),
        "wallets": None if wallet_ids is None else list(wallet_ids),
        "at": at,
        "id": id,
        "most": most,
    }
    return _query(_NEXT if window.after else _FIRST, columns, table, parameters)


def _query(
    sql: str, columns: str, table: str, parameters: Mapping[str, Any], **more: str
) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql.format(columns=columns, table=table, **more), parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows
