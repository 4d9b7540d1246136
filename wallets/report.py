"""Figures of the ledger for a period, for the operators' start page and `manage.py ledger_report`.

A period may have many millions of operations, but the number of rows that are read is bounded. If a period
has more than MAX_READ_OPERATIONS, it is divided into slices, and the figures are estimated from the last
operations of each slice.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, OperationalError, connection, transaction
from psycopg.errors import LockNotAvailable, QueryCanceled

from wallets.events.delivery_state import DeliveryState, standings
from wallets.ledger import database_clock, inbox, verify
from wallets.models import LedgerCheck

T = TypeVar("T")
Slice = tuple[datetime, datetime]

# No query begins later. The remaining time is the timeout of each statement of a query; some queries have two
# statements, so a report takes at most twice this time. Figures that are not ready by then are left out.
QUERY_DEADLINE_SECONDS: Final = 5.0
MAX_READ_OPERATIONS: Final = 100_000
MAX_COUNTED_OPERATIONS: Final = 500_000  # counted in an index, without reading their rows
MAX_SAMPLE_SLICES: Final = 2000  # of a period with more than MAX_READ_OPERATIONS
MIN_SAMPLE_HITS: Final = 10  # a wallet with fewer operations in a sample may be in it by chance
MAX_PERIOD: Final = timedelta(days=31)
MAX_BUSIEST_WALLETS: Final = 10  # by operations
MAX_BUSIEST_OF_CURRENCY: Final = 5  # by volume; amounts in two currencies cannot be compared
STEPS: Final = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 360, 1440))  # of the chart
MAX_STEPS: Final = 60

LAST_CHECK: Final = "last verification"

# SQL conditions. Rejected operations may be rare, so they have their own index.
ALL_OPERATIONS: Final = "true"
REJECTED_OPERATIONS: Final = "status = 'REJECTED'"

_COUNT: Final = """
    SELECT count(*) FROM (
        SELECT FROM operation WHERE created_at >= %s AND created_at < %s AND {condition} LIMIT %s
    ) AS operation
"""
# For each slice, the number of counted operations and the time of the first of them.
_SLICES: Final = """
    SELECT count, first
    FROM unnest(%s::timestamptz[], %s::timestamptz[]) WITH ORDINALITY AS slice (since, until, number)
    CROSS JOIN LATERAL (
        SELECT count(*) AS count, min(created_at) AS first FROM (
            SELECT created_at FROM operation WHERE created_at >= since AND created_at < until AND {condition}
            ORDER BY created_at DESC LIMIT %s
        ) AS newest
    ) AS read
    ORDER BY number
"""
_READ: Final = """
    unnest(%(since)s::timestamptz[], %(until)s::timestamptz[], %(weight)s::numeric[], %(step)s::integer[])
        AS slice (since, until, weight, step)
    CROSS JOIN LATERAL (
        SELECT wallet_id, type, amount, status, sequence, reason FROM operation
        WHERE created_at >= since AND created_at < until AND {condition}
        ORDER BY created_at DESC LIMIT %(limit)s
    ) AS operation
"""
_MOVEMENTS: Final = f"""
    SELECT step, currency, type, sum(weight), sum(amount * weight)
    FROM {_READ.format(condition=ALL_OPERATIONS)} JOIN wallet ON wallet.id = wallet_id
    WHERE operation.status = 'COMPLETED'
    GROUP BY step, currency, type
"""  # noqa: S608
_REFUSALS: Final = f"""
    SELECT step, reason, sum(weight) FROM {_READ.format(condition=REJECTED_OPERATIONS)} GROUP BY step, reason
"""  # noqa: S608
_WALLETS: Final = f"""
    WITH busy AS (
        SELECT wallet_id, sum(weight) AS operations,
               sum(amount * weight) FILTER (WHERE sequence IS NOT NULL) AS volume
        FROM {_READ.format(condition=ALL_OPERATIONS)} GROUP BY wallet_id HAVING count(*) >= %(min_hits)s
    ), ranked AS (
        SELECT wallet.id, label, currency, operations, coalesce(volume, 0) AS volume,
               row_number() OVER (ORDER BY operations DESC, wallet.id) AS by_operations,
               row_number() OVER (
                   PARTITION BY currency ORDER BY volume DESC NULLS LAST, wallet.id
               ) AS by_volume
        FROM busy JOIN wallet ON wallet.id = wallet_id
    )
    SELECT * FROM ranked
    WHERE by_operations <= {MAX_BUSIEST_WALLETS} OR by_volume <= {MAX_BUSIEST_OF_CURRENCY} AND volume > 0
