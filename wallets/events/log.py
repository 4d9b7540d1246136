"""Read `operation` and `wallet_change` as one log, in an order that skips no entry.

A transaction takes its id (xid8) at its first write, and transactions with later ids may commit before it. So
only entries below the oldest id that is still in progress are read: below this horizon nothing is missing.

The order of ids is not the order of a wallet's entries: a transaction that waited for the wallet's lock may
have the smaller id. So the log is read in windows, from one horizon to a later one, and within a window in
the order of `created_at`, which is set while the lock is held. A horizon never separates two such
transactions.
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

Place = tuple[datetime, UUID]  # created_at and id: the order of the entries of a wallet, and of a window


@dataclass(frozen=True, slots=True)
class Position:
    """What was read: all entries before `begin`, and those before `end` up to and including `after`."""

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

_RECORD_COLUMNS: Final = ", ".join(field.name for field in fields(Record))
_CHANGE_COLUMNS: Final = ", ".join(field.name for field in fields(ChangeEntry))

# The first page of a window, found by the index on transaction_id. The sort key is an expression without an
# index: otherwise PostgreSQL could scan the index on created_at through all older rows.
_FIRST_PAGE: Final = """
    SELECT {columns} FROM {table}
    WHERE transaction_id >= %(begin)s::xid8 AND transaction_id < %(end)s::xid8
        AND (%(wallets)s::uuid[] IS NULL OR wallet_id = ANY(%(wallets)s::uuid[]))
    ORDER BY created_at + interval '0', id LIMIT %(limit)s
"""
# A later page of a long window. To sort the whole window for each page would take quadratic time, so this
# query scans the index on created_at; IS TRUE prevents the use of the index on transaction_id.
_NEXT_PAGE: Final = """
    SELECT {columns} FROM {table}
    WHERE (transaction_id >= %(begin)s::xid8) IS TRUE AND (transaction_id < %(end)s::xid8) IS TRUE
        AND (%(wallets)s::uuid[] IS NULL OR wallet_id = ANY(%(wallets)s::uuid[]))
        AND created_at >= %(at)s AND (created_at, id) > (%(at)s, %(id)s)
    ORDER BY created_at, id LIMIT %(limit)s
"""
# The entries that a reader at this position has read, of some wallets, for each from a place on.
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
        ORDER BY created_at, id LIMIT %(limit)s
    ) AS entry
"""
# By wallet and id, or by wallet and expired hold.
_FIND: Final = """
    SELECT {columns} FROM unnest(%(wallets)s::uuid[], %(ids)s::uuid[]) AS wanted (of_wallet, wanted_id)
    CROSS JOIN LATERAL (SELECT * FROM {table} WHERE wallet_id = of_wallet AND {condition}) AS entry
"""
_EXPIRY: Final = "type = 'HOLD_EXPIRED' AND changes ->> 'hold_id' = wanted_id::text"
# Not with EXISTS, for which PostgreSQL may scan the table: the first id from `begin` on is one index lookup.
_HAS_ENTRIES: Final = """
    SELECT coalesce((
        SELECT transaction_id FROM operation WHERE transaction_id >= %(begin)s::xid8
        ORDER BY transaction_id LIMIT 1
    ) < %(end)s::xid8, false) OR coalesce((
        SELECT transaction_id FROM wallet_change WHERE transaction_id >= %(begin)s::xid8
        ORDER BY transaction_id LIMIT 1
    ) < %(end)s::xid8, false)
"""
# For each wallet with an entry above the horizon, the time of the oldest such entry.
_WALLETS_ABOVE: Final = """
    SELECT wallet_id, min(created_at) FROM (
        SELECT wallet_id, created_at FROM operation WHERE transaction_id >= %(horizon)s::xid8
        UNION ALL
        SELECT wallet_id, created_at FROM wallet_change WHERE transaction_id >= %(horizon)s::xid8
    ) AS written GROUP BY wallet_id
"""
# The oldest entry below the horizon that its wallet wrote after an entry above the horizon. It is found by
# created_at; the sort key is an expression without an index, as above.
_OLDEST_OUT_OF_ORDER: Final = """
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


# The horizon, by the id of the oldest transaction in progress. It stays valid until that transaction ends,
# which may take minutes: entries written meanwhile come after all entries below the horizon.
_horizons: dict[int, int] = {}


def horizon(using: str = DEFAULT_DB_ALIAS) -> int:
    """Return the transaction id below which all transactions have ended, and their entries are visible.

    In each wallet, all entries below the horizon were written before those above it.
    """
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
        oldest: int = cursor.fetchone()[0]
        if (found := _horizons.get(oldest)) is None:
            found = _lower_horizon(cursor, oldest)
            _horizons.clear()
            _horizons[oldest] = found
        return found


def _lower_horizon(cursor: Any, horizon: int) -> int:
    """Lower the horizon until no wallet has an older entry above it than below it.

    A transaction that waited for a lock may have a lower id than the one that held the lock.
    """
    while True:
        cursor.execute(_WALLETS_ABOVE, {"horizon": str(horizon)})
        if not (above := dict(cursor.fetchall())):
            return horizon
        wallets = {"wallets": list(above), "since": list(above.values()), "earliest": min(above.values())}
        cursor.execute(_OLDEST_OUT_OF_ORDER, {"horizon": str(horizon), **wallets})
        if (row := cursor.fetchone()) is None:
            return horizon
        horizon = row[0]


def has_entries(begin: int, end: int, using: str = DEFAULT_DB_ALIAS) -> bool:
    """Whether the transactions from `begin` on and before `end` wrote any entry."""
    with connections[using].cursor() as cursor:
        cursor.execute(_HAS_ENTRIES, {"begin": str(begin), "end": str(end)})
        found: bool = cursor.fetchone()[0]
        return found


def read(
    position: Position, limit: int, wallet_ids: Collection[UUID] | None = None
) -> tuple[list[LogItem], Position]:
    """Return the next entries, at most `limit`, and the position after them.

    With `wallet_ids`, only entries of these wallets. The position may move even if there are no entries.
    """
    end = horizon() if position.end is None else position.end
    if end <= position.begin:
        return [], position
    window = Position(position.begin, end, position.after or (BEGINNING if position.begin == 0 else None))
    entries = _page(window, limit, wallet_ids)
    if len(entries) < limit:
        return entries, Position(end)
    last = entries[-1]
    return entries, Position(position.begin, end, (last.created_at, last.id))


def read_wallets(since: Mapping[UUID, Place], upto: Position, limit: int) -> list[LogItem]:
    """Return the entries of these wallets that a reader at `upto` has read, at most `limit` of each.

    `since` maps each wallet to the place of its first entry. created_at is the order within a wallet.
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
        "limit": limit,
    }
    operations: list[LogItem] = [
        to_record(row) for row in _query(_OF_WALLETS, _RECORD_COLUMNS, "operation", parameters)
    ]
    changes: list[LogItem] = [
        _change(row) for row in _query(_OF_WALLETS, _CHANGE_COLUMNS, "wallet_change", parameters)
    ]
    entries = sorted(operations + changes, key=lambda entry: (entry.wallet_id, place_of(entry)))
    by_wallet = groupby(entries, key=attrgetter("wallet_id"))
    return [entry for _, of_wallet in by_wallet for entry in islice(of_wallet, limit)]


def place_of(entry: LogItem) -> Place:
    return entry.created_at, entry.id


def find_operations(keys: Collection[tuple[UUID, UUID]]) -> list[LogItem]:
    """Find the operations with these pairs of wallet and id."""
    return [to_record(row) for row in _find(keys, _RECORD_COLUMNS, "operation", "id = wanted_id")]


def find_changes(keys: Collection[tuple[UUID, UUID]]) -> list[LogItem]:
    """Find the changes with these pairs of wallet and id."""
    return [_change(row) for row in _find(keys, _CHANGE_COLUMNS, "wallet_change", "id = wanted_id")]


def find_expiries(keys: Collection[tuple[UUID, UUID]]) -> list[LogItem]:
    """Find the expiries of holds, by pairs of wallet and hold."""
    return [_change(row) for row in _find(keys, _CHANGE_COLUMNS, "wallet_change", _EXPIRY)]


def _find(
    keys: Collection[tuple[UUID, UUID]], columns: str, table: str, condition: str
) -> list[tuple[Any, ...]]:
    parameters = {"wallets": [wallet for wallet, _ in keys], "ids": [id for _, id in keys]}
    return _query(_FIND, columns, table, parameters, condition=condition) if keys else []


def _page(window: Position, limit: int, wallet_ids: Collection[UUID] | None) -> list[LogItem]:
    """Merge two queries. They need no common snapshot: rows below the horizon never change."""
    operations: list[LogItem] = [
        to_record(row) for row in _rows(window, _RECORD_COLUMNS, "operation", limit, wallet_ids)
    ]
    changes: list[LogItem] = [
        _change(row) for row in _rows(window, _CHANGE_COLUMNS, "wallet_change", limit, wallet_ids)
    ]
    return list(islice(merge(operations, changes, key=place_of), limit))


def _change(row: tuple[Any, ...]) -> ChangeEntry:
    values = dict(zip((field.name for field in fields(ChangeEntry)), row, strict=True))
    return ChangeEntry(**values | {"changes": orjson.loads(values["changes"])})


def _rows(
    window: Position, columns: str, table: str, limit: int, wallet_ids: Collection[UUID] | None
) -> list[tuple[Any, ...]]:
    at, id = window.after or (None, None)
    parameters = {
        "begin": str(window.begin),
        "end": str(window.end),
        "wallets": None if wallet_ids is None else list(wallet_ids),
        "at": at,
        "id": id,
        "limit": limit,
    }
    return _query(_NEXT_PAGE if window.after else _FIRST_PAGE, columns, table, parameters)


def _query(
    sql: str, columns: str, table: str, parameters: Mapping[str, Any], **more: str
) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql.format(columns=columns, table=table, **more), parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows
