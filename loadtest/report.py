"""Tables and checks of measured figures."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from loadtest.wrk import Result


@dataclass(frozen=True, slots=True)
class Check:
    """A figure with its required bounds, and an aim beyond them."""

    name: str
    value: float
    at_least: float = -inf
    at_most: float = inf
    aim: float | None = None
    spread: tuple[float, float] | None = None

    @property
    def is_met(self) -> bool:
        return self.at_least <= self.value <= self.at_most

    @property
    def bounds(self) -> str:
        low = "" if self.at_least == -inf else f"≥ {_short(self.at_least)}"
        high = "" if self.at_most == inf else f"≤ {_short(self.at_most)}"
        return f"{low} {high}".strip()


def ratio(name: str, above: Sequence[float], below: Sequence[float], **bounds: float) -> Check:
    """Return the median of the ratios of neighbouring runs, because a busy machine affects both of a pair."""
    ratios = [one / other for one, other in zip(above, below, strict=True)]
    return Check(name, statistics.median(ratios), **bounds, spread=(min(ratios), max(ratios)))


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]

    def text(line: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join([first, *others])

    return "\n".join([text(head), text(["-" * width for width in widths]), *(text(line) for line in lines)])


def result_row(title: str, results: Sequence[Result]) -> list[str]:
    rates = [result.rate for result in results]
    return [
        title,
        f"{statistics.median(rates):,.0f}",
        f"{min(rates):,.0f}–{max(rates):,.0f}",
        f"{statistics.median(result.p50 for result in results):,.1f}",
        f"{statistics.median(result.p99 for result in results):,.1f}",
        f"{max(result.slowest for result in results):,.0f}",
        f"{statistics.median(result.service_cpu for result in results):,.0f}",
        f"{statistics.median(result.database_cpu for result in results):,.0f}",
        str(sum(result.failures for result in results)),
    ]


RESULT_HEAD = ("row", "per second", "range", "p50 ms", "p99 ms", "slowest ms", "CPU µs", "DB µs", "failures")
CHECK_HEAD = ("figure", "measured", "range", "required", "aim", "")


def check_row(check: Check) -> list[str]:
    spread = f"{_short(check.spread[0])}–{_short(check.spread[1])}" if check.spread else ""
    aim = "" if check.aim is None else _short(check.aim)
    return [check.name, _short(check.value), spread, check.bounds, aim, "met" if check.is_met else "MISSED"]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"  # noqa: PLR2004