"""  # noqa: S608


# --- Period -----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Period:
    """A period that includes `since` and excludes `until`."""

    since: datetime
    until: datetime

    @property
    def step(self) -> timedelta:
        """The length of each step of the chart; the last step may be shorter."""
        return next(step for step in STEPS if (self.until - self.since) / step <= MAX_STEPS)

    def slices(self, parts_per_step: int = 1) -> list[Slice]:
        width = self.step / parts_per_step
        count = -((self.since - self.until) // width)
        bounds = [self.since + width * index for index in range(count)]
        return list(zip(bounds, [*bounds[1:], self.until], strict=True))


def last_period(span: timedelta) -> Period:
    """Return the period of this length that ends now, by the database's clock as the operations' times."""
    now = database_clock(DEFAULT_DB_ALIAS)
    return Period(now - span, now)


# --- Figures ----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Volume:
    currency: str
    type: str
    count: int
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Movements:
    """Completed operations, by currency and type, and their number in each step of the period."""

    volumes: Sequence[Volume]  # the busiest currency first
    steps: Sequence[int]
    is_estimate: bool


@dataclass(frozen=True, slots=True)
class Refusals:
    reasons: Sequence[tuple[str, int]]  # the most frequent first
    steps: Sequence[int]
    is_estimate: bool


@dataclass(frozen=True, slots=True)
class BusyWallet:
    """A wallet with the number of its operations, refused ones included, and the volume that they moved."""

    id: UUID
    label: str
    currency: str
    operations: int
    volume: Decimal


@dataclass(frozen=True, slots=True)
class Busiest:
    by_operations: Sequence[BusyWallet]
    by_volume: Sequence[BusyWallet]  # sorted by currency, then by volume


@dataclass(frozen=True, slots=True)
class Report:
    """All figures. A figure whose query took too long is None, and `left_out` contains its name."""

    period: Period
    movements: Movements | None
    refusals: Refusals | None
    busiest: Busiest | None
    inbox: inbox.Waiting | None
    subscribers: Sequence[DeliveryState] | None
    last_check: LedgerCheck | None  # also None if there was no check yet
    left_out: Sequence[str]

    @property
    def is_estimate(self) -> bool:
        return any(part.is_estimate for part in (self.movements, self.refusals) if part)


def make(period: Period) -> Report:
    """Read the figures of the period, each with its own queries. The whole report is no snapshot."""
    reader = _Reader()
    last_check = reader.read(LAST_CHECK, verify.last_check)
    waiting = reader.read("inbox", inbox.waiting)
    subscribers = reader.read("subscribers", standings)
    sample = reader.read("operations", _sample, period, ALL_OPERATIONS)
    rejected = reader.read("refusals", _sample, period, REJECTED_OPERATIONS)
    return Report(
        period=period,
        movements=reader.read("operations", _movements, period, sample),
        refusals=reader.read("refusals", _refusals, period, rejected),
        busiest=reader.read("wallets", _busiest, sample),
        inbox=waiting,
        subscribers=subscribers,
        last_check=last_check,
        left_out=list(reader.left_out),
    )


# --- Queries ----------------------------------------------------------------------------------------
class _Reader:
    """Runs one query after the other until the deadline."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + QUERY_DEADLINE_SECONDS
        self.left_out: dict[str, None] = {}

    def read(self, name: str, query: Callable[..., T], *arguments: Any) -> T | None:
        """Return the result of `query`.

        If the query takes too long, cannot lock a table, or an argument is None because an earlier query
        failed, add `name` to `left_out` and return None.
        """
        remaining_ms = int((self._deadline - time.monotonic()) * 1000)
        if remaining_ms > 0 and None not in arguments:
            try:
                with _statement_timeout(remaining_ms):
                    return query(*arguments)
            except OperationalError as error:
                if not isinstance(error.__cause__, QueryCanceled | LockNotAvailable):
                    raise
        self.left_out[name] = None
        return None


@contextmanager
def _statement_timeout(milliseconds: int) -> Iterator[None]:
    """Limit each statement, and do not compile it: PostgreSQL estimates far too many rows."""
    with transaction.atomic():
        _rows(
            "SELECT set_config('statement_timeout', %s, true), set_config('jit', 'off', true)",
            [f"{milliseconds}"],
        )
        yield


@dataclass(frozen=True, slots=True)
class Sample:
    """The last `limit` operations of each slice. Each of them represents as many as the slice's weight."""

    slices: Sequence[Slice]
    weights: Sequence[Decimal]
    steps: Sequence[int]  # for each slice, the index of the step that it belongs to
    limit: int

    @property
    def is_estimate(self) -> bool:
        return any(weight != 1 for weight in self.weights)

    def read(self, sql: str) -> list[tuple[Any, ...]]:
        since, until = map(list, zip(*self.slices, strict=True))
        weight, step = list(self.weights), list(self.steps)
        slices = {"since": since, "until": until, "weight": weight, "step": step, "limit": self.limit}
        return _rows(sql, {**slices, "min_hits": MIN_SAMPLE_HITS if self.is_estimate else 1})


def _sample(period: Period, condition: str) -> Sample:
    """Return a sample with all operations of the period, or an estimate if there are too many."""
    parameters = [period.since, period.until, MAX_READ_OPERATIONS + 1]
    [(count,)] = _rows(_COUNT.format(condition=condition), parameters)
    if count > MAX_READ_OPERATIONS:
        return _estimate(period, condition)
    slices = period.slices()
    return Sample(slices, [Decimal(1)] * len(slices), range(len(slices)), MAX_READ_OPERATIONS)


def _estimate(period: Period, condition: str) -> Sample:
    parts_per_step = MAX_SAMPLE_SLICES // len(period.slices())
    slices = period.slices(parts_per_step)
    limit, max_count = MAX_READ_OPERATIONS // len(slices), MAX_COUNTED_OPERATIONS // len(slices)
    since, until = map(list, zip(*slices, strict=True))
    rows = _rows(_SLICES.format(condition=condition), [since, until, max_count])
    weights = [
        _weight(count, first, slice_, max_count, limit)
        for (count, first), slice_ in zip(rows, slices, strict=True)
    ]
    return Sample(slices, weights, [index // parts_per_step for index in range(len(slices))], limit)


def _weight(count: int, first: datetime, slice_: Slice, max_count: int, limit: int) -> Decimal:
    """Return how many operations of the slice each read operation represents.

    If the count ended at `max_count`, assume the same rate in the uncounted part of the slice before `first`.
    """
    if count <= limit:
        return Decimal(1)
    since, until = slice_
    total = count if count < max_count else count * ((until - since) / (until - first))
    return Decimal(total) / limit


def _movements(period: Period, sample: Sample) -> Movements:
    steps: Counter[int] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    amounts: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for step, currency, type_, count, amount in sample.read(_MOVEMENTS):
        steps[step] += count
        counts[currency, type_] += count
        amounts[currency, type_] += amount
    return Movements(_volumes(counts, amounts), _in_order(steps, period), sample.is_estimate)


def _volumes(counts: Counter[tuple[str, str]], amounts: dict[tuple[str, str], Decimal]) -> list[Volume]:
    currency_counts: Counter[str] = Counter()
    for (currency, _), count in counts.items():
        currency_counts[currency] += count
    volumes = [Volume(*key, round(count), amounts[key]) for key, count in counts.items()]
    return sorted(volumes, key=lambda it: (-currency_counts[it.currency], it.currency, -it.count, it.type))


def _refusals(period: Period, sample: Sample) -> Refusals:
    steps: Counter[int] = Counter()
    reasons: Counter[str] = Counter()
    for step, reason, count in sample.read(_REFUSALS):
        steps[step] += count
        reasons[reason] += count
    rounded = [(reason, round(count)) for reason, count in reasons.items()]
    most_frequent_first = sorted(rounded, key=lambda it: (-it[1], it[0]))
    return Refusals(most_frequent_first, _in_order(steps, period), sample.is_estimate)


def _in_order(steps: Counter[int], period: Period) -> list[int]:
    return [round(steps[index]) for index in range(len(period.slices()))]


def _busiest(sample: Sample) -> Busiest:
    ranked = [
        (BusyWallet(id, label, currency, round(operations), volume), by_operations, by_volume)
        for id, label, currency, operations, volume, by_operations, by_volume in sample.read(_WALLETS)
    ]
    return Busiest(
        by_operations=[
            wallet for wallet, rank, _ in sorted(ranked, key=lambda it: it[1]) if rank <= MAX_BUSIEST_WALLETS
        ],
        by_volume=[
            wallet
            for wallet, _, rank in sorted(ranked, key=lambda it: (it[0].currency, it[2]))
            if rank <= MAX_BUSIEST_OF_CURRENCY and wallet.volume
        ],
    )


def _rows(sql: str, parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows
