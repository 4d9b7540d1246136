"""Line chart of a wallet's balance in its last months, drawn by the server without scripts.

The picture contains only lines. Texts are placed around it, so that they are not scaled down on a phone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final

from django.db import connection

from wallets import money
from wallets.models import Wallet

MAX_PERIOD: Final = timedelta(days=90)
MAX_SLICES: Final = 100  # of the period; each needs one index lookup
PICTURE_SIZE: Final = 1000  # width and height in the picture's own coordinates

# The last operation of each slice that moved money, read from an index alone: the time does not grow with the
# number of operations. Each refused operation is skipped at most once.
_LAST_OF_SLICES: Final = """
    SELECT newest.created_at, newest.balance_after
    FROM unnest(%s::timestamptz[], %s::timestamptz[]) AS slice (after, until)
    CROSS JOIN LATERAL (
        SELECT created_at, balance_after FROM operation
        WHERE wallet_id = %s AND created_at > after AND created_at <= until AND sequence IS NOT NULL
        ORDER BY created_at DESC LIMIT 1
    ) AS newest
    ORDER BY newest.created_at
"""

Point = tuple[datetime, Decimal]


@dataclass(frozen=True, slots=True)
class GridLine:
    """A horizontal line with its text, at `top` percent of the picture's height."""

    top: str
    text: str


@dataclass(frozen=True, slots=True)
class BalanceChart:
    currency: str
    start: datetime
    end: datetime
    low: Decimal
    high: Decimal
    last: Decimal
    size: int
    line: str
    area: str
    marks: Sequence[GridLine]

    @property
    def moments(self) -> tuple[datetime, datetime, datetime]:
        """The times that are shown below the picture."""
        return self.start, self.start + (self.end - self.start) / 2, self.end

    @property
    def detail(self) -> str:
        """The part of each moment that is shown: its `time`, its `date`, or `both`."""
        span = self.end - self.start
        if span < timedelta(hours=1):
            return "time"
        return "both" if span < timedelta(days=6) else "date"

    @property
    def times(self) -> list[str]:
        form = {"time": "%H:%M:%S", "both": "%m-%d %H:%M", "date": "%Y-%m-%d"}[self.detail]
        return [f"{moment:{form}}" for moment in self.moments]

    @property
    def title(self) -> str:
        return f"Balance, {self.currency}"

    @property
    def summary(self) -> str:
        """Return the text alternative of the picture."""
        balances = (self.low, self.high, self.last)
        low, high, last = (money.format_amount(balance, self.currency) for balance in balances)
        return (
            f"Balance in {self.currency} from {self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M} UTC:"
            f" lowest {low}, highest {high}, at the end {last}"
        )


def balance_chart(wallet: Wallet, now: datetime) -> BalanceChart | None:
    """Return the chart from the opening until `now`, at most MAX_PERIOD; None if no money has moved."""
    end = max(now, wallet.updated_at)
    start = max(wallet.created_at, end - MAX_PERIOD)
    points = _points(wallet, start, end)
    if not wallet.sequence or not points:
        return None
    balances = [balance for _, balance in points]
    digits = money.FRACTION_DIGITS[wallet.currency]
    steps = round_steps(min(Decimal(0), *balances), max(Decimal(0), *balances), digits)
    picture = _Picture(start, end, steps[0], steps[-1])
    line = picture.line(points)
    return BalanceChart(
        currency=wallet.currency,
        start=start,
        end=end,
        low=min(balances),
        high=max(balances),
        last=balances[-1],
        size=PICTURE_SIZE,
        line=line,
        area=f"{line}V{picture.y(Decimal(0))}H{picture.x(start)}Z",
        marks=[GridLine(f"{picture.y(step) * 100 / PICTURE_SIZE:.2f}", f"{step:f}") for step in steps],
    )


def _points(wallet: Wallet, start: datetime, end: datetime) -> list[Point]:
    """Return the balance at the start, and after the last operation of each slice."""
    slice_ = (end - start) / MAX_SLICES
    bounds = [start + slice_ * number for number in range(MAX_SLICES)] + [end]
    before = min(wallet.created_at, start) - timedelta(days=1)
    with connection.cursor() as cursor:
        cursor.execute(_LAST_OF_SLICES, [[before, *bounds[:-1]], bounds, wallet.id])
        points: list[Point] = cursor.fetchall()
    opening = [balance for time, balance in points if time <= start]
    return [(start, opening[0] if opening else Decimal(0)), *(point for point in points if point[0] > start)]


@dataclass(frozen=True, slots=True)
class _Picture:
    start: datetime
    end: datetime
    low: Decimal
    high: Decimal

    def x(self, time: datetime) -> float:
        return round((time - self.start) / (self.end - self.start) * PICTURE_SIZE, 1)

    def y(self, balance: Decimal) -> float:
        return round(float((self.high - balance) / (self.high - self.low)) * PICTURE_SIZE, 1)

    def line(self, points: Sequence[Point]) -> str:
        """Return an SVG path of steps: across to the time of a change, then up or down to the new balance."""
        (first, opening), *changes = points
        steps = [f"H{self.x(time)}V{self.y(balance)}" for time, balance in changes]
        return "".join([f"M{self.x(first)} {self.y(opening)}", *steps, f"H{PICTURE_SIZE}"])


def round_steps(low: Decimal, high: Decimal, digits: int) -> list[Decimal]:
    """Return the marks of an axis: round numbers with at most `digits` fraction digits, around all values."""
    smallest = Decimal(1).scaleb(-digits)
    min_step = max(high - low, smallest) / 3
    power = Decimal(1).scaleb(min_step.adjusted())
    step = max(next(power * factor for factor in (1, 2, 5, 10) if power * factor >= min_step), smallest)
    first = (low / step).to_integral_value(ROUND_FLOOR)
    last = max((high / step).to_integral_value(ROUND_CEILING), first + 1)
    return [step * number for number in range(int(first), int(last) + 1)]
