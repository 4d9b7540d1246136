"""Column chart of operations over time, drawn by the server: rejected operations above completed ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from wallets.chart import PICTURE_SIZE, GridLine, round_steps
from wallets.report import Movements, Period, Refusals

GAP_FRACTION: Final = 0.2  # part of each column's slot that stays empty
_STEP_NAMES: Final = {
    timedelta(minutes=1): "minute",
    timedelta(hours=1): "hour",
}


@dataclass(frozen=True, slots=True)
class Column:
    x: float
    completed: float  # height
    rejected: float  # height
    title: str

    @property
    def top(self) -> float:
        return round(PICTURE_SIZE - self.completed - self.rejected, 1)

    @property
    def boundary(self) -> float:
        return round(PICTURE_SIZE - self.completed, 1)


@dataclass(frozen=True, slots=True)
class ColumnChart:
    title: str
    size: int
    width: float  # of a column
    columns: Sequence[Column]
    marks: Sequence[GridLine]
    times: Sequence[str]
    summary: str


def draw(period: Period, movements: Movements, refusals: Refusals) -> ColumnChart:
    pairs = list(zip(movements.steps, refusals.steps, strict=True))
    marks = round_steps(Decimal(0), Decimal(max(map(sum, pairs))), 0)
    middle = period.since + (period.until - period.since) / 2
    return ColumnChart(
        title=f"Operations per {_step_name(period.step)}",
        size=PICTURE_SIZE,
        width=round(PICTURE_SIZE / len(pairs) * (1 - GAP_FRACTION), 1),
        columns=_columns(period, pairs, float(marks[-1])),
        marks=[GridLine(f"{100 - float(mark / marks[-1]) * 100:.2f}", f"{mark:,f}") for mark in marks],
        times=[_moment(moment) for moment in (period.since, middle, period.until)],
        summary=f"{sum(movements.steps):,} operations completed, {sum(refusals.steps):,} rejected,"
        f" from {_moment(period.since)} to {_moment(period.until)} UTC",
    )


def _columns(period: Period, pairs: Sequence[tuple[int, int]], max_count: float) -> list[Column]:
    slot_width, unit_height = PICTURE_SIZE / len(pairs), PICTURE_SIZE / max_count
    return [
        Column(
            x=round(slot_width * (number + GAP_FRACTION / 2), 1),
            completed=round(completed * unit_height, 1),
            rejected=round(rejected * unit_height, 1),
            title=f"from {_moment(since)}: {completed:,} completed, {rejected:,} rejected",
        )
        for number, ((since, _), (completed, rejected)) in enumerate(zip(period.slices(), pairs, strict=True))
    ]


def _step_name(step: timedelta) -> str:
    if step in _STEP_NAMES:
        return _STEP_NAMES[step]
    minutes = int(step.total_seconds()) // 60
    return f"{minutes} minutes" if minutes % 60 else f"{minutes // 60} hours"


def _moment(moment: datetime) -> str:
    return f"{moment:%m-%d %H:%M}"
