"""What the ledger did in a period, in figures: for operators, on their start page and in their terminal.

A period may have many millions of operations; what is read of them is bounded. Up to MOST, all are counted.
Beyond, the last operations of each of many slices of time stand for the slice: the figures are estimates.
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

# Seconds in which questions may begin; each of their statements has what is left of them. Some have two, so
# that the whole report takes twice that at most. What is missing then is left out.
STATEMENT_TIMEOUT_SECONDS: Final = 5.0
MAX_READ_OPERATIONS: Final = 100_000  # operations that are read
MAX_COUNTED_OPERATIONS: Final = 500_000  # those that are counted, from an index alone
MAX_SAMPLE_SLICES: Final = 2000  # of a period with more than MOST, at most
MIN_SAMPLE_HITS: Final = 10  # times that a sample has to meet a wallet: what rests on fewer is chance
MAX_PERIOD: Final = timedelta(days=31)
MAX_BUSIEST_WALLETS: Final = 10  # wallets by operations
MAX_BUSIEST_OF_CURRENCY: Final = 5  # wallets by volume: amounts of two currencies do not compare
STEPS: Final = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 360, 1440))  # of the chart
MAX_STEPS: Final = 60

LAST_CHECK: Final = "last verification"

ALL: Final = "true"
REJECTED: Final = "status = 'REJECTED'"  # these have an index of their own: they may be rare

_COUNT: Final = """
    SELECT count(*) FROM (
        SELECT FROM operation WHERE created_at >= %s AND created_at < %s AND {which} LIMIT %s
    ) AS operation
"""
# Of each slice, how many there are, as far as they are counted, and since when.
_SLICES: Final = """
    SELECT count, first
    FROM unnest(%s::timestamptz[], %s::timestamptz[]) WITH ORDINALITY AS slice (since, until, number)
    CROSS JOIN LATERAL (
        SELECT count(*) AS count, min(created_at) AS first FROM (
            SELECT created_at FROM operation WHERE created_at >= since AND created_at < until AND {which}
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
        WHERE created_at >= since AND created_at < until AND {which}
        ORDER BY created_at DESC LIMIT %(most)s
    ) AS operation
"""
_MOVEMENTS: Final = f"""
    SELECT step, currency, type, sum(weight), sum(amount * weight)
    FROM {_READ.format(which=ALL)} JOIN wallet ON wallet.id = wallet_id
    WHERE operation.status = 'COMPLETED'
    GROUP BY step, currency, type
"""  # noqa: S608
_REFUSALS: Final = f"""
    SELECT step, reason, sum(weight) FROM {_READ.format(which=REJECTED)} GROUP BY step, reason
"""  # noqa: S608
_WALLETS: Final = f"""
    WITH busy AS (
        SELECT wallet_id, sum(weight) AS operations,
               sum(amount * weight) FILTER (WHERE sequence IS NOT NULL) AS volume
        FROM {_READ.format(which=ALL)} GROUP BY wallet_id HAVING count(*) >= %(met)s
    ), placed AS (
        SELECT wallet.id, label, currency, operations, coalesce(volume, 0) AS volume,
               row_number() OVER (ORDER BY operations DESC, wallet.id) AS by_operations,
               row_number() OVER (
                   PARTITION BY currency ORDER BY volume DESC NULLS LAST, wallet.id
               ) AS by_volume
        FROM busy JOIN wallet ON wallet.id = wallet_id
    )
    SELECT * FROM placed
    WHERE by_operations <= {MAX_BUSIEST_WALLETS} OR by_volume <= {MAX_BUSIEST_OF_CURRENCY} AND volume > 0
"""  # noqa: S608


# --- Of which time ----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Period:
    """From `since` on, and before `until`."""

    since: datetime
    until: datetime

    @property
    def step(self) -> timedelta:
        """How long each part of the chart is; the last may be shorter."""
        return next(step for step in STEPS if (self.until - self.since) / step <= MAX_STEPS)

    def slices(self, finer: int = 1) -> list[Slice]:
        width = self.step / finer
        number = -((self.since - self.until) // width)
        bounds = [self.since + width * place for place in range(number)]
        return list(zip(bounds, [*bounds[1:], self.until], strict=True))


def last(span: timedelta) -> Period:
    """Until now, by the clock that the operations have their times from."""
    now = database_clock(DEFAULT_DB_ALIAS)
    return Period(now - span, now)


# --- What is told -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Volume:
    currency: str
    type: str
    count: int
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Movements:
    """What was completed: of each currency and type, and in each step of the period."""

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
    """A wallet, its operations in the period, refused ones as well, and what they moved in or out of it."""

    id: UUID
    label: str
    currency: str
    operations: int
    volume: Decimal


@dataclass(frozen=True, slots=True)
class Busiest:
    hot: Sequence[BusyWallet]  # by operations
    top: Sequence[BusyWallet]  # by volume, currency by currency


@dataclass(frozen=True, slots=True)
class Report:
    """A figure is None where it took too long, and then `left_out` names it."""

    period: Period
    movements: Movements | None
    refusals: Refusals | None
    busiest: Busiest | None
    inbox: inbox.Waiting | None
    subscribers: Sequence[DeliveryState] | None
    last_check: LedgerCheck | None  # None, too, where there was none yet
    left_out: Sequence[str]

    @property
    def is_estimate(self) -> bool:
        return any(part.is_estimate for part in (self.movements, self.refusals) if part)


def make(period: Period) -> Report:
    reader = _Reader()
    newest_check = reader.ask(LAST_CHECK, verify.last_check)
    waiting = reader.ask("inbox", inbox.waiting)
    subscribers = reader.ask("subscribers", standings)
    sample = reader.ask("operations", _sample, period, ALL)
    rejected = reader.ask("refusals", _sample, period, REJECTED)
    return Report(
        period=period,
        movements=reader.ask("operations", _movements, period, sample),
        refusals=reader.ask("refusals", _refusals, period, rejected),
        busiest=reader.ask("wallets", _busiest, sample),
        inbox=waiting,
        subscribers=subscribers,
        last_check=newest_check,
        left_out=list(reader.left_out),
    )


# --- How it is read ---------------------------------------------------------------------------------
class _Reader:
    """Asks one question after the other until patience ends."""

    def __init__(self) -> None:
        self._ends = time.monotonic() + STATEMENT_TIMEOUT_SECONDS
        self.left_out: dict[str, None] = {}

    def ask(self, name: str, question: Callable[..., T], *needs: Any) -> T | None:
        """Return None if the query, or one that it needs, took too long or could not lock a table."""
        left = int((self._ends - time.monotonic()) * 1000)
        if left > 0 and None not in needs:
            try:
                with _limited(left):
                    return question(*needs)
            except OperationalError as error:
                if not isinstance(error.__cause__, QueryCanceled | LockNotAvailable):
                    raise
        self.left_out[name] = None
        return None


@contextmanager
def _limited(milliseconds: int) -> Iterator[None]:
    """Each statement. PostgreSQL takes them for larger than they are, and would compile them for nothing."""
    with transaction.atomic():
        _rows(
            "SELECT set_config('statement_timeout', %s, true), set_config('jit', 'off', true)",
            [f"{milliseconds}"],
        )
        yield


@dataclass(frozen=True, slots=True)
class Sample:
    """The last `most` operations of each slice of time, each of which stands for `weights` of them."""

    slices: Sequence[Slice]
    weights: Sequence[Decimal]
    steps: Sequence[int]
    most: int

    @property
    def is_estimate(self) -> bool:
        return any(weight != 1 for weight in self.weights)

    def read(self, sql: str) -> list[tuple[Any, ...]]:
        since, until = map(list, zip(*self.slices, strict=True))
        weight, step = list(self.weights), list(self.steps)
        slices = {"since": since, "until": until, "weight": weight, "step": step, "most": self.most}
        return _rows(sql, {**slices, "met": MIN_SAMPLE_HITS if self.is_estimate else 1})


def _sample(period: Period, which: str) -> Sample:
    [(found,)] = _rows(_COUNT.format(which=which), [period.since, period.until, MAX_READ_OPERATIONS + 1])
    if found > MAX_READ_OPERATIONS:
        return _thinned(period, which)
    slices = period.slices()
    return Sample(slices, [Decimal(1)] * len(slices), range(len(slices)), MAX_READ_OPERATIONS)


def _thinned(period: Period, which: str) -> Sample:
    finer = MAX_SAMPLE_SLICES // len(period.slices())
    slices = period.slices(finer)
    most, counted = MAX_READ_OPERATIONS // len(slices), MAX_COUNTED_OPERATIONS // len(slices)
    since, until = map(list, zip(*slices, strict=True))
    rows = _rows(_SLICES.format(which=which), [since, until, counted])
    weights = [
        _weight(count, first, slice_, counted, most)
        for (count, first), slice_ in zip(rows, slices, strict=True)
    ]
    return Sample(slices, weights, [place // finer for place in range(len(slices))], most)


def _weight(count: int, first: datetime, slice_: Slice, counted: int, most: int) -> Decimal:
    """How many operations of a slice each stands for that is read. Uncounted ones came at the same rate."""
    if count <= most:
        return Decimal(1)
    since, until = slice_
    in_all = count if count < counted else count * ((until - since) / (until - first))
    return Decimal(in_all) / most


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
    of_currency: Counter[str] = Counter()
    for (currency, _), count in counts.items():
        of_currency[currency] += count
    volumes = [Volume(*of, round(count), amounts[of]) for of, count in counts.items()]
    return sorted(volumes, key=lambda it: (-of_currency[it.currency], it.currency, -it.count, it.type))


def _refusals(period: Period, sample: Sample) -> Refusals:
    steps: Counter[int] = Counter()
    reasons: Counter[str] = Counter()
    for step, reason, count in sample.read(_REFUSALS):
        steps[step] += count
        reasons[reason] += count
    told = sorted(
        ((reason, round(count)) for reason, count in reasons.items()), key=lambda it: (-it[1], it[0])
    )
    return Refusals(told, _in_order(steps, period), sample.is_estimate)


def _in_order(steps: Counter[int], period: Period) -> list[int]:
    return [round(steps[number]) for number in range(len(period.slices()))]


def _busiest(sample: Sample) -> Busiest:
    placed = [
        (BusyWallet(id, label, currency, round(operations), volume), by_operations, by_volume)
        for id, label, currency, operations, volume, by_operations, by_volume in sample.read(_WALLETS)
    ]
    return Busiest(
        hot=[
            wallet
            for wallet, place, _ in sorted(placed, key=lambda it: it[1])
            if place <= MAX_BUSIEST_WALLETS
        ],
        top=[
            wallet
            for wallet, _, place in sorted(placed, key=lambda it: (it[0].currency, it[2]))
            if place <= MAX_BUSIEST_OF_CURRENCY and wallet.volume
        ],
    )


def _rows(sql: str, parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows
